"""What training cost: time, memory, energy, CO2, parameters and multiply-adds (paper Tables 1, 2).

While a network is trained, :class:`Stopwatch` keeps ``effort.json`` beside its checkpoints, through
all attempts. :func:`write_cost` makes tables of all networks of a workspace from these files.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pydantic import ValidationError

from cfseg.evaluation.cells import NOTHING
from cfseg.io import write_json, write_text
from cfseg.plan import Frozen
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.environment import environment
from cfseg.training.keep import FOLD
from cfseg.training.network_size import multiply_adds, parameters, read_plan
from cfseg.training.workspace import CONFIGURATION

EFFORT = "effort.json"


class Effort(Frozen):
    """What the training of one network took so far.

    Attributes:
        network: its name.
        epochs: done.
        seconds: of all attempts, with what a kill threw away but for the last moments.
        epoch_seconds: of the last epoch that was done in one go; None before the first.
        iterations: of such an epoch.
        peak_mb: most memory that the process had (CPU: resident, whatever the process did before;
            GPU: allocated by torch).
        device: cpu or cuda.
        processes: that shared each batch.
        initial_lr: learning rate at the start; None if it was not written down then.
    """

    network: str
    epochs: int = 0
    seconds: float = 0.0
    epoch_seconds: float | None = None
    iterations: int = 0
    peak_mb: float = 0.0
    device: str = "cpu"
    processes: int = 1
    initial_lr: float | None = None


class Stopwatch:
    """Measures the training of one network and keeps what it finds.

    Args:
        fold: folder of the checkpoints.
        network: its name.
        device: where it is trained.
        processes: that share each batch.
        initial_lr: learning rate at the start.
    """

    def __init__(
        self,
        fold: Path,
        network: str,
        device: torch.device,
        processes: int = 1,
        initial_lr: float | None = None,
    ) -> None:
        self.path, self.device = fold / EFFORT, device
        known = read_effort(fold.parent) or Effort(network=network)
        update: dict[str, Any] = {"network": network, "device": device.type}
        update |= {"processes": processes, "initial_lr": initial_lr}
        self.effort = known.model_copy(update=update)
        self.before, self.start = known.seconds, perf_counter()
        self.saved_at = self.start

    def since_save(self) -> float:
        """Return the seconds since the last checkpoint to go on from."""
        return perf_counter() - self.saved_at

    def saved(self) -> None:
        """Take note that a checkpoint to go on from was written."""
        self.saved_at = perf_counter()
        self._write({})

    def note(self, epochs: int, iterations: int, epoch_seconds: float | None) -> None:
        """Take note of the end of an epoch.

        Args:
            epochs: done.
            iterations: of the epoch.
            epoch_seconds: it took; None if it was not done in one go.
        """
        timed = {"epoch_seconds": epoch_seconds, "iterations": iterations}
        self._write({"epochs": epochs} | (timed if epoch_seconds is not None else {}))

    def _write(self, update: Mapping[str, Any]) -> None:
        seconds = self.before + perf_counter() - self.start
        peak = max(self.effort.peak_mb, peak_mb(self.device))
        self.effort = self.effort.model_copy(
            update=dict(update) | {"seconds": round(seconds, 1), "peak_mb": round(peak, 1)}
        )
        write_json(self.path, self.effort.model_dump())


def peak_mb(device: torch.device) -> float:
    """Return the most memory so far: resident on the CPU, allocated by torch on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return 0.0  # not on this system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def read_effort(model_folder: Path) -> Effort | None:
    """Return what the training of a network took so far; None if it was not begun.

    Args:
        model_folder: nnU-Net's, with ``fold_0``.
    """
    try:
        return Effort.model_validate_json((model_folder / FOLD / EFFORT).read_bytes())
    except (OSError, ValidationError):
        return None


def estimated_hours(model_folder: Path, stage: StageTraining, training: Training) -> float | None:
    """Return how long all epochs of a network take; None before one was timed.

    Args:
        model_folder: nnU-Net's, with ``fold_0``.
        stage: gives the epochs.
        training: gives the iterations of an epoch.
    """
    effort = read_effort(model_folder)
    if effort is None or effort.epoch_seconds is None:
        return None
    longer = training.iterations_per_epoch / max(1, effort.iterations)
    return stage.epochs * longer * effort.epoch_seconds / 3600


