"""A network that was trained, or is being trained: its plan, and the weights that were kept."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from cfseg.errors import ModelError
from cfseg.inference.predictor import Stage
from cfseg.io import write_text
from cfseg.learning import checkpoints
from cfseg.learning.keeper import kept_weights
from cfseg.networks.backends import Backend, load
from cfseg.plan import Role, StagePlan

PLAN = "plan.json"


class Trained(NamedTuple):
    """Weights of a network.

    Attributes:
        plan: of the network.
        weights: by state-dict name.
        checkpoint: their name: ``final_STEP`` or ``kept_STEP``.
        epoch: after which these were the weights, counted from 1; 0 if that is not known.
        digest: sha256 of the weights, in the order of their names.
    """

    plan: StagePlan
    weights: dict[str, torch.Tensor]
    checkpoint: str
    epoch: int
    digest: str


def write_plan(folder: Path, plan: StagePlan) -> None:
    """Write the plan of a network beside its checkpoints, or beside its data.

    Raises:
        ResourceError: ``E_DISK``.
    """
    write_text(folder / PLAN, plan.model_dump_json(indent=2) + "\n")


def read_plan(folder: Path) -> StagePlan:
    """Return what :func:`write_plan` wrote.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        return StagePlan.model_validate_json((folder / PLAN).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / PLAN}: cannot be read; delete {folder} to make it again"
        ) from error


def read_trained(folder: Path, checkpoint: str) -> Trained:
    """Read the weights of a network whose training is over.

    Args:
        folder: of its checkpoints.
        checkpoint: ``final``; ``best``, the best on the validation cases, or the last ones where
            there was nothing to score; or the name of one.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    sheet = _sheet(folder, checkpoint)
    tensors, values = checkpoints.read(sheet)
    epoch = values["epoch"] if "epoch" in values else len(values["state"]["history"])
    contents = hashlib.sha256()
    for name in sorted(tensors):
        contents.update(tensors[name].numpy().tobytes())
    return Trained(read_plan(folder), tensors, sheet.stem, epoch, contents.hexdigest())


def is_trained(folder: Path) -> bool:
    """Say whether the last weights of a network are there.

    Args:
        folder: of its checkpoints.
    """
    return bool(checkpoints.listed(folder, "final"))


def _sheet(folder: Path, checkpoint: str) -> Path:
    if checkpoint == "best":
        kept = kept_weights(folder)
        if kept and kept[0].score is not None:
            return kept[0].path
    elif checkpoint != "final":
        return folder / f"{checkpoint}.json"
    finals = checkpoints.listed(folder, "final")
    if not finals:
        raise ModelError(f"{folder}: this network is not trained to its end; run cfseg train again")
    return finals[-1]


def load_trained(
    trained: Trained,
    role: Role,
    name: str,
    device: torch.device,
    backend: Backend,
    decoder_stop: int = 0,
) -> Stage:
    """Load a network as a stage of the cascade.

    Args:
        trained: the network.
        role: of the stage.
        name: of the network.
        device: where it runs.
        backend: what runs it.
        decoder_stop: see :class:`cfseg.recipes.recipe.Cascade`.

    Raises:
        ModelError: the weights are not those of the plan.
    """
    runner = load(trained.plan, trained.weights, device, decoder_stop, backend)
    return Stage(role, name, trained.plan, runner, device, backend)
