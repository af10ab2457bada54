"""The scores of one case: every label of one label map against those of another."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from cfseg.evaluation.lesions import case_lesions
from cfseg.evaluation.metrics import dice, surfaces
from cfseg.evaluation.rules import RULES, Mode, Rules
from cfseg.evaluation.scores import CaseScores, LabelScores, chosen_labels, rounded
from cfseg.geometry import Box, TripleMm
from cfseg.labels import LABELS, TUMOR, Label

_Ids = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_MAX_ID = 255


def score_case(
    pred: _Ids,
    ref: _Ids,
    spacing_mm: TripleMm,
    labels: Sequence[int] | None = None,
    *,
    case: str = "",
    mode: Mode = "flare23",
    ignored: int | None = None,
) -> CaseScores:
    """Score one label map.

    Args:
        pred: (I, J, K) on the axes of the reference.
        ref: (I, J, K): slices are those of the last axis. In ``flare23`` these are the axes that
            its file is stored with; an array (z, y, x) of cfseg has to be transposed first.
        spacing_mm: along (I, J, K).
        labels: ids to judge, all by default.
        case: identifier, taken over.
        mode: the rules.
        ignored: value of the reference at voxels that nobody annotated; what the prediction says
            there does not count, and neither do surfaces that touch them. No label to judge.

    Raises:
        ValueError: the shapes differ.
    """
    if pred.shape != ref.shape:
        raise ValueError(f"prediction {pred.shape} and reference {ref.shape} differ in shape")
    chosen = chosen_labels(labels)
    in_ref = _boxes(ref)
    unknown = None
    if ignored is not None and (box := in_ref.pop(ignored, None)) is not None:
        unknown = ref == ignored
        pred = pred.copy(order="K")
        pred[box.slices][unknown[box.slices]] = 0
    in_pred = _boxes(pred)
    scores = {
        label.id: _score(
            pred, ref, unknown, (in_pred.get(label.id), in_ref.get(label.id)), label, spacing_mm,
            RULES[mode],
        )
        for label in chosen
    }  # fmt: skip
    lesions = None
    if TUMOR in chosen:
        window = _around(in_pred.get(TUMOR.id), in_ref.get(TUMOR.id)).slices
        masks = [ids[window] == TUMOR.id for ids in (pred, ref)]
        lesions = case_lesions(masks[0], masks[1], spacing_mm)
    return CaseScores.of_labels(case, scores, lesions, _notes(in_pred, in_ref))


def _score(
    pred: _Ids,
    ref: _Ids,
    unknown: _Mask | None,
    found: tuple[Box | None, Box | None],
    label: Label,
    spacing_mm: TripleMm,
    rules: Rules,
) -> LabelScores:
    """Return the scores of one label, given where it is found in prediction and reference."""
    in_pred, in_ref = found
    voxel_ml = math.prod(spacing_mm) / 1000
    ml, reference_ml = (
        0.0 if box is None else float(np.count_nonzero(ids[box.slices] == label.id)) * voxel_ml
        for ids, box in ((pred, in_pred), (ref, in_ref))
    )
    diagonal_mm = math.hypot(*(n * mm for n, mm in zip(ref.shape, spacing_mm, strict=True)))
    if in_pred is None and in_ref is None:
        return LabelScores(1.0, 1.0, math.nan, math.nan, ml, reference_ml)
    if in_pred is None or in_ref is None:
        return LabelScores(0.0, 0.0, math.nan, diagonal_mm, ml, reference_ml)
    around = _around(in_pred, in_ref)
    if unknown is not None:  # a surface may touch what lies beside it
        i, j, k = ref.shape
        around = around.grow((1, 1, 1), (i, j, k))
    window = around.slices
    if label.tubular:
        last = in_ref.stop[2] - (not rules.last_slice)
        window = (*window[:2], slice(in_ref.start[2], last))
    one, other = pred[window] == label.id, ref[window] == label.id
    dsc = dice(one, other)
    both = surfaces(one, other, spacing_mm, None if unknown is None else unknown[window])
    nsd = 0.0 if dsc < rules.dsc_floor else both.agreement(label.nsd_tolerance_mm)
    hd95_mm, digits = both.hausdorff_mm(), rules.digits
    # Of a tubular organ the slices that count may hold nothing of the prediction.
    is_missed = math.isnan(hd95_mm) and one.any() != other.any()
    return LabelScores(
        rounded(dsc, digits), rounded(nsd, digits), hd95_mm,
        diagonal_mm if is_missed else hd95_mm, ml, reference_ml,
    )  # fmt: skip


def _around(a: Box | None, b: Box | None) -> Box:
    """Return the box around both; an empty one if there are none."""
    boxes = [box for box in (a, b) if box is not None] or [Box((0, 0, 0), (0, 0, 0))]
    a0, b0, c0 = np.min([box.start for box in boxes], axis=0).tolist()
    a1, b1, c1 = np.max([box.stop for box in boxes], axis=0).tolist()
    return Box((a0, b0, c0), (a1, b1, c1))


def _boxes(ids: _Ids) -> dict[int, Box]:
    """Return where each value is, labels and others, without the background.

    Looked for in the box around all of them alone, with the axes in the order of the memory.
    """
    around = Box.around(ids > 0)
    if around is None:
        return {}
    boxes = {}
    for value, slices in enumerate(find_objects(ids[around.slices].T, max_label=_MAX_ID), start=1):
        if slices is not None:
            k, j, i = slices
            inside = Box((i.start, j.start, k.start), (i.stop, j.stop, k.stop))
            boxes[value] = inside.shifted(around.start)
    return boxes


def _notes(in_pred: Iterable[int], in_ref: Iterable[int]) -> tuple[str, ...]:
    """Say which values are no labels and so are taken for background."""
    hints = {
        "prediction": "is it in another program's numbering?",
        "reference": "if it marks what nobody annotated, say so with --ignore",
    }
    notes = []
    for (name, hint), values in zip(hints.items(), (in_pred, in_ref), strict=True):
        strange = sorted(value for value in values if value > LABELS[-1].id)
        if strange:
            listed = ", ".join(map(str, strange))
            notes.append(f"{name}: {listed} is no label and counts as background; {hint}")
    return tuple(notes)
