"""The official FLARE 2023 evaluation, to the last digit and with its quirks.

Mode ``flare23``, for each case and label:

- decided on the whole volume: the label is in neither map: 1 and 1; in one only: 0 and 0;
- aorta, inferior vena cava and esophagus count only on slices that the reference labels, along the
  third axis of the reference's file as stored; the last of these slices is left out (the official
  script ends a Python slice with it);
- a Dice coefficient under 0.2 makes the surface score 0;
- where such an organ has one labelled slice, nothing remains to judge: NaN, and so is its mean
  (the official script stops there with an error);
- every score is rounded to four digits, so is each label's mean, so is the mean of the organs'.

A missing prediction counts as 0 everywhere; the official script refuses to score the rest then.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from cfseg.errors import InputError, UsageError
from cfseg.evaluation.metrics import dice, surface_dice
from cfseg.evaluation.pairs import Pair, find_pairs, read_pair
from cfseg.evaluation.scores import (
    MODES,
    CaseScores,
    Mode,
    Summary,
    chosen_labels,
    rounded,
    summarize,
)
from cfseg.evaluation.tables import write_scores
from cfseg.geometry import Box, TripleMm
from cfseg.labels import Label

__all__ = ["CaseScores", "Mode", "Progress", "Summary", "evaluate", "score_case", "summarize"]

DSC_FLOOR = 0.2
"""Under this Dice coefficient the official script does not look at surfaces."""

Progress = Callable[[CaseScores, int, int], None]
"""Called after each case with its scores, how many are done, of how many."""

_Ids = npt.NDArray[np.uint8]


def evaluate(
    pred: Path,
    ref: Path,
    out: Path,
    mode: Mode = "flare23",
    labels: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Score predictions against references; write ``scores.csv``, ``.json`` and ``.txt``.

    Args:
        pred: folder of predicted label maps, or one file.
        ref: folder of references, or one file.
        out: folder for the scores.
        mode: the rules; ``flare23`` is the only one so far.
        labels: ids to judge, for references where only some labels are annotated; all by default.
        progress: called after each case.

    Returns:
        The scores. Cases that cannot be judged are recorded there and do not stop the others.

    Raises:
        UsageError: nothing can be paired, or there is no such mode or label.
        ResourceError: the scores cannot be written.
    """
    if mode not in MODES:
        raise UsageError(f"there is no mode {mode!r}; the modes are {', '.join(MODES)}")
    chosen = tuple(label.id for label in chosen_labels(labels))
    pairs, unpaired = find_pairs(Path(pred), Path(ref))
    cases: list[CaseScores] = []
    for pair in pairs:
        cases.append(_judge(pair, chosen))
        if progress is not None:
            progress(cases[-1], len(cases), len(pairs))
    summary = summarize(cases, chosen, mode=mode, unpaired=unpaired)
    write_scores(Path(out), summary)
    return summary


def score_case(
    pred: _Ids,
    ref: _Ids,
    spacing_mm: TripleMm,
    labels: Sequence[int] | None = None,
    *,
    case: str = "",
) -> CaseScores:
    """Score one label map.

    Args:
        pred: (I, J, K) on the axes of the reference.
        ref: (I, J, K) with the axes as stored in its file: slices are those of the last axis.
            An array (z, y, x) of cfseg has to be transposed first.
        spacing_mm: along (I, J, K).
        labels: ids to judge, all by default.
        case: identifier, taken over.

    Raises:
        ValueError: the shapes differ.
    """
    if pred.shape != ref.shape:
        raise ValueError(f"prediction {pred.shape} and reference {ref.shape} differ in shape")
    chosen = chosen_labels(labels)
    boxes = [_boxes(ids, chosen) for ids in (pred, ref)]
    dsc, nsd = {}, {}
    for label in chosen:
        in_pred, in_ref = (found[label.id] for found in boxes)
        dsc[label.id], nsd[label.id] = _score(pred, ref, in_pred, in_ref, label, spacing_mm)
    return CaseScores(case, dsc, nsd)


def _score(
    pred: _Ids,
    ref: _Ids,
    in_pred: Box | None,
    in_ref: Box | None,
    label: Label,
    spacing_mm: TripleMm,
) -> tuple[float, float]:
    """Return Dice coefficient and NSD of one label, given where it is found in either map."""
    if in_pred is None or in_ref is None:
        both_empty = in_pred is None and in_ref is None
        return (1.0, 1.0) if both_empty else (0.0, 0.0)
    window = _joint(in_pred, in_ref, only_slices_of_ref=label.tubular).slices
    one, other = pred[window] == label.id, ref[window] == label.id
    dsc = dice(one, other)
    if dsc < DSC_FLOOR:
        return rounded(dsc), 0.0
    return rounded(dsc), rounded(surface_dice(one, other, spacing_mm, label.nsd_tolerance_mm))


def _joint(a: Box, b: Box, *, only_slices_of_ref: bool) -> Box:
    """Return the box around both; its slices those of ``b`` but the last, if so asked."""
    i, j, k = (min(m, n) for m, n in zip(a.start, b.start, strict=True))
    i_stop, j_stop, k_stop = (max(m, n) for m, n in zip(a.stop, b.stop, strict=True))
    if only_slices_of_ref:
        k, k_stop = b.start[2], b.stop[2] - 1
    return Box((i, j, k), (i_stop, j_stop, k_stop))


def _boxes(ids: _Ids, labels: Sequence[Label]) -> dict[int, Box | None]:
    """Return where each label is, in one pass over the volume."""
    found = find_objects(ids, max_label=max(label.id for label in labels))
    boxes: dict[int, Box | None] = {}
    for label in labels:
        slices = found[label.id - 1]
        if slices is None:
            boxes[label.id] = None
            continue
        i, j, k = slices
        boxes[label.id] = Box((i.start, j.start, k.start), (i.stop, j.stop, k.stop))
    return boxes


def _judge(pair: Pair, labels: tuple[int, ...]) -> CaseScores:
    if pair.pred is None:
        zero = dict.fromkeys(labels, 0.0)
        message = f"there is no prediction for {pair.ref.name}; it counts as 0"
        return CaseScores(pair.case, zero, dict(zero), "missing", "E_MISSING", message)
    try:
        pred, ref, spacing_mm = read_pair(pair.pred, pair.ref)
    except InputError as error:
        return CaseScores(pair.case, {}, {}, "failed", error.code, error.message)
    return score_case(pred, ref, spacing_mm, labels, case=pair.case)
