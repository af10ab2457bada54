"""Scores of cases and what is reported of all of them together."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cfseg.errors import EXIT_NONE_DONE, EXIT_OK, EXIT_PARTIAL, UsageError
from cfseg.labels import LABELS, ORGAN_IDS, Label

State = Literal["scored", "missing", "failed"]
Mode = Literal["flare23"]
MODES: tuple[Mode, ...] = ("flare23",)
DIGITS = 4
"""The official evaluation rounds thrice to this: each case, each label's mean, the organs' mean."""


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case.

    Attributes:
        case: identifier.
        dsc: Dice coefficient by label id, 0..1; NaN where it is not defined.
        nsd: normalized surface distance by label id, 0..1; NaN where it is not defined.
        state: ``missing``: no prediction, counts as zero; ``failed``: could not be judged and does
            not count.
        code: of the error, for example ``E_GRID``.
        message: what went wrong.
    """

    case: str
    dsc: dict[int, float]
    nsd: dict[int, float]
    state: State = "scored"
    code: str = ""
    message: str = ""

    @property
    def counts(self) -> bool:
        """Whether the case enters the means."""
        return self.state != "failed"


@dataclass(frozen=True)
class Summary:
    """What is reported of all cases.

    Attributes:
        cases: all of them, whatever their state, in the order of the references.
        labels: the ids that were judged.
        means: by the keys of the official ``scores.txt``: ``Liver_DSC`` ... ``Lesion_NSD``,
            ``Organ_DSC``, ``Organ_NSD``.
        sds: sample standard deviation over cases by the same keys, NaN for fewer than two cases;
            for ``Organ_*`` that of the cases' means over organs.
        mode: the rules.
        unpaired: names of predictions without a reference.
    """

    cases: tuple[CaseScores, ...]
    labels: tuple[int, ...]
    means: dict[str, float]
    sds: dict[str, float]
    mode: Mode = "flare23"
    unpaired: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[State, int]:
        """How many cases ended in which state."""
        states = [case.state for case in self.cases]
        return {state: states.count(state) for state in ("scored", "missing", "failed")}

    @property
    def exit_code(self) -> int:
        """0 if all cases were scored, 3 if some were missing or failed, 4 if none was scored."""
        scored = self.counts["scored"]
        if scored == 0:
            return EXIT_NONE_DONE
        return EXIT_OK if scored == len(self.cases) else EXIT_PARTIAL


def chosen_labels(labels: Sequence[int] | None) -> tuple[Label, ...]:
    """Return the labels to judge, in the table's order: all of them for None.

    Raises:
        UsageError: there is no such label.
    """
    if labels is None:
        return LABELS
    unknown = sorted(set(labels) - {label.id for label in LABELS})
    if unknown or not labels:
        raise UsageError(f"labels to judge are 1 to {LABELS[-1].id}, not {unknown or 'none'}")
    return tuple(label for label in LABELS if label.id in set(labels))


def rounded(score: float) -> float:
    """Round as the official script does, which is NumPy's way (scale, round half to even)."""
    return float(np.round(np.float64(score), DIGITS))


def summarize(
    cases: Sequence[CaseScores],
    labels: Sequence[int] | None = None,
    *,
    mode: Mode = "flare23",
    unpaired: Sequence[str] = (),
) -> Summary:
    """Average over cases, then over organs, rounded at each level as the official script does.

    Args:
        cases: in the order of their names.
        labels: the ids that were judged, all by default.
        mode: the rules under which they were.
        unpaired: names of predictions that have no reference.
    """
    chosen = chosen_labels(labels)
    means: dict[str, float] = {}
    sds: dict[str, float] = {}
    judged = [case for case in cases if case.counts]
    for metric in ("DSC", "NSD"):
        for label in chosen:
            values = [_scores(case, metric)[label.id] for case in judged]
            means[f"{label.abbreviation}_{metric}"] = rounded(_mean(values))
            sds[f"{label.abbreviation}_{metric}"] = _sd(values)
    organs = [label for label in chosen if label.id in ORGAN_IDS]
    for metric in ("DSC", "NSD"):
        if organs:
            of_labels = [means[f"{label.abbreviation}_{metric}"] for label in organs]
            of_cases = [_mean([_scores(c, metric)[o.id] for o in organs]) for c in judged]
            means[f"Organ_{metric}"] = rounded(_mean(of_labels))
            sds[f"Organ_{metric}"] = _sd(of_cases)
    ids = tuple(label.id for label in chosen)
    return Summary(tuple(cases), ids, means, sds, mode, tuple(unpaired))


def _scores(case: CaseScores, metric: str) -> dict[int, float]:
    return case.dsc if metric == "DSC" else case.nsd


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _sd(values: Sequence[float]) -> float:
    if len(values) < 2 or not np.isfinite(values).all():
        return float("nan")
    return rounded(statistics.stdev(values))
