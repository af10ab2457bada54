"""``python -m benchmarks.training_accuracy``: what cfseg's training reaches beside stock nnU-Net.

One cohort of phantoms, one network, the same steps, optimizer, schedule and augmentation, all in
fp32 on the CPU; both are judged on other phantoms, whole cases, by cfseg's own predictor. A seed
decides the weights and which cases are held out, the same ones on both sides. It takes about a
quarter of an hour for each training on two cores; a training that is done is not done again.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, variance
from time import perf_counter
from typing import Any

import torch

from benchmarks import stock_trainer
from benchmarks.accuracy import organ_dsc
from benchmarks.page import table
from benchmarks.run import Values, run
from cfseg.bundle.nnunet_v2 import read_model_folder
from cfseg.dataset.cases import Case, read_cases, read_labels
from cfseg.dataset.splits import split
from cfseg.inference.predictor import Stage, Windows, predict_labels
from cfseg.io import read_scan
from cfseg.networks.backends import load as load_network
from cfseg.parallel import spin_briefly
from cfseg.phantoms.cohort import write_cohort
from cfseg.plan import StagePlan
from cfseg.recipes.recipe import load
from cfseg.recipes.training import Training
from cfseg.training.trained import read_trained

Network = tuple[StagePlan, dict[str, torch.Tensor]]
ENGINES = ("stock", "cfseg")
CASES, TEST_CASES = 80, 20
OTHER_CASES = 3
"""One of each other group: a cohort has them, and the coarse model does not learn from them."""
SEED, TEST_SEED = 990_170, 990_171
STEP = 0.5
WORSE, WORST = -0.02, -0.04
"""Mean difference that is always good enough, and that which is never."""
AS_STOCK = (
    "lr_schedule=poly", "warmup_epochs=0",
    "batch_size=2", "iterations_per_epoch=50", "coarse.epochs=40",
    "oversample_foreground=0.33", "rare_label_exponent=0", "hard_voxels=1", "batch_dice=true",
    "mirror=false", "elastic_probability=0", "cpu_precision=fp32",
    "checkpoint=final", "coarse_cases=full", "validation_fraction=0.025", "z_margin_slices=1000",
)  # fmt: skip
"""The demo recipe's coarse network, trained as stock nnU-Net trains. Stock nnU-Net deforms nothing
elastically and cuts no slices off; both sides learn from 78 cases with the recipe's AdamW, because
SGD with momentum .99 learns nothing but the liver in so few steps, on either side (seed 1: mean DSC
.063 by stock nnU-Net, .079 by cfseg). It turns labels one by one where
cfseg takes the nearest, and is told to oversample foreground with a probability, as cfseg does."""


def main() -> None:
    """Train what is missing, judge it, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_accuracy",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--scratch", type=Path, default=Path("build/training-accuracy"))
    parser.add_argument("--engine", choices=(*ENGINES, "both"), default="both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2, help="of a training")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    cohort, test = write_phantoms(asked.scratch, asked.threads)
    for engine in TRAIN if asked.engine == "both" else (asked.engine,):
        for seed in asked.seeds:
            if not _result(asked.scratch, engine, seed).is_file():
                print(f"{engine}, seed {seed}", flush=True)
                network = TRAIN[engine](asked.scratch, cohort, seed, asked.threads)
                values = {"engine": engine, "seed": seed, "dsc": judge(network, read_cases(test))}
                _result(asked.scratch, engine, seed).write_text(json.dumps(values, indent=1))
    found = [json.loads(file.read_text()) for file in sorted(asked.scratch.glob("result_*.json"))]
    numbers = compared(found)
    asked.scratch.joinpath("training-accuracy.json").write_text(json.dumps(numbers, indent=1))
    text = report(numbers)
    asked.scratch.joinpath("training-accuracy.md").write_text(text)
    print(text)


def write_phantoms(scratch: Path, jobs: int) -> tuple[Path, Path]:
    """Return the folders of the cohort and of the test cases, written if they are not there."""
    cohort = write_cohort(
        scratch / "cohort", CASES + OTHER_CASES, SEED, groups=True, full=CASES, jobs=jobs
    )
    return cohort, write_cohort(scratch / "test", TEST_CASES, TEST_SEED, jobs=jobs)


def _result(scratch: Path, engine: str, seed: int) -> Path:
    return scratch / f"result_{engine}_{seed}.json"


# -- training --------------------------------------------------------------------------------------


def overrides(seed: int) -> tuple[str, ...]:
    """Return what is set of the demo recipe for the training of a seed."""
    return tuple(f"training.{value}" for value in (*AS_STOCK, f"seed={seed}"))


def training_of(seed: int) -> Training:
    """Return the demo recipe's training table with what is set."""
    found = load("demo", overrides(seed)).training
    if found is None:
        raise ValueError("the demo recipe has no training table")
    return found


def learned_from(cohort: Path) -> list[Case]:
    """Return the fully labelled cases, which the coarse model learns from."""
    return [case for case in read_cases(cohort) if case.has_all_organs and not case.has_tumor]


def train_stock(scratch: Path, cohort: Path, seed: int, threads: int) -> Network:
    """Train with stock nnU-Net and return the last weights."""
    folders = stock_trainer.Folders(scratch / "stock", f"results_{seed}")
    if not (folders.model / "fold_0" / "checkpoint_final.pth").is_file():
        spin_briefly()  # the machine may have other work
        run("stock_training", threads=threads, base=folders.base, cohort=cohort, seed=seed)
    return read_model_folder(folders.model, "coarse")


def stock_training(v: Values) -> Values:
    """Prepare the cases if nobody has, and train with stock nnU-Net to the end."""
    seed, training = v["seed"], training_of(v["seed"])
    folders = stock_trainer.Folders(Path(v["base"]), f"results_{seed}")
    files = {case.name: (case.image, case.label) for case in learned_from(Path(v["cohort"]))}
    stock_trainer.prepare(folders, files, training, training.coarse)
    parts = split(list(files), training.validation_fraction, training.seed)
    stock_trainer.write_split(folders, *parts)
    folders.enter(workers=0)  # as fast here as one, and a seed decides all draws
    trainer = stock_trainer.trainer_of(folders, seed, training, training.coarse)
    stock_trainer.resume(folders, trainer, seed)
    start = perf_counter()
    trainer.run_training()
    return {"seconds": {"total": perf_counter() - start}}


def train_cfseg(scratch: Path, cohort: Path, seed: int, threads: int) -> Network:
    """Train with ``cfseg train`` and return the last weights."""
    work = scratch / "cfseg" / f"work_{seed}"
    settings = overrides(seed)
    command = [sys.executable, "-m", "cfseg", "train", str(cohort), "-o", str(work)]
    command += ["--recipe", "demo", "--stage", "coarse", "--device", "cpu"]
    command += ["--threads", str(threads), *(part for s in settings for part in ("--set", s))]
    work.mkdir(parents=True, exist_ok=True)
    with (work / "output.txt").open("a") as output:
        subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT)
    trained = read_trained(work / "networks" / "coarse_1", "final")
    return trained.plan, trained.weights


