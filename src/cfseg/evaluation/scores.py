"""Scores of cases and what is reported of all of them together."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import numpy as np

from cfseg.errors import UsageError, exit_code
from cfseg.evaluation.lesions import CaseLesions
from cfseg.evaluation.rules import RULES, Mode
from cfseg.evaluation.statistics import Spread
from cfseg.labels import LABELS, ORGAN_IDS, Label, by_name

State = Literal["scored", "missing", "refused", "failed"]
STATES: tuple[State, ...] = ("scored", "missing", "refused", "failed")
Metric = Literal[
    "dsc", "nsd", "hd95_mm", "hd95_with_misses_mm", "volume_error_ml", "volume_error_percent"
]
METRICS: tuple[Metric, ...] = get_args(Metric)
SHARES: tuple[Metric, ...] = ("dsc", "nsd")
"""The metrics of the official evaluation, 0..1."""
ORGANS = "organs"
"""Stands for the mean over a case's organs where otherwise the name of a label does."""
DIGITS = 4
"""The official evaluation rounds thrice to this: each case, each label's mean, the organs' mean."""
MISSED_DSC = 0.1
"""Under this a label that the reference has counts as missed where misses are told in words."""


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label of one case.

    Attributes:
        dsc: Dice coefficient, 0..1; NaN where it is not defined.
        nsd: normalized surface distance, 0..1; NaN where it is not defined.
        hd95_mm: Hausdorff distance, 95th percentile; NaN unless both maps have the label.
        hd95_with_misses_mm: the same, and the image's diagonal where one map alone has the label.
        volume_ml: of the prediction.
        reference_ml: volume of the reference.
    """

    dsc: float
    nsd: float
    hd95_mm: float
    hd95_with_misses_mm: float
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
        message: what went wrong.
        hd95_mm: by label id.
        hd95_with_misses_mm: by label id.
        volume_ml: by label id.
        reference_ml: by label id.
        lesions: None where tumors were not judged.
        notes: what to know about its files; they change no score.
    """

    case: str
    dsc: dict[int, float]
    nsd: dict[int, float]
    state: State = "scored"
    code: str = ""
    message: str = ""
    hd95_mm: dict[int, float] = field(default_factory=dict)
    hd95_with_misses_mm: dict[int, float] = field(default_factory=dict)
    volume_ml: dict[int, float] = field(default_factory=dict)
    reference_ml: dict[int, float] = field(default_factory=dict)
    lesions: CaseLesions | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of_labels(
        cls,
        case: str,
        labels: dict[int, LabelScores],
        lesions: CaseLesions | None = None,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Return the scores of a case from those of its labels, by id."""
        return cls(
            case,
            dsc={label: found.dsc for label, found in labels.items()},
            nsd={label: found.nsd for label, found in labels.items()},
            hd95_mm={label: found.hd95_mm for label, found in labels.items()},
            hd95_with_misses_mm={
                label: found.hd95_with_misses_mm for label, found in labels.items()
            },
            volume_ml={label: found.volume_ml for label, found in labels.items()},
            reference_ml={label: found.reference_ml for label, found in labels.items()},
            lesions=lesions,
            notes=notes,
        )

    def as_zero(self, state: State, code: str, message: str) -> Self:
        """Return the case with a DSC and NSD of 0 for each label, even where none is expected.

        Its lesions are missed, but a prediction that is not there says nothing of false positives.
        """
        zero = dict.fromkeys(self.dsc, 0.0)
        lesions = self.lesions and replace(self.lesions, false_positives=None)
        return replace(
            self, dsc=zero, nsd=dict(zero), lesions=lesions,
            state=state, code=code, message=message,
        )  # fmt: skip

    @property
    def counts(self) -> bool:
        """Whether the case enters the means."""
        return self.state != "failed"

    @property
    def absent(self) -> tuple[int, ...]:
        """The ids of labels that the reference does not have."""
        return tuple(label for label, ml in self.reference_ml.items() if ml == 0)

    @property
    def missed(self) -> tuple[int, ...]:
        """The ids of labels that the reference has and the prediction misses, or all but misses."""
        there = (label for label, ml in self.reference_ml.items() if ml > 0)
        return tuple(label for label in there if self.dsc[label] < MISSED_DSC)

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
    return mean(_defined([case.value(organ, metric) for organ in ORGAN_IDS]))


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
        counted: how many cases entered the mean, by the same keys.
        mode: the rules.
        unpaired: names of predictions without a reference.
        ignored: the value that marks what is not annotated, None if there is none.
    """

    cases: tuple[CaseScores, ...]
    labels: tuple[int, ...]
    means: dict[str, float]
    sds: dict[str, float]
    counted: dict[str, int]
    mode: Mode = "flare23"
    unpaired: tuple[str, ...] = ()
    ignored: int | None = None

    @property
    def counts(self) -> dict[State, int]:
        """How many cases ended in which state."""
        states = [case.state for case in self.cases]
        return {state: states.count(state) for state in STATES}

    @property
    def judged(self) -> tuple[CaseScores, ...]:
        """The cases that enter the means."""
        return tuple(case for case in self.cases if case.counts)

    @property
    def kept(self) -> Callable[[list[float]], list[float]]:
        """Which values enter a mean, see :func:`summarize`."""
        return _kept(self.ignored)

    def spread(self, key: str) -> Spread:
        """Return mean, SD and number of cases by a key of the official file."""
        return Spread(self.counted[key], self.means[key], self.sds[key])

    def absent(self, label: int) -> int:
        """Return how many references of the judged cases do not have a label."""
        return sum(label in case.absent for case in self.judged)

    @property
    def notes(self) -> tuple[str, ...]:
        """What holds for all cases and a reader of the figures has to know."""
        if self.ignored is None:
            return ()
        return (
            f"Voxels to which the reference gives {self.ignored} are left out of every figure; "
            "FLARE has no such rule.",
        )

    @property
    def codes(self) -> list[str]:
        """The error codes of the cases that were not scored."""
        return [case.code for case in self.cases if case.state != "scored"]

    @property
    def exit_code(self) -> int:
        """0 if all cases were scored, 3 if some were not, 4 if none was, 6 if memory ran out."""
        return exit_code(self.counts["scored"], self.codes)


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
    ignored: int | None = None,
) -> Summary:
    """Average over cases, then over organs; ``flare23`` rounds at each level.

    A score that is not defined makes its mean so, as in the official script. Where a value is
    ignored, for which there is no official rule, it is left out and the mean counts fewer cases.

    Args:
        cases: in the order of their names.
        labels: the ids that were judged, all by default.
        mode: the rules under which they were.
        unpaired: names of predictions that have no reference.
        ignored: the value of the references whose voxels were left out.
    """
    chosen, digits = chosen_labels(labels), RULES[mode].digits
    kept = _kept(ignored)
    means: dict[str, float] = {}
    sds: dict[str, float] = {}
    counted: dict[str, int] = {}
    judged = [case for case in cases if case.counts]
    for metric in SHARES:
        for label in chosen:
            values = kept([case.value(label.id, metric) for case in judged])
            key = f"{label.abbreviation}_{metric.upper()}"
            means[key], sds[key] = rounded(mean(values), digits), _sd(values, digits)
            counted[key] = len(values)
    organs = [label for label in chosen if label.id in ORGAN_IDS]
    for metric in SHARES if organs else ():
        key = f"Organ_{metric.upper()}"
        of_labels = kept([means[f"{label.abbreviation}_{metric.upper()}"] for label in organs])
        of_cases = kept(
            [mean(kept([case.value(organ.id, metric) for organ in organs])) for case in judged]
        )
        means[key], sds[key] = rounded(mean(of_labels), digits), _sd(of_cases, digits)
        counted[key] = len(of_cases)
    ids = tuple(label.id for label in chosen)
    return Summary(tuple(cases), ids, means, sds, counted, mode, tuple(unpaired), ignored)


def _kept(ignored: int | None) -> Callable[[list[float]], list[float]]:
    return list if ignored is None else _defined


def _defined(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN if a value is, or if there is none."""
    return float(np.mean(values)) if values else math.nan


def _sd(values: Sequence[float], digits: int | None) -> float:
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    return rounded(statistics.stdev(values), digits)
