"""The scores of one case: every label of one label map against those of another."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from cfseg.evaluation.lesions import case_lesions
from cfseg.evaluation.metrics import dice, surfaces
from cfseg.evaluation.rules import RULES, Mode, Rules
from cfseg.evaluation.scores import CaseScores, LabelScores, chosen_labels, rounded
from cfseg.geometry import Box, TripleMm
from cfseg.labels import TUMOR, Label

_Ids = npt.NDArray[np.uint8]
_Found = dict[int, Box | None]


def score_case(
    pred: _Ids,
    ref: _Ids,
    spacing_mm: TripleMm,
    labels: Sequence[int] | None = None,
    *,
    case: str = "",
    mode: Mode = "flare23",
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

    Raises:
        ValueError: the shapes differ.
    """
    if pred.shape != ref.shape:
        raise ValueError(f"prediction {pred.shape} and reference {ref.shape} differ in shape")
    chosen = chosen_labels(labels)
    one, other = (_boxes(ids, chosen) for ids in (pred, ref))
    scores = {
        label.id: _score(
            pred, ref, (one[label.id], other[label.id]), label, spacing_mm, RULES[mode]
        )
        for label in chosen
    }
    lesions = None
    if TUMOR in chosen:
        window = _around(one[TUMOR.id], other[TUMOR.id])
        masks = [ids[window] == TUMOR.id for ids in (pred, ref)]
        lesions = case_lesions(masks[0], masks[1], spacing_mm)
    return CaseScores.of_labels(case, scores, lesions)


def _score(
    pred: _Ids,
    ref: _Ids,
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
    if in_pred is None or in_ref is None:
        agree = float(in_pred is None and in_ref is None)
        return LabelScores(agree, agree, math.nan, ml, reference_ml)
    window = _around(in_pred, in_ref)
    if label.tubular:
        last = in_ref.stop[2] - (not rules.last_slice)
        window = (*window[:2], slice(in_ref.start[2], last))
    one, other = pred[window] == label.id, ref[window] == label.id
    dsc = dice(one, other)
    both = surfaces(one, other, spacing_mm)
    nsd = 0.0 if dsc < rules.dsc_floor else both.agreement(label.nsd_tolerance_mm)
    digits = rules.digits
    return LabelScores(
        rounded(dsc, digits), rounded(nsd, digits), both.hausdorff_mm(), ml, reference_ml
    )


def _around(a: Box | None, b: Box | None) -> tuple[slice, slice, slice]:
    """Return the index of the box around both; of nothing if there are none."""
    boxes = [box for box in (a, b) if box is not None]
    if not boxes:
        return slice(0), slice(0), slice(0)
    start = np.min([box.start for box in boxes], axis=0)
    stop = np.max([box.stop for box in boxes], axis=0)
    i, j, k = (slice(int(m), int(n)) for m, n in zip(start, stop, strict=True))
    return i, j, k


def _boxes(ids: _Ids, labels: Sequence[Label]) -> _Found:
    """Return where each label is.

    Looked for in the box around all of them alone, with the axes in the order of the memory.
    """
    boxes: _Found = dict.fromkeys((label.id for label in labels), None)
    around = Box.around(ids > 0)
    if around is None:
        return boxes
    found = find_objects(ids[around.slices].T, max_label=max(boxes))
    for label in boxes:
        slices = found[label - 1]
        if slices is not None:
            k, j, i = slices
            inside = Box((i.start, j.start, k.start), (i.stop, j.stop, k.stop))
            boxes[label] = inside.shifted(around.start)
    return boxes
