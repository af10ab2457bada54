"""What training cost: time, memory, energy, CO2, parameters and multiply-adds (paper Tables 1, 2).

While a network is trained its checkpoints carry what it took so far, through all attempts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cfseg.evaluation.environment import environment
from cfseg.io import write_json, write_text
from cfseg.learning import checkpoints
from cfseg.learning.run import State
from cfseg.networks.operations import parameters, window_operations
from cfseg.plan import Frozen
from cfseg.recipes.training import Training
from cfseg.training.trained import PLAN, read_plan


class NetworkCost(Frozen):
    """A column of the paper's Table 2: how a network was trained and what that cost.

    Attributes:
        network: its name.
        batch: windows per step, of all processes.
        patch: (z, y, x) voxels.
        epochs: done.
        initial_lr: learning rate at the start.
        parameters: of the network.
        multiply_adds: of its convolutions for one patch.
        hours: of training, validation and saving included.
        seconds_per_step: the mean.
        samples_per_second: windows, of all processes.
        feed_share: of the steps' time, waiting for windows, 0 to 1.
        peak_mb: most memory of the first process (CPU: resident; GPU: reserved by torch).
        energy_kwh: hours times the machine's power.
        co2_g: energy times the electricity's emissions.
        device: cpu or cuda.
        processes: that shared each batch.
    """

    network: str
    batch: int
    patch: tuple[int, int, int]
    epochs: int
    initial_lr: float
    parameters: int
    multiply_adds: int
    hours: float
    seconds_per_step: float
    samples_per_second: float
    feed_share: float
    peak_mb: float
    energy_kwh: float
    co2_g: float
    device: str
    processes: int


def last_state(folder: Path) -> tuple[State, float] | None:
    """Return where the training of a network is, and its initial rate; None before it began.

    Args:
        folder: of its checkpoints.
    """
    for kind in ("final", "state"):
        for sheet in reversed(checkpoints.listed(folder, kind)):
            values = checkpoints.values_of(sheet)
            state = State.model_validate(values["state"])
            return state, float(values["settings"]["initial_lr"])
    return None


def network_cost(folder: Path, training: Training) -> NetworkCost | None:
    """Return what one network cost so far; None if its training was not begun.

    Args:
        folder: of its checkpoints.
        training: gives power and emissions.
    """
    found = last_state(folder)
    if found is None or not (folder / PLAN).is_file():
        return None
    state, initial_lr = found
    cost, plan = state.cost, read_plan(folder)
    hours = cost.seconds / 3600
    energy_kwh = hours * training.power_watts / 1000
    return NetworkCost(
        network=folder.name,
        batch=round(cost.samples / max(1, cost.steps)),
        patch=plan.patch,
        epochs=len(state.history),
        initial_lr=initial_lr,
        parameters=parameters(plan),
        multiply_adds=window_operations(plan) // 2,
        hours=hours,
        seconds_per_step=cost.seconds_per_step,
        samples_per_second=cost.samples_per_second,
        feed_share=cost.feed_share,
        peak_mb=cost.peak_mb,
        energy_kwh=energy_kwh,
        co2_g=energy_kwh * training.co2_g_per_kwh,
        device=cost.device,
        processes=cost.processes,
    )


def write_cost(work: Path, networks: Sequence[Path], training: Training) -> str:
    """Write ``cost.json`` and ``cost.md`` of the networks of a workspace.

    Args:
        work: the workspace.
        networks: folders of their checkpoints, in the order of the chain.
        training: the recipe's.

    Returns:
        The tables as Markdown, in the shape of the paper's Tables 1 and 2.
    """
    found = [network_cost(folder, training) for folder in networks]
    costs = [cost for cost in found if cost is not None]
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


def cost_rows(costs: Sequence[NetworkCost], training: Training) -> dict[str, list[str]]:
    """Return the rows of the paper's Table 2, a cell for each network.

    Args:
        costs: of the networks.
        training: gives what all of them share.
    """
    return {
        "Batch size": [str(c.batch) for c in costs],
        "Patch size": ["x".join(map(str, c.patch)) for c in costs],
        "Epochs done": [str(c.epochs) for c in costs],
        "Optimizer": [training.optimizer] * len(costs),
        "Initial learning rate": [f"{c.initial_lr:g}" for c in costs],
        "Learning rate schedule": [_schedule(training)] * len(costs),
        "Training time, hours": [f"{c.hours:.2f}" for c in costs],
        "Seconds per step": [f"{c.seconds_per_step:.3g}" for c in costs],
        "Windows per second": [f"{c.samples_per_second:.3g}" for c in costs],
        "Waiting for windows": [f"{c.feed_share:.0%}" for c in costs],
        "Parameters, M": [f"{c.parameters / 1e6:.2f}" for c in costs],
        "Multiply-adds per patch, G": [f"{c.multiply_adds / 1e9:.2f}" for c in costs],
        "Peak memory, MB": [f"{c.peak_mb:.0f} ({c.device})" for c in costs],
        "Energy, kWh": [f"{c.energy_kwh:.3f}" for c in costs],
        "CO2, g": [f"{c.co2_g:.0f}" for c in costs],
    }


def _markdown(machine: Mapping[str, str], costs: Sequence[NetworkCost], training: Training) -> str:
    head = ["| | " + " | ".join(c.network for c in costs) + " |", "|---" * (len(costs) + 1) + "|"]
    rows = cost_rows(costs, training).items()
    table = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    first = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items())]
    return "\n".join(["Environment", "", *first, "", "Training", "", *head, *table]) + "\n"


def _schedule(training: Training) -> str:
    if training.lr_schedule == "halve":
        return f"halved every {training.lr_halve_epochs} epochs"
    return training.lr_schedule
