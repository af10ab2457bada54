"""The weights that training keeps: the best so far, and a few of them for the selection.

Every ``keep_every_epochs`` epochs (50 in the paper's 2.2) the best weights so far are kept without
their optimizer in ``fold_0/kept``, as checkpoints that stock nnU-Net opens to predict.
"""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, TypeAdapter

from cfseg.bundle.checkpoints import read_checkpoint
from cfseg.errors import ModelError, ResourceError
from cfseg.foreign import Stored
from cfseg.io import make_folder, write_json, writing

FOLD = "fold_0"
LATEST, PREVIOUS = "checkpoint_latest.pth", "checkpoint_previous.pth"
BEST, FINAL = "checkpoint_best.pth", "checkpoint_final.pth"
KEPT, INDEX = "kept", "kept.json"
TEMPORARY = ".tmp-"
OURS = "cfseg"
"""The key of a checkpoint under which stands what nnU-Net does not know."""
PREDICTING = (
    "network_weights", "current_epoch", "init_args", "trainer_name",
    "inference_allowed_mirroring_axes",
)  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """Weights kept for the selection.

    Attributes:
        path: of the checkpoint.
        epoch: after which these were the weights, counted from 1.
        score: on the validation windows by the stage's own measure, smoothed; 0 to 1.
    """

    path: Path
    epoch: int
    score: float

    @property
    def checkpoint(self) -> str:
        """Its name inside the fold, as ``read_model_folder(..., checkpoint=...)`` takes it."""
        return f"{KEPT}/{self.path.name}"


def kept_checkpoints(model_folder: Path) -> list[Kept]:
    """Return the weights kept of a network, best first; none if nothing was kept.

    Args:
        model_folder: nnU-Net's, with ``fold_0``.
    """
    folder = model_folder / FOLD / KEPT
    found = [
        Kept(folder / entry.file, entry.epoch, _number(entry.score))
        for entry in _read_list(folder / INDEX)
        if (folder / entry.file).is_file()
    ]
    return sorted(found, key=_rank)


def keep_best(model_folder: Path, at_most: int) -> Kept | None:
    """Keep the best weights so far, unless they are kept already.

    Args:
        model_folder: nnU-Net's, with the best checkpoint in ``fold_0``.
        at_most: how many stay, those with the best scores.

    Returns:
        What was kept, or None.
    """
    best, folder = model_folder / FOLD / BEST, model_folder / FOLD / KEPT
    if not best.is_file():
        return None
    contents = read_checkpoint(best)
    note = contents.get(OURS, {})
    epoch, score = int(contents["current_epoch"]), _number(note.get("score"))
    there = kept_checkpoints(model_folder)
    new = Kept(folder / f"checkpoint_epoch_{epoch:04d}.pth", epoch, score)
    stay = sorted([*there, new], key=_rank)[:at_most]
    if any(kept.epoch == epoch for kept in there) or new not in stay:
        return None
    make_folder(folder)
    save({key: contents[key] for key in PREDICTING} | {OURS: note}, new.path)
    _write_list(folder / INDEX, stay)
    for kept in there:
        if kept not in stay:
            kept.path.unlink(missing_ok=True)
    return new


def _rank(kept: Kept) -> tuple[float, int]:
    """Sort the best first; of equals the later; those without a score last."""
    return (float("inf") if np.isnan(kept.score) else -kept.score, -kept.epoch)


def smoothed(scores: Sequence[float], momentum: float = 0.9) -> list[float]:
    """Return the moving averages of scores, as nnU-Net smooths them.

    Args:
        scores: of each epoch; NaN (nothing to judge) leaves the average as it is.
        momentum: of the moving average.
    """
    averages: list[float] = []
    for score in scores:
        last = averages[-1] if averages else float("nan")
        if np.isnan(score):
            averages.append(last)
        else:
            averages.append(score if np.isnan(last) else momentum * last + (1 - momentum) * score)
    return averages


def is_best(scores: Sequence[float], momentum: float = 0.9) -> bool:
    """Say whether the last score is the best so far, smoothed; see :func:`smoothed`."""
    averages = smoothed(scores, momentum)
    return bool(averages) and not averages[-1] < np.nanmax([-1.0, *averages])


def save(contents: Mapping[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint whole or not at all: under a temporary name first, then to the disk.

    Args:
        contents: of the checkpoint.
        path: where it goes.
        previous: what the checkpoint that was there becomes; None replaces it.

    Raises:
        ResourceError: ``E_DISK``, the disk is full or refuses; the checkpoint before stays.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(contents), file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            path.replace(previous)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch hides a full disk in the latter
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ResourceError(
            f"{path} cannot be written ({_reason(error)}); the checkpoint before it is kept: free "
            "some space and run it again to go on from there",
            code="E_DISK",
        ) from error


def _reason(error: OSError | RuntimeError) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(error).partition("\n")[0]


def tidy(fold: Path, *, finished: bool) -> None:
    """Remove what a killed process left half written, and at the end what was to go on from."""
    stale = [*fold.glob(f"{TEMPORARY}*"), *fold.glob(f"{KEPT}/{TEMPORARY}*")]
    for path in [*stale, *([fold / LATEST, fold / PREVIOUS] if finished else [])]:
        path.unlink(missing_ok=True)


def last_good(fold: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the last checkpoint that can be read, and a note if it is not the newest.

    Args:
        fold: folder of the checkpoints.

    Raises:
        ModelError: there are checkpoints, and none of them can be read.
    """
    there = [fold / name for name in (LATEST, PREVIOUS) if (fold / name).is_file()]
    problems: list[str] = []
    for path in there:
        try:
            return read_checkpoint(path), "; ".join(problems)
        except ModelError as error:
            problems.append(f"{path.name} cannot be read, going on from the one before it")
            last = error
    if there:
        raise ModelError(
            f"{fold}: no checkpoint can be read ({last.message}); remove this folder to train "
            "the network again"
        )
    return None, ""


def _number(value: float | None) -> float:
    """Return a JSON number; null stands for NaN."""
    return float("nan") if value is None else float(value)


class _Entry(Stored):
    file: Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]
    epoch: int
    score: float | None


_INDEX = TypeAdapter(list[_Entry])


def _read_list(path: Path) -> list[_Entry]:
    try:
        return _INDEX.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return []


def _write_list(path: Path, entries: Sequence[Kept]) -> None:
    values = [
        {
            "file": kept.path.name,
            "epoch": kept.epoch,
            "score": None if np.isnan(kept.score) else kept.score,
        }
        for kept in entries
    ]
    write_json(path, values)


def put_aside(model: Path, shelves: Path, name: str) -> Path | None:
    """Move a model folder away instead of deleting it: it may have cost days.

    Args:
        model: nnU-Net's model folder.
        shelves: gets it, under ``name`` and the time of day.
        name: of the network.

    Returns:
        Where it lies now; None if there was none.
    """
    if not model.exists():
        return None
    shelf = shelves / f"{name}_{time.strftime('%Y%m%dT%H%M%S')}"
    make_folder(shelf.parent)
    with writing(shelf):
        model.replace(shelf)
    return shelf
