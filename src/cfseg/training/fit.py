"""Fit one network of the chain: from its last checkpoint, from known weights, or from nothing."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch

from cfseg.feed.augmentation import Augmentation
from cfseg.feed.crops import Mixture, Sampling, Source, cohort, label_voxels
from cfseg.feed.phantoms import Phantoms
from cfseg.feed.rendered import Rendered
from cfseg.feed.windows import Feed
from cfseg.inference.predictor import windows_of
from cfseg.inference.process_memory import give_back, reset_peak
from cfseg.io.memory import limit_bytes
from cfseg.learning.board import Board
from cfseg.learning.group import is_first, own_samples, processes
from cfseg.learning.loop import train
from cfseg.learning.losses import head_weights, rare_label_weights
from cfseg.learning.precision import precision_on
from cfseg.learning.run import Epoch, Outcome, Place, Settings, Step
from cfseg.learning.stopping import noting_signals
from cfseg.networks.build import fresh_network
from cfseg.phantoms.atlas import Atlas
from cfseg.recipes.recipe import Cascade
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.curriculum import Learner
from cfseg.training.data import Lesson, read_lesson
from cfseg.training.looks import Looks
from cfseg.training.start import Start
from cfseg.training.steps import Progress, Report
from cfseg.training.trained import write_plan
from cfseg.training.validation import Validation

RESIDENT_SHARE = {"cpu": 0.25, "cuda": 0.25}
"""Of the memory there is, for cases that are kept in it."""
MOST_FEED_SHARE = 0.1
"""Of a step's time; if windows take more of it the device waits too long."""


