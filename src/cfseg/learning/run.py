"""What a training is told, where it is, and what it tells of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict
from torch import nn

from cfseg.plan import Frozen
from cfseg.recipes.training import Learning, StageTraining, Training

Validate = Callable[[nn.Module, int], float | None]
"""Scores a network after an epoch; None if there is nothing to score."""


class Settings(Learning):
    """Everything that decides the weights besides the network; a run does not go on with others.

    Attributes:
        epochs: of ``iterations_per_epoch`` steps.
        iterations_per_epoch: see :class:`cfseg.recipes.training.Training`.
        keep_every_epochs: how often a network is validated, and kept if it is among the best.
        tumor_dice_weight: see :class:`cfseg.recipes.training.StageTraining`.
        label_weights: of the cross-entropy, one for each label; None for all alike.
        head_weights: of the losses of the network's heads, finest first.
        precision: of the network's arithmetic; weights and losses are fp32.
        ema: decay of the moving average of the weights that is validated and kept in their place;
            0 for none.
        source: tells apart what windows are made of, as a digest of cohort and plan.
    """

    epochs: int
    iterations_per_epoch: int
    keep_every_epochs: int
    tumor_dice_weight: float = 1.0
    label_weights: tuple[float, ...] | None = None
    head_weights: tuple[float, ...] = (1.0,)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float = 0.0
    source: str = ""

    @classmethod
    def of(cls, training: Training, stage: StageTraining, **others: Any) -> Self:  # noqa: ANN401
        """Return what a recipe says of a stage.

        Args:
            training: what all stages share.
            stage: what is this stage's own.
            others: fields that no recipe has, by name.
        """
        shared = training.of(stage).model_dump()
        values = shared | stage.model_dump(include={"epochs", "tumor_dice_weight"})
        return cls(**{key: values[key] for key in cls.model_fields if key in values} | others)

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.epochs * self.iterations_per_epoch


@dataclass(frozen=True)
class Place:
    """Where checkpoints lie and how often they are written.

    Attributes:
        folder: of this network alone.
        save_every_epochs: see :class:`cfseg.recipes.training.Training`.
        save_every_minutes: the same.
        keep_at_most: the same.
    """

    folder: Path
    save_every_epochs: int
    save_every_minutes: float
    keep_at_most: int


class Step(NamedTuple):
    """A step that was taken.

    Attributes:
        done: steps so far.
        total: steps of the whole training.
        samples: windows of the joined batch.
        loss: of the joined batch; NaN if the step was left out.
        lr: learning rate.
        seconds: it took.
        feed_seconds: of these, waiting for the windows.
    """

    done: int
    total: int
    samples: int
    loss: float
    lr: float
    seconds: float
    feed_seconds: float


class Epoch(Frozen):
    """A row of the learning curve.

    Attributes:
        epoch: counted from 1.
        loss: mean over its steps; None if all were left out.
        lr: learning rate.
        score: by validation; None if there was none, or nothing to score.
    """

    epoch: int
    loss: float | None
    lr: float
    score: float | None


class Cost(Frozen):
    """What a training took so far, but for what a kill threw away.

    Attributes:
        steps: that were taken.
        samples: windows in them, of all processes.
        step_seconds: of all steps.
        feed_seconds: of these, waiting for the windows.
        validation_seconds: of all validations.
        saving_seconds: of all checkpoints.
        peak_mb: most memory of the first process.
        device: cpu or cuda.
        processes: that shared each batch.
    """

    steps: int = 0
    samples: int = 0
    step_seconds: float = 0.0
    feed_seconds: float = 0.0
    validation_seconds: float = 0.0
    saving_seconds: float = 0.0
    peak_mb: float = 0.0
    device: str = ""
    processes: int = 1

    @property
    def seconds(self) -> float:
        """All together."""
        return self.step_seconds + self.validation_seconds + self.saving_seconds

    @property
    def seconds_per_step(self) -> float:
        """The mean."""
        return self.step_seconds / max(1, self.steps)

    @property
    def samples_per_second(self) -> float:
        """Windows, of all processes."""
        return self.samples / max(1e-9, self.step_seconds)

    @property
    def feed_share(self) -> float:
        """How much of the steps the device waits for windows, 0 to 1."""
        return self.feed_seconds / max(1e-9, self.step_seconds)

    def after(self, step: Step) -> "Cost":
        """Return the cost with that of one more step."""
        return self.plus(
            steps=1, samples=step.samples, step_seconds=step.seconds, feed_seconds=step.feed_seconds
        )

    def plus(self, **more: float) -> "Cost":
        """Return the cost with these values added."""
        return self.model_copy(update={key: getattr(self, key) + more[key] for key in more})


class State(BaseModel):
    """Where a training is, besides the tensors.

    Attributes:
        step: steps done.
        skipped: steps in a row that were left out.
        losses: of the steps of the epoch under way that were not.
        history: of the epochs that are over.
        scaler: of half precision.
        cost: so far.
    """

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    skipped: int = 0
    losses: list[float] = []
    history: list[Epoch] = []
    scaler: dict[str, int | float] = {}
    cost: Cost = Cost()


class Kept(NamedTuple):
    """Weights that did well on the validation cases.

    Attributes:
        path: for :func:`cfseg.learning.checkpoints.read`; the tensors are the network's alone.
        epoch: after which these were the weights, counted from 1.
        score: None if there was nothing to score.
    """

    path: Path
    epoch: int
    score: float | None


class Outcome(NamedTuple):
    """A training that is over.

    Attributes:
        final: checkpoint of the last weights.
        kept: the best weights, best first.
        history: of all epochs.
        cost: of it.
    """

    final: Path
    kept: tuple[Kept, ...]
    history: tuple[Epoch, ...]
    cost: Cost
