"""Seconds per step of training: cfseg beside stock nnU-Net, same cohort, network and patch, fp32.

cfseg trains with windows of the cohort and with one batch again and again, as ``cfseg train
--benchmark`` does; what the first takes longer is the feed's share.
"""

from functools import partial
from os import getloadavg
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, cast

import torch

from benchmarks import stock_trainer
from benchmarks.training_accuracy import learned_from, training_of
from cfseg.dataset.cases import Case, read_labels
from cfseg.feed.planning import plan_stage
from cfseg.feed.store import Origin, Store, survey
from cfseg.io import read_scan
from cfseg.labels import LABELS, ORGANS
from cfseg.networks.build import fresh_network
from cfseg.networks.operations import sgemm_gflops
from cfseg.phantoms.cohort import write_cohort
from cfseg.plan import ROLES, Role
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.benchmark import TIMED, WARM_UP, median_step
from cfseg.training.data import Lesson
from cfseg.training.fit import feed_of, settings_of
from cfseg.volume import LabelMap, Volume

Values = dict[str, Any]
CPU = torch.device("cpu")
SEED = 990_172
CASES = 8
QUICK_STEPS: Values = {"stage": "coarse", "patch": (16, 32, 32), "steps": 2}
LARGE: Values = {"stage": "coarse", "patch": (64, 160, 224), "steps": TIMED}
"""The demo recipe's coarse network with the patch of the paper's."""


def measured() -> list[Values]:
    """Return stage and patch of what is measured: the demo recipe's networks, and a large patch."""
    training = training_of(seed=0)
    own = [{"stage": role, "patch": getattr(training, role).patch} for role in ROLES]
    return [*({"steps": TIMED} | values for values in own), LARGE]


def write_training_cases(folder: Path, cases: int) -> Path:
    """Return the folder of a cohort with so many cases that have all organs and no tumor."""
    return write_cohort(folder / f"steps-{cases}", cases + 3, SEED, groups=True, full=cases)


def _asked(v: Values) -> tuple[Training, StageTraining]:
    """Return the demo recipe with stock nnU-Net's settings, and the stage with its patch."""
    training = training_of(seed=0)
    stage: StageTraining = getattr(training, v["stage"])
    return training.of(stage), stage.model_copy(update={"patch": tuple(v["patch"])})


def training_steps(v: Values) -> Values:
    """Median step of cfseg, with windows of a cohort and with one batch."""
    load, (training, stage) = getloadavg()[0], _asked(v)
    lesson = _lesson(v, training, stage)
    settings = settings_of(lesson, training, stage, CPU).model_copy(
        update={"epochs": 1, "iterations_per_epoch": WARM_UP + v["steps"], "keep_every_epochs": 1}
    )
    with feed_of(lesson, training, stage, 0, CPU) as feed:
        step = median_step(fresh_network(lesson.plan, 0), feed, settings)
        one = feed(0)
    same = median_step(fresh_network(lesson.plan, 0), lambda _: one, settings)
    return {
        "seconds": {"total": (step + same) * v["steps"], "step": step, "one_batch": same},
        "load": load,
        "gflops": sgemm_gflops(2048, 2),
        "flags": torch.backends.cpu.get_cpu_capability(),
    }


def _lesson(v: Values, training: Training, stage: StageTraining) -> Lesson:
    """Return the plan of a stage and its cases, stored if they were not."""
    folder = Path(v["folder"])
    origins = [
        Origin(case.name, case.name, case.name, partial(_read, case))
        for case in learned_from(Path(v["cohort"]))
    ]
    facts = survey(origins, folder / "facts", training.z_margin_slices)
    plan = plan_stage(cast("Role", v["stage"]), stage, facts)
    return Lesson(plan, tuple(Store(folder / "store", plan).write(origins, facts)), ())


def _read(case: Case) -> tuple[Volume, LabelMap]:
    return read_scan(case.image).volume, read_labels(case)


def stock_training_steps(v: Values) -> Values:
    """Median step of stock nnU-Net's trainer with one process that augments."""
    training, stage = _asked(v)
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
    trainer.on_train_epoch_start()
    each = []
    for _ in range(WARM_UP + v["steps"]):
        start = perf_counter()
        trainer.train_step(next(trainer.dataloader_train))
        each.append(perf_counter() - start)
    trainer.on_train_end()  # its workers end
    return {"seconds": {"total": sum(each), "step": median(each[WARM_UP:])}}
