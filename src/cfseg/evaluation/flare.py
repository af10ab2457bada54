"""The official FLARE 2023 evaluation, to the last digit and with its quirks, and a corrected one.

Mode ``flare23``, for each case and label:

- label maps are compared on the axes that the reference is stored with. One departure: a prediction
  with other axes is turned by its affine, one on another grid is refused (the official script looks
  at arrays alone);
- decided on the whole volume: the label is in neither map: 1 and 1; in one only: 0 and 0;
- aorta, inferior vena cava and esophagus count only on slices that the reference labels, along the
  third axis of the reference's file as stored; the last of these slices is left out (the official
  script ends a Python slice with it);
- a Dice coefficient under 0.2 makes the surface score 0;
- where such an organ has one labelled slice, nothing remains to judge: NaN, and so is its mean
  (the official script stops there with an error);
- every score is rounded to four digits, so is each label's mean, so is the mean of the organs'.

Mode ``corrected`` is the same without what is plainly wrong, see :mod:`cfseg.evaluation.rules`.

In both a missing prediction counts as 0 everywhere, and so does one that is refused (damaged, or
on another grid); the official script scores nothing at all then. A case whose reference is refused
does not count. All of them are listed.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from cfseg.errors import InputError, UsageError, as_cfseg_error
from cfseg.evaluation.ignored import ignored_value
from cfseg.evaluation.pairs import Pair, Read, UnreadableError, find_pairs, read_pair
from cfseg.evaluation.rules import Mode, mode_called
from cfseg.evaluation.scores import CaseScores, State, Summary, chosen_labels, summarize
from cfseg.evaluation.scoring import score_case
from cfseg.evaluation.tables import write_scores
from cfseg.evaluation.workers import Lost, results
from cfseg.io import without_folders

__all__ = ["CaseScores", "Mode", "Progress", "Summary", "evaluate", "score_case", "summarize"]

Progress = Callable[[CaseScores, int, int], None]
"""Called after each case with its scores, how many are done, of how many."""


def evaluate(
    pred: Path,
    ref: Path,
    out: Path,
    mode: Mode = "flare23",
    labels: Sequence[int] | None = None,
    progress: Progress | None = None,
    jobs: int = 1,
    ignore: int | None = None,
) -> Summary:
    """Score predictions against references; write scores and tables.

    Args:
        pred: folder of predicted label maps, or one file.
        ref: folder of references, or one file.
        out: folder for ``scores.csv``, ``.json``, ``.txt`` and ``tables.md``, ``.csv``.
        mode: the rules: the official ones, or ``corrected``.
        labels: ids to judge, for references where only some labels are annotated; all by default.
        progress: called after each case.
        jobs: cases at a time, each in a process of its own; 1: one after the other, in this one.
        ignore: value of the references whose voxels are left out, 0 for none; by default what a
            ``dataset.json`` beside them names, see :func:`cfseg.evaluation.ignored.ignored_value`.

    Returns:
        The scores. Cases that cannot be judged are recorded there and do not stop the others.

    Raises:
        UsageError: a folder is not there, or there is no such mode, label or value to ignore.
        InputError: ``E_NO_CASES``, nothing can be paired.
        ResourceError: the scores cannot be written.
    """
    summary = judge(pred, ref, mode, labels, progress, jobs, ignore)
    write_scores(Path(out), summary)
    return summary


def judge(
    pred: Path,
    ref: Path,
    mode: Mode = "flare23",
    labels: Sequence[int] | None = None,
    progress: Progress | None = None,
    jobs: int = 1,
    ignore: int | None = None,
) -> Summary:
    """Score predictions against references and write nothing; see :func:`evaluate`."""
    mode_called(mode)
    if jobs < 1:
        raise UsageError(f"{jobs} jobs cannot judge anything; give 1 or more")
    chosen = tuple(label.id for label in chosen_labels(labels))
    pairs, unpaired = find_pairs(Path(pred), Path(ref))
    ignored = ignored_value(Path(ref), chosen, ignore)
    cases: dict[int, CaseScores] = {}
    # Greater than the pairs, jobs would only make idle processes; one pair needs none.
    function = partial(judge_pair, labels=chosen, mode=mode, ignored=ignored)
    with closing(results(function, pairs, min(jobs, len(pairs)))) as found:
        for index, result in found:
            cases[index] = _lost(pairs[index], result) if isinstance(result, Lost) else result
            if progress is not None:
                progress(cases[index], len(cases), len(pairs))
    ordered = [cases[index] for index in range(len(pairs))]
    return summarize(ordered, chosen, mode=mode, unpaired=unpaired, ignored=ignored)


def judge_pair(
    pair: Pair, labels: Sequence[int], mode: Mode, ignored: int | None = None
) -> CaseScores:
    """Score one prediction; what goes wrong stands in the scores, without folders."""
    try:
        scores = _judge(pair, labels, mode, ignored)
    except Exception as error:
        known = as_cfseg_error(error)
        scores = _failed(pair, known.code, known.message)
    return replace(scores, message=without_folders(scores.message, pair.pred, pair.ref))


def _judge(pair: Pair, labels: Sequence[int], mode: Mode, ignored: int | None) -> CaseScores:
    if pair.pred is None:
        error = InputError(f"there is no prediction for {pair.ref.name}", code="E_MISSING")
        return _as_zero(pair, labels, mode, ignored, error)
    try:
        read = read_pair(pair.pred, pair.ref, mode)
    except UnreadableError as error:
        return _as_zero(pair, labels, mode, ignored, error)
    return _score(pair, read, labels, mode, ignored)


def _as_zero(
    pair: Pair, labels: Sequence[int], mode: Mode, ignored: int | None, error: InputError
) -> CaseScores:
    """Score an empty map, so that missed lesions and volumes count, with a DSC and NSD of 0."""
    scores = _score(pair, read_pair(None, pair.ref, mode), labels, mode, ignored)
    state: State = "missing" if pair.pred is None else "refused"
    return scores.as_zero(state, error.code, f"{error.message}; it counts as 0")


def _score(
    pair: Pair, read: Read, labels: Sequence[int], mode: Mode, ignored: int | None
) -> CaseScores:
    scores = score_case(
        read.pred, read.ref, read.spacing_mm, labels, case=pair.case, mode=mode, ignored=ignored
    )
    notes = (without_folders(note, pair.pred, pair.ref) for note in read.notes)
    return replace(scores, notes=(*notes, *scores.notes))


def _lost(pair: Pair, lost: Lost) -> CaseScores:
    code = lost.exit_code
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
    message = f"the process that judged it {how}; if memory ran out, try fewer --jobs"
    return _failed(pair, "E_KILLED", message)


def _failed(pair: Pair, code: str, message: str) -> CaseScores:
    return CaseScores(pair.case, {}, {}, "failed", code, f"{message}; the case does not count")