class NetworkCost(Frozen):
    """A column of the paper's Table 2: how a network was trained and what that cost.

    Attributes:
        network: its name.
        batch: windows per step.
        patch: (z, y, x) voxels.
        epochs: done.
        parameters: of the network.
        multiply_adds: of its convolutions for one patch.
        hours: of training.
        peak_mb: see :class:`Effort`.
        energy_kwh: hours times the machine's power.
        co2_g: energy times the electricity's emissions.
        device: cpu or cuda.
        processes: that shared each batch.
        initial_lr: see :class:`Effort`.
    """

    network: str
    batch: int
    patch: tuple[int, int, int]
    epochs: int
    parameters: int
    multiply_adds: int
    hours: float
    peak_mb: float
    energy_kwh: float
    co2_g: float
    device: str
    processes: int
    initial_lr: float | None


def network_cost(model_folder: Path, training: Training) -> NetworkCost | None:
    """Return what one network cost; None if its training was not begun.

    Args:
        model_folder: nnU-Net's, with ``fold_0``.
        training: gives power and emissions.
    """
    effort = read_effort(model_folder)
    if effort is None:
        return None
    plans, dataset = (
        json.loads((model_folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("plans", "dataset")
    )
    plan, hours = read_plan(plans, dataset), effort.seconds / 3600
    energy_kwh = hours * training.power_watts / 1000
    return NetworkCost(
        network=effort.network,
        batch=plans["configurations"][CONFIGURATION]["batch_size"],
        patch=plan.patch,
        epochs=effort.epochs,
        parameters=parameters(plan),
        multiply_adds=multiply_adds(plan),
        hours=hours,
        peak_mb=effort.peak_mb,
        energy_kwh=energy_kwh,
        co2_g=energy_kwh * training.co2_g_per_kwh,
        device=effort.device,
        processes=effort.processes,
        initial_lr=effort.initial_lr,
    )


def write_cost(work: Path, training: Training) -> str:
    """Write ``cost.json`` and ``cost.md`` of all networks trained in a workspace.

    Args:
        work: the workspace.
        training: the recipe's.

    Returns:
        The tables as Markdown, in the shape of the paper's Tables 1 and 2.
    """
    folders = sorted(work.glob(f"nnUNet_results_*/Dataset*/*__{CONFIGURATION}"), key=_order)
    costs = [cost for folder in folders if (cost := network_cost(folder, training)) is not None]
    machine = environment()
    write_json(
        work / "cost.json",
        {
            "environment": machine,
            "networks": [cost.model_dump(mode="json") for cost in costs],
            "power_watts": training.power_watts,
            "co2_g_per_kwh": training.co2_g_per_kwh,
        },
    )
    text = _markdown(machine, costs, training)
    write_text(work / "cost.md", text)
    return text


def _order(model_folder: Path) -> tuple[str, str]:
    return model_folder.parent.name, model_folder.parent.parent.name


def _markdown(machine: Mapping[str, str], costs: list[NetworkCost], training: Training) -> str:
    rows: list[tuple[str, list[str]]] = [
        ("Batch size", [str(c.batch) for c in costs]),
        ("Patch size", ["x".join(map(str, c.patch)) for c in costs]),
        ("Epochs done", [str(c.epochs) for c in costs]),
        ("Optimizer", [training.optimizer] * len(costs)),
        ("Initial learning rate", [_rate(c.initial_lr) for c in costs]),
        ("Learning rate schedule", [_schedule(training)] * len(costs)),
        ("Training time, hours", [f"{c.hours:.2f}" for c in costs]),
        ("Parameters, M", [f"{c.parameters / 1e6:.2f}" for c in costs]),
        ("Multiply-adds per patch, G", [f"{c.multiply_adds / 1e9:.2f}" for c in costs]),
        ("Peak memory, MB", [f"{c.peak_mb:.0f} ({c.device})" for c in costs]),
        ("Energy, kWh", [f"{c.energy_kwh:.3f}" for c in costs]),
        ("CO2, g", [f"{c.co2_g:.0f}" for c in costs]),
    ]
    head = ["| | " + " | ".join(c.network for c in costs) + " |", "|---" * (len(costs) + 1) + "|"]
    table = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    first = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items())]
    return "\n".join(["Environment", "", *first, "", "Training", "", *head, *table]) + "\n"


def _rate(initial_lr: float | None) -> str:
    return NOTHING if initial_lr is None else f"{initial_lr:g}"


def _schedule(training: Training) -> str:
    if training.lr_schedule == "halve":
        return f"halved every {training.lr_halve_epochs} epochs"
    return training.lr_schedule
