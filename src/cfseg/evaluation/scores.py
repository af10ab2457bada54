"""Scores of cases and what is reported of all of them together."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np

from cfseg.errors import EXIT_NONE_DONE, EXIT_OK, EXIT_PARTIAL, UsageError
from cfseg.evaluation.lesions import CaseLesions
from cfseg.evaluation.rules import RULES, Mode
from cfseg.labels import LABELS, ORGAN_IDS, Label, by_name

State = Literal["scored", "missing", "refused", "failed"]
STATES: tuple[State, ...] = ("scored", "missing", "refused", "failed")
Metric = Literal["dsc", "nsd", "hd95_mm", "volume_error_ml", "volume_error_percent"]
METRICS: tuple[Metric, ...] = ("dsc", "nsd", "hd95_mm", "volume_error_ml", "volume_error_percent")
SHARES: tuple[Metric, ...] = ("dsc", "nsd")
"""The metrics of the official evaluation, 0..1."""
ORGANS = "organs"
"""Stands for the mean over a case's organs where otherwise the name of a label does."""
DIGITS = 4
"""The official evaluation rounds thrice to this: each case, each label's mean, the organs' mean."""


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label of one case.

    Attributes:
        dsc: Dice coefficient, 0..1; NaN where it is not defined.
        nsd: normalized surface distance, 0..1; NaN where it is not defined.
        hd95_mm: Hausdorff distance, 95th percentile; NaN unless both maps have the label.
        volume_ml: of the prediction.
        reference_ml: volume of the reference.
    """

    dsc: float
    nsd: float
    hd95_mm: float
    volume_ml: float
    reference_ml: float


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case.

    Attributes:
        case: identifier.
        dsc: by label id, see :class:`LabelScores`.
        nsd: by label id.
        state: ``missing``: no prediction, counts as zero; ``refused``: so does one that cannot be
            read or lies on another grid; ``failed``: could not be judged and does not count.
        code: of the error, for example ``E_GRID``.
        message: what went wrong, or what to know about a case that was scored.
        hd95_mm: by label id.
        volume_ml: by label id.
        reference_ml: by label id.
        lesions: None where tumors were not judged.
    """

    case: str
    dsc: dict[int, float]
    nsd: dict[int, float]
    state: State = "scored"
    code: str = ""
    message: str = ""
    hd95_mm: dict[int, float] = field(default_factory=dict)
    volume_ml: dict[int, float] = field(default_factory=dict)
    reference_ml: dict[int, float] = field(default_factory=dict)
    lesions: CaseLesions | None = None

    @classmethod
    def of_labels(
        cls, case: str, labels: dict[int, LabelScores], lesions: CaseLesions | None = None
    ) -> Self:
        """Return the scores of a case from those of its labels, by id."""
        return cls(
            case,
            dsc={label: found.dsc for label, found in labels.items()},
            nsd={label: found.nsd for label, found in labels.items()},
            hd95_mm={label: found.hd95_mm for label, found in labels.items()},
            volume_ml={label: found.volume_ml for label, found in labels.items()},
            reference_ml={label: found.reference_ml for label, found in labels.items()},
            lesions=lesions,
        )

    def as_zero(self, state: State, code: str, message: str) -> Self:
        """Return the case with a DSC and NSD of 0 for each label, even where none is expected."""
        zero = dict.fromkeys(self.dsc, 0.0)
        return replace(self, dsc=zero, nsd=dict(zero), state=state, code=code, message=message)

    def noted(self, note: str) -> Self:
        """Return the case with what to know about it."""
        return replace(self, message=note)

    @property
    def counts(self) -> bool:
        """Whether the case enters the means."""
        return self.state != "failed"

    @property
    def absent(self) -> tuple[int, ...]:
        """The ids of labels that the reference does not have."""
        return tuple(label for label, ml in self.reference_ml.items() if ml == 0)

    def value(self, label: int, metric: Metric) -> float:
        """Return a score of a label by its id; NaN where it is not defined or was not judged."""
        if metric in ("volume_error_ml", "volume_error_percent"):
            reference_ml = self.reference_ml.get(label, math.nan)
            error_ml = self.volume_ml.get(label, math.nan) - reference_ml
            if metric == "volume_error_ml":
                return error_ml
            return 100 * error_ml / reference_ml if reference_ml else math.nan
        scores: dict[int, float] = getattr(self, metric)
        return scores.get(label, math.nan)


def score_of(case: CaseScores, what: str, metric: Metric) -> float:
    """Return a case's score; NaN where it is not defined or was not judged.

    Args:
        case: its scores.
        what: ``organs`` (the mean over those that are defined) or the name of a label.
        metric: see :data:`METRICS`.
    """
    if what != ORGANS:
        return case.value(by_name(what).id, metric)
    organs = [case.value(organ, metric) for organ in ORGAN_IDS]
    defined = [score for score in organs if not math.isnan(score)]
    return float(np.mean(defined)) if defined else math.nan


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
        return {state: states.count(state) for state in STATES}

    @property
    def judged(self) -> tuple[CaseScores, ...]:
        """The cases that enter the means."""
        return tuple(case for case in self.cases if case.counts)

    def absent(self, label: int) -> int:
        """Return how many references of the judged cases do not have a label."""
        return sum(label in case.absent for case in self.judged)

    @property
    def exit_code(self) -> int:
        """0 if all cases were scored, 3 if some were not, 4 if none was."""
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


def rounded(score: float, digits: int | None = DIGITS) -> float:
    """Round as the official script does, which is NumPy's way (scale, round half to even).

    Args:
        score: NaN stays.
        digits: None leaves the score as it is.
    """
    return score if digits is None else float(np.round(np.float64(score), digits))


def summarize(
    cases: Sequence[CaseScores],
    labels: Sequence[int] | None = None,
    *,
    mode: Mode = "flare23",
    unpaired: Sequence[str] = (),
) -> Summary:
    """Average over cases, then over organs; ``flare23`` rounds at each level.

    Args:
        cases: in the order of their names.
        labels: the ids that were judged, all by default.
        mode: the rules under which they were.
        unpaired: names of predictions that have no reference.
    """
    chosen, digits = chosen_labels(labels), RULES[mode].digits
    means: dict[str, float] = {}
    sds: dict[str, float] = {}
    judged = [case for case in cases if case.counts]
    for metric in SHARES:
        for label in chosen:
            values = [case.value(label.id, metric) for case in judged]
            key = f"{label.abbreviation}_{metric.upper()}"
            means[key], sds[key] = rounded(_mean(values), digits), _sd(values, digits)
    organs = [label for label in chosen if label.id in ORGAN_IDS]
    for metric in SHARES if organs else ():
        key = f"Organ_{metric.upper()}"
        of_labels = [means[f"{label.abbreviation}_{metric.upper()}"] for label in organs]
        of_cases = [_mean([case.value(organ.id, metric) for organ in organs]) for case in judged]
        means[key], sds[key] = rounded(_mean(of_labels), digits), _sd(of_cases, digits)
    ids = tuple(label.id for label in chosen)
    return Summary(tuple(cases), ids, means, sds, mode, tuple(unpaired))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _sd(values: Sequence[float], digits: int | None) -> float:
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    return rounded(statistics.stdev(values), digits)
