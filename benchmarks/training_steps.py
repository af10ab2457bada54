"""Seconds per step of training: cfseg beside stock nnU-Net, same cohort, network and patch, fp32.

cfseg trains once with windows of the cohort and once with the same batch again and again; what the
first takes longer is the feed's share.
"""

from collections.abc import Sequence
from functools import partial
from os import getloadavg
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch

from benchmarks import stock_trainer
from benchmarks.training_accuracy import learned_from, training_of
from cfseg.dataset.cases import Case, read_labels
from cfseg.feed.augmentation import Augmentation
from cfseg.feed.crops import CPU, Cohort, Sampling, cohort
from cfseg.feed.planning import plan_stage
from cfseg.feed.store import Origin, Store, survey
from cfseg.feed.windows import AHEAD, Feed, Windows
from cfseg.io import read_scan
from cfseg.labels import LABELS, ORGANS
from cfseg.networks.build import fresh_network
from cfseg.networks.operations import sgemm_gflops
from cfseg.phantoms.cohort import write_cohort
from cfseg.plan import ROLES, Role, StagePlan
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.loop import train
from cfseg.training.run import Place, Settings
from cfseg.volume import LabelMap, Volume

Values = dict[str, Any]
SEED = 990_172
CASES = 8
HELD_MB = 4000.0
"""Of the cases in memory; all are held."""
TIMES: Values = {"warm_up": 5, "steps": 20}
QUICK_STEPS: Values = {"stage": "coarse", "patch": (16, 32, 32), "warm_up": 1, "steps": 2}
LARGE: Values = {"stage": "coarse", "patch": (64, 160, 224)}
"""The demo recipe's coarse network with the patch of the paper's."""


def measured() -> list[Values]:
    """Return stage and patch of what is measured: the demo recipe's networks, and a large patch."""
    training = training_of(seed=0)
    own = [{"stage": role, "patch": getattr(training, role).patch} for role in ROLES]
    return [TIMES | values for values in (*own, LARGE)]


def write_training_cases(folder: Path, cases: int) -> Path:
    """Return the folder of a cohort with so many cases that have all organs and no tumor."""
    return write_cohort(folder / f"steps-{cases}", cases + 3, SEED, groups=True, full=cases)


def asked(v: Values) -> tuple[Training, StageTraining]:
    """Return the demo recipe's settings, those of stock nnU-Net, and the stage with its patch."""
    training = training_of(seed=0)
    stage: StageTraining = getattr(training, v["stage"])
    return training.of(stage), stage.model_copy(update={"patch": tuple(v["patch"])})


# -- cfseg -----------------------------------------------------------------------------------------


def training_steps(v: Values) -> Values:
    """Steps of cfseg, with windows of a cohort or, ``repeated``, with one batch."""
    load, (training, stage) = getloadavg()[0], asked(v)
    plan, source = _stored(v, training, stage)
    total = v["warm_up"] + v["steps"]
    settings = Settings.of(training, stage, head_weights=plan.deep_supervision)
    settings = settings.model_copy(update={"epochs": 1, "iterations_per_epoch": total})
    ends: list[float] = []
    with TemporaryDirectory() as folder, _feed(v, training, plan, source) as feed:
        first = feed(0) if v["repeated"] else None

        def windows(step: int) -> Windows:
            return first or feed(step)

        train(
            fresh_network(plan, 0), windows, settings, Place(Path(folder), 1, 60.0, 1),
            report=lambda _: None, on_step=lambda _: ends.append(perf_counter()),
        )  # fmt: skip
    flags = torch.backends.cpu.get_cpu_capability()
    return _summary(ends, v) | {"load": load, "gflops": sgemm_gflops(2048, 2), "flags": flags}


def _feed(v: Values, training: Training, plan: StagePlan, source: Cohort) -> Feed:
    return Feed(
        source,
        seed=0,
        samples=range(training.batch_size),
        patch=plan.patch,
        augmentation=Augmentation.of(training, plan.patch),
        intensity=plan.intensity,
        device=CPU,
        ahead=0 if v["repeated"] else AHEAD,
    )


def _stored(v: Values, training: Training, stage: StageTraining) -> tuple[StagePlan, Cohort]:
    """Return the plan of a stage and its cases in memory, stored if they were not."""
    folder = Path(v["folder"])
    origins = [
        Origin(case.name, case.name, case.name, partial(_read, case))
        for case in learned_from(Path(v["cohort"]))
    ]
    facts = survey(origins, folder / "facts", training.z_margin_slices)
    plan = plan_stage(cast("Role", v["stage"]), stage, facts)
    stored = Store(folder / "store", plan).write(origins, facts)
    sampling = Sampling(plan.patch, training.oversample_foreground)
    return plan, cohort(stored, sampling, plan.intensity.lower, CPU, HELD_MB)


def _read(case: Case) -> tuple[Volume, LabelMap]:
    return read_scan(case.image).volume, read_labels(case)


# -- stock nnU-Net ---------------------------------------------------------------------------------


def stock_training_steps(v: Values) -> Values:
    """Steps of stock nnU-Net's trainer with one process that augments."""
    training, stage = asked(v)
    name = f"stock-{v['stage']}-{'x'.join(map(str, stage.patch))}"
    folders = stock_trainer.Folders(Path(v["folder"]) / name)
    files = {case.name: (case.image, case.label) for case in learned_from(Path(v["cohort"]))}
    labels = LABELS if v["stage"] == "tumor" else ORGANS
    stock_trainer.prepare(folders, files, training, stage, labels)
    stock_trainer.write_split(folders, list(files), list(files)[:1])
    folders.enter(workers=1)
    trainer = stock_trainer.trainer_of(folders, 0, training, stage)
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    ends = []
    for _ in range(v["warm_up"] + v["steps"]):
        trainer.train_step(next(trainer.dataloader_train))
        ends.append(perf_counter())
    trainer.on_train_end()  # its workers end
    return _summary(ends, v)


def _summary(ends: Sequence[float], v: Values) -> Values:
    """Return seconds of the steps after the first ones, from when each ended."""
    each = np.diff(ends)[v["warm_up"] - 1 :].tolist()
    return {"seconds": {"total": sum(each), "step": median(each)}, "each": each}
