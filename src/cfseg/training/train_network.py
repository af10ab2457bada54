"""Train one network of the cascade: from its last checkpoint, from a bundle, or from nothing."""

# nnU-Net ships no types.
# mypy: disable-error-code="misc,no-untyped-call,no-any-return"

import contextlib
import io
import json
from pathlib import Path

import torch

from cfseg.bundle.bundle import digest
from cfseg.errors import UsageError
from cfseg.recipes.training import StageTraining, Training
from cfseg.training import keep
from cfseg.training.board import Board
from cfseg.training.distributed import train_in_processes
from cfseg.training.finetune import find_start, start_from, start_from_checkpoint
from cfseg.training.network_size import read_plan
from cfseg.training.precision import cpu_precision
from cfseg.training.steps import Progress, Report
from cfseg.training.stopping import noting_signals
from cfseg.training.trainer import StageTrainer
from cfseg.training.workspace import CONFIGURATION, PLANS, StageFolder, enter


def train_network(
    folder: StageFolder,
    weight: int,
    training: Training,
    stage: StageTraining,
    device: torch.device,
    report: Report,
    *,
    init: Path | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> None:
    """Train one network, from its last checkpoint if there is one.

    Args:
        folder: of the stage, with its data prepared.
        weight: 1 or 2; another weight is another random initialization.
        training: what all stages share.
        stage: what is this stage's own.
        device: where to train; on a CPU all its cores are used.
        report: gets one line per epoch.
        init: where the weights come from that it starts from, instead of random ones: a bundle,
            of which it takes those of the same role, or a checkpoint of another network.
        processes: of this machine that share each batch; on GPUs one for each.
        progress: is told after each iteration.

    Raises:
        UsageError: the bundle does not fit, the batch cannot be shared so, or the CPU cannot do
            the precision that the recipe names.
        ModelError: no checkpoint can be read.
    """
    if processes > 1:
        train_in_processes(
            folder, weight, training, stage, device, report,
            init=init, processes=processes, progress=progress,
        )  # fmt: skip
        return
    enter(folder.work, weight)
    fold = folder.model(weight) / keep.FOLD
    if (fold / keep.FINAL).is_file():
        report("trained before")
        return
    contents, note = keep.last_good(fold)
    trainer = _trainer(folder, device, resumes=contents is not None)
    name = network_name(folder, weight)
    trainer.configure(training, folder.role, stage, training.seed + weight, report, progress, name)
    if contents is not None:
        trainer.load_checkpoint(contents)
        where = f" and {len(trainer.losses)} iterations" if trainer.losses else ""
        report(f"{note + '; ' if note else ''}going on after epoch {trainer.current_epoch}{where}")
    elif init is not None:
        report(_start(trainer, folder, weight, init))
    if device.type == "cpu":
        report(f"computing in {cpu_precision(training.cpu_precision)}")
    if trainer.is_first:
        keep.tidy(fold, finished=False)
        trainer.board = Board(folder.work / "tensorboard" / name, trainer.current_epoch)
    with noting_signals() as trainer.stop:
        trainer.run_training()


def network_name(folder: StageFolder, weight: int) -> str:
    """Return what a network is called in logs and tables, for example ``tumor_2``."""
    return f"{folder.name.partition('_')[2].lower()}_{weight}"


def _trainer(folder: StageFolder, device: torch.device, *, resumes: bool) -> StageTrainer:
    plans = json.loads((folder.preprocessed / f"{PLANS}.json").read_text(encoding="utf-8"))
    dataset = json.loads((folder.raw / "dataset.json").read_text(encoding="utf-8"))
    plans["continue_training"] = resumes
    with contextlib.redirect_stdout(io.StringIO()):
        return StageTrainer(plans, CONFIGURATION, 0, dataset, device)


def _start(trainer: StageTrainer, folder: StageFolder, weight: int, init: Path) -> str:
    trainer.initialize()
    plan = read_plan(trainer.plans_manager.plans, trainer.dataset_json)
    if init.suffix == ".pth":
        start_from_checkpoint(trainer.bare_network, plan, init)
        return f"starting from the weights of {init.parent.parent.parent.name}"
    entry = find_start(init, folder.role, weight)
    try:
        start_from(trainer.bare_network, plan, init, entry)
    except UsageError:
        if not folder.round:
            raise
        # A teacher is often larger than the organ model that it teaches.
        return f"starting from random weights: {entry.name} of the bundle is built differently"
    return f"starting from {entry.name} of bundle {digest(init)[:12]}"
