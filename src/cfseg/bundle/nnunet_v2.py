"""An nnU-Net v2 model folder as a stage: ``{Trainer}__{Plans}__{configuration}``.

Read are ``plans.json`` (:mod:`cfseg.bundle.plans_v2`), ``dataset.json`` and the checkpoint of one
fold. nnU-Net itself is not needed.
"""

import re
from pathlib import Path
from typing import Any

import torch

from cfseg.bundle.checkpoints import check_sizes, read_checkpoint, tensors_of
from cfseg.bundle.plans_v2 import plan_from_json
from cfseg.errors import ModelError
from cfseg.foreign import brief, read_object
from cfseg.labels import LABELS, TUMOR, flare_id, plain_word
from cfseg.plan import Role, StagePlan
from cfseg.tables import listed

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")

NUMBERED = re.compile(r"(label|class|organ|region)?\d+")


def read_model_folder(
    folder: Path, role: Role, fold: int | str | None = None, checkpoint: str | None = None
) -> tuple[StagePlan, dict[str, torch.Tensor]]:
    """Read the plan and the weights of one fold.

    Args:
        folder: with ``plans.json``, ``dataset.json`` and ``fold_X``.
        role: what the network will be used for; its labels must serve.
        fold: a number or ``all``; None takes the only one.
        checkpoint: file name; None takes ``checkpoint_final.pth``, else ``checkpoint_best.pth``.

    Returns:
        The plan, and the tensors, each under one of its names in nnU-Net.

    Raises:
        ModelError: something is missing, damaged, or of a kind that cfseg does not run.
    """
    file = checkpoint_file(folder, fold, checkpoint)
    plans, dataset = _read_json(folder / "plans.json"), _read_json(folder / "dataset.json")
    contents = read_checkpoint(file)
    trainer, configuration = _trainer_and_configuration(folder, contents)
    try:
        labels = flare_labels(dataset)
        _check_role(labels, role)
        plan = plan_from_json(plans, configuration, labels, trainer)
    except ModelError as error:
        raise ModelError(f"{folder}: {error.message}") from error
    tensors = tensors_of(contents.get("network_weights"), file)
    weights = {name: t for name, t in tensors.items() if not _is_second_name(name)}
    check_sizes(weights, file)
    return plan, weights


def checkpoint_file(folder: Path, fold: int | str | None, checkpoint: str | None) -> Path:
    """Return the checkpoint that is meant.

    Raises:
        ModelError: the fold or the file is missing, or there are several folds to choose from.
    """
    there = sorted(p.name.removeprefix("fold_") for p in folder.glob("fold_*") if p.is_dir())
    if not there:
        raise ModelError(
            f"{folder}: no fold_X in it; give nnU-Net's folder Trainer__Plans__configuration"
        )
    if fold is None and len(there) > 1:
        raise ModelError(f"{folder}: has the folds {', '.join(there)}; say which with --fold")
    wanted = there[0] if fold is None else str(fold)
    if wanted not in there:
        raise ModelError(f"{folder}: no fold {wanted}; it has {', '.join(there)}")
    names = CHECKPOINTS if checkpoint is None else (checkpoint,)
    for name in names:
        if (folder / f"fold_{wanted}" / name).is_file():
            return folder / f"fold_{wanted}" / name
    raise ModelError(
        f"{folder}: fold {wanted} has no {' or '.join(names)}; finish the training first, or name "
        "a checkpoint"
    )


def flare_labels(dataset: dict[str, Any]) -> tuple[int, ...]:
    """Return the FLARE id of each output channel of a network.

    Names decide; where they are mere numbers, 14 or 15 classes are taken to be in FLARE's order.

    Args:
        dataset: contents of ``dataset.json``.

    Raises:
        ModelError: regions instead of labels, other channels than one CT, an unknown name, or
            values of other types than nnU-Net writes.
    """
    channels, labels = dataset.get("channel_names", {"0": "CT"}), dataset.get("labels", {})
    for key, value in (("channel_names", channels), ("labels", labels)):
        if not isinstance(value, dict):
            raise ModelError(
                f"dataset.json: {key}: an object is needed (found {brief(value)}); give nnU-Net's "
                "own file"
            )
    if len(channels) != 1:
        raise ModelError(
            "dataset.json: no channel, or more than one channel; cfseg takes networks for CT alone"
        )
    names = _in_order(labels)
    if len(names) in (14, 15) and all(NUMBERED.fullmatch(plain_word(n)) for n in names[1:]):
        return tuple(range(len(names)))
    found = {n: 0 if plain_word(n) == "background" else flare_id(n) for n in names}
    if unknown := [n[:60] for n, label in found.items() if label is None]:
        raise ModelError(
            f"dataset.json: no FLARE label is called {listed(unknown)}; rename it to one of "
            f"{', '.join(label.name for label in LABELS)}"
        )
    ids = tuple(found[n] or 0 for n in names)
    if ids[0] != 0 or len(set(ids)) < len(ids):
        raise ModelError("dataset.json: label 0 must be background, and no label named twice")
    return ids


def _in_order(labels: dict[str, Any]) -> list[str]:
    """Return the names of the labels 0, 1, 2, ..."""
    table = {name: value for name, value in labels.items() if name != "ignore"}
    for name, value in table.items():
        if isinstance(value, list):
            raise ModelError(
                "dataset.json: trained on regions; cfseg takes networks with plain labels"
            )
        if type(value) is not int:
            raise ModelError(
                f"dataset.json: labels.{name[:60]}: a whole number is needed (found "
                f"{brief(value)}); give nnU-Net's own file"
            )
    if sorted(table.values()) != list(range(len(table))) or len(table) < 2:
        raise ModelError("dataset.json: labels must be 0, 1, 2, ... without a gap")
    return sorted(table, key=lambda name: table[name])


def _check_role(labels: tuple[int, ...], role: Role) -> None:
    if role == "tumor" and TUMOR.id not in labels:
        raise ModelError("the network has no tumor label, so it cannot be the tumor stage")
    if role != "tumor" and not set(labels) - {0, TUMOR.id}:
        raise ModelError(f"the network has no organ label, so it cannot be the {role} stage")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, finite=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{path}: cannot be read ({reason}); give nnU-Net's whole model folder"
        ) from error


def _trainer_and_configuration(folder: Path, contents: dict[str, Any]) -> tuple[str, str]:
    """Return both names: the checkpoint knows them, and so does the folder's own name."""
    trainer, _, rest = folder.resolve().name.partition("__")
    arguments = contents.get("init_args")
    known = arguments.get("configuration") if isinstance(arguments, dict) else None
    configuration = known if isinstance(known, str) and known else rest.rpartition("__")[2]
    if not configuration:
        raise ModelError(
            f"{folder}: neither the checkpoint nor the folder's name tells the configuration; "
            "name the folder Trainer__Plans__configuration"
        )
    name = contents.get("trainer_name")
    return name if isinstance(name, str) and name else trainer, configuration


def _is_second_name(name: str) -> bool:
    """Tell a tensor's repeated names: the decoder's encoder, and each block's list of layers."""
    return name.startswith("decoder.encoder.") or ".all_modules." in name