TRAIN = {"stock": train_stock, "cfseg": train_cfseg}


# -- judging ---------------------------------------------------------------------------------------


def judge(network: Network, cases: Sequence[Case]) -> list[list[float | None]]:
    """Return the DSC of the organs of each case, None where it has not got one.

    Args:
        network: plan and weights.
        cases: with label maps.
    """
    plan, weights = network
    cpu = torch.device("cpu")
    stage = Stage("coarse", "coarse", plan, load_network(plan, weights, cpu), cpu)
    found = []
    for case in cases:
        ids = predict_labels(stage, read_scan(case.image).volume, Windows(STEP)).ids
        dsc = organ_dsc(ids, read_labels(case).ids)
        found.append([None if math.isnan(value) else value for value in dsc])
    return found


def case_means(dsc: Sequence[Sequence[float | None]]) -> list[float]:
    """Return each case's mean over the organs that it has."""
    return [mean(value for value in case if value is not None) for case in dsc]


def compared(found: Sequence[Mapping[str, Any]]) -> Values:
    """Return the means of each training, their difference, and whether it is good enough.

    Args:
        found: results of trainings.
    """
    means: dict[str, dict[int, float]] = {engine: {} for engine in ENGINES}
    for one in found:
        means[one["engine"]][one["seed"]] = mean(case_means(one["dsc"]))
    numbers: Values = {"means": means, "step": STEP, "settings": AS_STOCK}
    stock, ours = (list(means[engine].values()) for engine in ENGINES)
    if not (stock and ours):
        return numbers
    difference = mean(ours) - mean(stock)
    error = None
    if min(len(stock), len(ours)) > 1:
        error = math.sqrt(variance(ours) / len(ours) + variance(stock) / len(stock))
    return numbers | {
        "difference": difference,
        "standard_error": error,
        "good_enough": good_enough(difference, error),
    }


def good_enough(difference: float, error: float | None) -> bool:
    """Tell whether cfseg's mean lies close enough to stock's.

    Args:
        difference: of the means, cfseg's minus stock's.
        error: its standard error; None if it is unknown.
    """
    if difference >= WORSE:
        return True
    return error is not None and difference >= max(-2 * error, WORST)


def report(numbers: Values) -> str:
    """Return the table and the verdict in Markdown."""
    means = numbers["means"]
    seeds = sorted({seed for found in means.values() for seed in found})
    rows: list[list[object]] = [
        [seed, *(f"{means[e][seed]:.4f}" if seed in means[e] else "-" for e in ENGINES)]
        for seed in seeds
    ]
    averages = (f"{mean(means[e].values()):.4f}" if means[e] else "-" for e in ENGINES)
    text = table("seed|stock nnU-Net|cfseg", [*rows, ["mean", *averages]])
    if "difference" not in numbers:
        return text
    error = numbers["standard_error"]
    about = "" if error is None else f", standard error {error:.4f}"
    verdict = "good enough" if numbers["good_enough"] else "not good enough"
    return f"{text}\nDifference {numbers['difference']:+.4f}{about}: {verdict}.\n"


if __name__ == "__main__":
    main()