def fit(
    learner: Learner,
    weight: int,
    cascade: Cascade,
    device: torch.device,
    report: Report,
    *,
    start: Start | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train one network, from its last checkpoint if there is one.

    In a group of processes all of them call it.

    Args:
        learner: the network, with its cases stored.
        weight: 1 or 2; another weight is another random initialization.
        cascade: says how windows lie when it is validated.
        device: where to train.
        report: gets one line per epoch.
        start: of the weights; None for random ones.
        progress: is told after each step.

    Raises:
        UsageError: the start does not fit, the batch cannot be shared so, or the CPU cannot do the
            precision that the recipe names.
        ModelError: no checkpoint can be read, or ``E_NONFINITE_LOSS``.
        ResourceError: ``E_DISK``.
    """
    training, stage = learner.training, learner.stage
    lesson, seed = read_lesson(learner), training.seed + weight
    name, place = learner.networks[weight - 1], _place(learner, weight)
    _forget_memory(device)
    atlases = atlases_of(learner)
    settings = settings_of(lesson, training, stage, device)
    network = fresh_network(lesson.plan, seed)
    if start is not None:
        report(start(network, lesson.plan))
    network.to(device)
    told = _Told(name, settings.epochs, report, progress, learner.work / "tensorboard" / name)
    with (
        noting_signals() as stop,
        feed_of(lesson, training, stage, seed, device, atlases) as feed,
        closing(told),
    ):
        looks = None
        if is_first():
            write_plan(place.folder, lesson.plan)
            looks = Looks(learner.work, name, lesson.plan)
            looks.windows(lambda: feed(0))
        validation = Validation(
            learner.role, lesson.plan, lesson.held_out, learner.annotated,
            windows_of(cascade, learner.role), training.validation_cases, stop, looks,
        )  # fmt: skip
        outcome = train(
            network, feed, settings, place, name=name, report=report, on_step=told.step,
            on_epoch=told.epoch, validate=validation if lesson.held_out else None, stop=stop,
        )  # fmt: skip
    _warn_if_starved(outcome, name, device, report)
    return outcome


class _Told:
    """Tells of the steps and epochs of a network: the bar, a line, TensorBoard."""

    def __init__(
        self, name: str, epochs: int, report: Report, progress: Progress | None, logs: Path
    ) -> None:
        self.name, self.epochs, self.report, self.progress = name, epochs, report, progress
        self.board = Board(logs) if is_first() else None

    def step(self, step: Step) -> None:
        if self.progress is not None:
            self.progress(self.name, step.done, step.total)

    def epoch(self, epoch: Epoch) -> None:
        loss = "no step was taken" if epoch.loss is None else f"loss {epoch.loss:.4f}"
        score = "" if epoch.score is None else f", validation DSC {epoch.score:.2%}"
        self.report(
            f"{self.name}: epoch {epoch.epoch} of {self.epochs}: {loss}, "
            f"learning rate {epoch.lr:.2g}{score}"
        )
        if self.board is not None:
            self.board.write(epoch.epoch, epoch.model_dump(exclude={"epoch"}))

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def settings_of(
    lesson: Lesson, training: Training, stage: StageTraining, device: torch.device
) -> Settings:
    """Return what decides the weights of a network.

    Args:
        lesson: what it learns from.
        training: what all stages share.
        stage: what is this stage's own.
        device: where it is trained.

    Raises:
        UsageError: see :func:`cfseg.learning.precision.precision_on`.
    """
    plan, exponent = lesson.plan, training.of(stage).rare_label_exponent
    voxels = label_voxels(lesson.learned, len(plan.labels)).tolist()
    return Settings.of(
        training, stage,
        head_weights=plan.deep_supervision or head_weights(len(plan.architecture.n_conv_decoder)),
        label_weights=rare_label_weights(voxels, exponent) if exponent else None,
        precision=precision_on(device, training.cpu_precision),
    )  # fmt: skip


def atlases_of(learner: Learner) -> tuple[Atlas, ...]:
    """Read the atlases that a network learns from; none where it learns from a cohort alone.

    Args:
        learner: the network.

    Raises:
        UsageError: there are none where they should be.
        InputError: one is damaged.
    """
    return () if learner.atlases is None else learner.atlases.read()


def feed_of(
    lesson: Lesson,
    training: Training,
    stage: StageTraining,
    seed: int,
    device: torch.device,
    atlases: Sequence[Atlas] = (),
) -> Feed:
    """Return the windows of a network.

    Args:
        lesson: what it learns from.
        training: what all stages share.
        stage: what is this stage's own.
        seed: of all that is random.
        device: where they are wanted.
        atlases: that the recipe's share of the windows is rendered from.

    Raises:
        UsageError: the batch cannot be shared evenly.
        InputError: ``E_CORRUPT``.
    """
    plan, rule = lesson.plan, training.of(stage)
    sampling = Sampling(plan.patch, rule.oversample_foreground, stage.tumor_focus)
    source: Source = cohort(
        lesson.learned, sampling, plan.intensity.lower, device, _resident_mb(device)
    )
    shares = training.phantom_share, training.map_share
    parts = [(source, 1 - sum(shares)), (Phantoms(plan, sampling), shares[0])]
    if shares[1]:
        rendered = Rendered(atlases, plan, sampling, device, empty_share=training.empty_share)
        parts.append((rendered, shares[1]))
    if any(shares):
        source = Mixture(parts)
    return Feed(
        source, seed=seed, samples=own_samples(training.batch_size), patch=plan.patch,
        augmentation=Augmentation.of(training, plan.patch), intensity=plan.intensity,
        device=device,
    )  # fmt: skip


def _forget_memory(device: torch.device) -> None:
    """Let nothing that a network before this one took count as taken, nor its peak."""
    give_back(device)
    reset_peak(device)


def _resident_mb(device: torch.device) -> float:
    if device.type == "cuda":
        there = float(torch.cuda.mem_get_info(device)[0])
    else:
        there = limit_bytes() / processes()  # which share a machine's memory
    return RESIDENT_SHARE[device.type] * there / 1e6


def _place(learner: Learner, weight: int) -> Place:
    training = learner.training
    return Place(
        learner.network_folder(weight), training.save_every_epochs, training.save_every_minutes,
        training.keep_at_most,
    )  # fmt: skip


def _warn_if_starved(outcome: Outcome, name: str, device: torch.device, report: Report) -> None:
    share = outcome.cost.feed_share
    if share > MOST_FEED_SHARE and device.type == "cuda":
        report(
            f"{name}: the GPU waited for windows {share:.0%} of the time; give the process more "
            "CPU cores, or put the workspace on a faster disk"
        )
