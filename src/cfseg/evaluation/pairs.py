"""Which prediction belongs to which reference, and both as arrays on the reference's axes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError, UsageError
from cfseg.evaluation.rules import RULES, Mode
from cfseg.geometry import Geometry, TripleMm
from cfseg.io import CHANNEL, SourceGrid, files_in, read_label_map, stem
from cfseg.volume import LabelMap

_Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """A reference and its prediction.

    Attributes:
        case: name of the reference without its suffix.
        ref: its file.
        pred: the prediction's file, None if there is none.
    """

    case: str
    ref: Path
    pred: Path | None


def find_pairs(pred: Path, ref: Path) -> tuple[list[Pair], list[str]]:
    """Pair two folders by name, or two files whatever their names.

    ``CASE.nii.gz`` also goes with ``CASE_0000.nii.gz``, and ``.nii`` with ``.nii.gz``.

    Args:
        pred: predictions, a folder or one file.
        ref: references, a folder or one file.

    Returns:
        One pair per reference, sorted by the references' names; names of predictions left over.

    Raises:
        UsageError: one of them is not there or cannot be listed, or a name is ambiguous.
        InputError: ``E_NO_CASES``, there is nothing to pair.
    """
    references, predictions = _files(ref), _files(pred)
    if ref.is_file() and pred.is_file():
        return [Pair(stem(ref), ref, pred)], []
    left = dict(predictions)
    pairs = [Pair(case, path, _take(left, case)) for case, path in references.items()]
    if all(pair.pred is None for pair in pairs):
        raise InputError(
            f"no prediction in {pred} is named like a reference in {ref}; CASE.nii.gz or "
            "CASE_0000.nii.gz goes with CASE.nii.gz",
            code="E_NO_CASES",
        )
    return pairs, [path.name for path in left.values()]


@dataclass(frozen=True)
class Read:
    """A reference and its prediction on the same axes.

    Attributes:
        pred: (I, J, K) uint8, slices along K.
        ref: (I, J, K) uint8.
        spacing_mm: along (I, J, K).
        notes: what to know about the files.
    """

    pred: _Ids
    ref: _Ids
    spacing_mm: TripleMm
    notes: tuple[str, ...] = ()


class UnreadableError(InputError):
    """The prediction is refused, whatever the reference; it counts as empty."""


def read_pair(pred: Path | None, ref: Path, mode: Mode) -> Read:
    """Read both label maps onto the same axes; a prediction stored with others is turned.

    In ``flare23`` they are those that the reference is stored with: the official evaluation cuts
    slices along the third axis and takes the spacing from the reference's header. In ``corrected``
    they are axial.

    Args:
        pred: the prediction; None for one that is empty.
        ref: the reference.
        mode: the rules.

    Raises:
        UnreadableError: the prediction is refused, or (``E_GRID``) does not fit the reference.
        InputError: the reference is refused.
    """
    reference, source = read_label_map(ref)
    prediction, notes = LabelMap.empty(reference.geometry), _reading_notes(None, source)
    if pred is not None:
        try:
            prediction, other = read_label_map(pred)
        except InputError as error:
            raise UnreadableError(error.message, code=error.code) from error
        _check_grids(prediction, reference, pred, ref)
        notes = _reading_notes(other, source)
        if RULES[mode].as_stored:
            notes += _turned(other, source)
    if not RULES[mode].as_stored:
        z, y, x = reference.geometry.spacing_mm
        return Read(prediction.ids.T, reference.ids.T, (x, y, z), notes)
    # One memory order for both: mixing them makes every comparison slow.
    one, two = (
        np.asfortranarray(source.to_stored(label_map.ids)) for label_map in (prediction, reference)
    )
    return Read(one, two, _zooms_mm(source), notes)


def _check_grids(prediction: LabelMap, reference: LabelMap, pred: Path, ref: Path) -> None:
    if not prediction.geometry.matches(reference.geometry):
        one, other = prediction.geometry.in_words, reference.geometry.in_words
        raise UnreadableError(
            f"the grids differ: prediction {pred.name} has {one}, reference {ref.name} "
            f"has {other}; resample the prediction to the reference's grid",
            code="E_GRID",
        )


def _reading_notes(prediction: SourceGrid | None, reference: SourceGrid) -> tuple[str, ...]:
    """Return what was decided when the files were read, and of which of them."""
    notes = [] if prediction is None else [f"prediction: {note}" for note in prediction.notes]
    return (*notes, *(f"reference: {note}" for note in reference.notes))


def _turned(other: SourceGrid, source: SourceGrid) -> tuple[str, ...]:
    """Return a note where the official script would compare voxels of different places."""
    stored = [Geometry(grid.shape, grid.affine) for grid in (other, source)]
    if stored[0].matches(stored[1]):
        return ()
    return (
        "prediction: turned onto the axes that the reference is stored with; the official script "
        "would compare the arrays as they lie in the files",
    )


def _zooms_mm(source: SourceGrid) -> TripleMm:
    i, j, k = (float(zoom) for zoom in source.header.get_zooms()[:3])
    return i, j, k


def _files(path: Path) -> dict[str, Path]:
    """Return the label maps of a folder, or the one file, by name without suffix, sorted."""
    if not path.exists():
        raise UsageError(f"there is no {path}; check the path")
    files: dict[str, Path] = {}
    for child in files_in(path):
        case = stem(child)
        if case in files:
            raise UsageError(f"{files[case].name} and {child.name} in {path} are the same case")
        files[case] = child
    if not files:
        raise InputError(
            f"there is no label map in {path}; give a folder with CASE.nii.gz", code="E_NO_CASES"
        )
    return files


def _take(left: dict[str, Path], case: str) -> Path | None:
    for name in (case, f"{case}{CHANNEL}", case.removesuffix(CHANNEL)):
        if name in left:
            return left.pop(name)
    return None
