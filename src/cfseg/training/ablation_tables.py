"""The tables of an ablation, in the shape of the paper's Tables 3 to 6.

Scores are in percent, mean ± SD over cases. A case's organ score is the mean over its 13 organs;
the tumor is apart, as in the paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cfseg.evaluation.scores import CaseScores
from cfseg.evaluation.statistics import Paired, compare, holm, spread
from cfseg.labels import LABELS, NAMES, ORGAN_IDS, TUMOR
from cfseg.training.ablation import Ablation
from cfseg.training.ablation_rows import CFS, CSM, CSM_CUT, TWO_STAGE, WEIGHT_1, WEIGHT_2

Metric = Literal["dsc", "nsd"]
METRICS: tuple[Metric, ...] = ("dsc", "nsd")
ORGANS = "organs"
TITLES = {
    CSM_CUT: "CSM, cut down",
    CSM: "CSM",
    TWO_STAGE: "CSM + TSM (two-stage)",
    CFS: "CSM + TSM + OSM (CFS)",
    WEIGHT_1: "weight 1",
    WEIGHT_2: "weight 2",
}
_DIFFERENCE = "difference [95 % CI]"
LEAST_CASES = 6
"""With fewer pairs the signed-rank test cannot fall below p = 0.05, and an interval says little."""


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same cases.

    Attributes:
        first: name of a row.
        second: name of the row that is set against it.
        what: ``organs``, or the name of a label.
        metric: ``dsc`` or ``nsd``.
        found: second - first, as fractions of 1.
    """

    first: str
    second: str
    what: str
    metric: Metric
    found: Paired


@dataclass(frozen=True)
class Table:
    """A table ready to be shown.

    Attributes:
        title: above it.
        header: of the columns; the first holds names, the others numbers.
        rows: as many cells as the header.
        note: below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def score_of(scores: CaseScores, what: str, metric: Metric) -> float:
    """Return a case's score, 0..1; NaN where it is not defined or not judged.

    Args:
        scores: of the case.
        what: ``organs`` (the mean over the 13, without those that are not defined) or a label.
        metric: ``dsc`` or ``nsd``.
    """
    found: dict[int, float] = getattr(scores, metric)
    if what == ORGANS:
        organs = [found[organ] for organ in ORGAN_IDS if not math.isnan(found[organ])]
        return float(np.mean(organs)) if organs else math.nan
    return next((found[i] for i, name in NAMES.items() if name == what and i in found), math.nan)


def scores_of(ablation: Ablation, row: str, what: str, metric: Metric) -> list[float]:
    """Return the scores of all judged cases in a row; see :func:`score_of`."""
    return [score_of(case.rows[row], what, metric) for case in ablation.judged]


def compared(
    ablation: Ablation, first: str, second: str, what: str, metric: Metric
) -> Comparison | None:
    """Set a row against another; None where one of them could not be had."""
    if not {first, second} <= set(ablation.rows):
        return None
    one, two = (scores_of(ablation, row, what, metric) for row in (first, second))
    return Comparison(first, second, what, metric, compare(one, two))


def tables(ablation: Ablation) -> tuple[Table, ...]:
    """Return the tables whose rows could be had."""
    found = (models_table(ablation), weights_table(ablation), *labels_tables(ablation))
    return tuple(table for table in found if table.rows)


def head(ablation: Ablation) -> str:
    """Return what holds for all tables, in one line."""
    count = len(ablation.judged)
    few = f" Fewer than {LEAST_CASES} cases: no interval and no p." if count < LEAST_CASES else ""
    return (
        f"{count} case{'' if count == 1 else 's'}; percent, mean ± SD over cases; "
        f"rules of flare23; bundle {ablation.digest[:12]}.{few}"
    )


def models_table(ablation: Ablation) -> Table:
    """Return the paper's Table 5: what each model adds."""
    order = [row for row in (CSM_CUT, CSM, TWO_STAGE, CFS) if row in ablation.rows]
    before: list[str | None] = [None, *order]
    rows = [
        (*_means(ablation, row), *_tested(ablation, above, row, ORGANS))
        for above, row in zip(before, order, strict=False)
    ]
    return Table(
        "Table 5: the three models",
        (*_MEANS_HEADER, f"organ DSC: {_DIFFERENCE} from the row above", "p"),
        tuple(rows),
        "The first row is the coarse mask as the authors' code cuts it down before it takes the "
        "region from it (coarser output, no adrenals, no duodenum); the paper's CSM row is this "
        "mask. The second is all that the coarse model finds. p: Wilcoxon signed-rank test.",
    )


def weights_table(ablation: Ablation) -> Table:
    """Return the paper's Table 6: what two tumor weights are worth."""
    order = [row for row in (WEIGHT_1, WEIGHT_2) if row in ablation.rows]
    rows = [(*_means(ablation, row), *_tested(ablation, row, CFS, TUMOR.name)) for row in order]
    if order:
        rows.append(("both weights", *_means(ablation, CFS)[1:], "", ""))
    return Table(
        "Table 6: the two tumor weights",
        (*_MEANS_HEADER, f"tumor DSC: {_DIFFERENCE} of both from this one", "p"),
        tuple(rows),
        "p: Wilcoxon signed-rank test.",
    )


def labels_tables(ablation: Ablation) -> tuple[Table, ...]:
    """Return the paper's Tables 3 and 4 side by side, one for each metric."""
    if not {TWO_STAGE, CFS} <= set(ablation.rows):
        return ()
    return tuple(_labels_table(ablation, metric) for metric in METRICS)


def _labels_table(ablation: Ablation, metric: Metric) -> Table:
    found = label_comparisons(ablation, metric)
    adjusted = holm([c.found.p for c in found if c.what != ORGANS])
    rows = [
        (
            _called(ablation, c.what),
            _of_label(ablation, TWO_STAGE, c.what, metric),
            _of_label(ablation, CFS, c.what, metric),
            _difference(c.found),
            _p(c.found),
            "" if c.what == ORGANS else _p(c.found, p),
        )
        for c, p in zip(found, (*adjusted, math.nan), strict=True)
    ]
    return Table(
        f"Tables 3 and 4: {metric.upper()} of each label",
        ("label", "two-stage", "CFS", _DIFFERENCE, "p", "p (Holm)"),
        tuple(rows),
        "p: Wilcoxon signed-rank test; p (Holm): adjusted for the 14 labels. Absent: in no "
        "reference and found in no case; such a case counts as 100 where some have it.",
    )


def _called(ablation: Ablation, what: str) -> str:
    """Return what a label is called in a table, and in how many cases it is absent."""
    if what == ORGANS:
        return "all organs"
    count = sum(what in map(NAMES.__getitem__, case.absent) for case in ablation.judged)
    return what.replace("_", " ") + (f" ({count} absent)" if count else "")


def _of_label(ablation: Ablation, row: str, what: str, metric: Metric) -> str:
    """Return mean and SD, or that the label is absent everywhere and was found nowhere."""
    scores = scores_of(ablation, row, what, metric)
    everywhere = all(what in map(NAMES.__getitem__, case.absent) for case in ablation.judged)
    return "absent" if scores and everywhere and min(scores) == 1 else _spread(scores)


def label_comparisons(ablation: Ablation, metric: Metric) -> list[Comparison]:
    """Set CFS against the two-stage method: each label, then the mean of the organs."""
    names = [*(label.name for label in LABELS), ORGANS]
    found = (compared(ablation, TWO_STAGE, CFS, name, metric) for name in names)
    return [comparison for comparison in found if comparison is not None]


def comparisons(ablation: Ablation) -> list[Comparison]:
    """Return all comparisons of the tables, both metrics."""
    pairs = [
        (CSM_CUT, CSM, ORGANS),
        (CSM, TWO_STAGE, ORGANS),
        (WEIGHT_1, CFS, TUMOR.name),
        (WEIGHT_2, CFS, TUMOR.name),
    ]
    found = [compared(ablation, *pair, metric) for pair in pairs for metric in METRICS]
    labels = [c for metric in METRICS for c in label_comparisons(ablation, metric)]
    return [*(c for c in found if c is not None), *labels]


_MEANS_HEADER = ("", "organ DSC", "organ NSD", "tumor DSC", "tumor NSD")


def _means(ablation: Ablation, row: str) -> tuple[str, ...]:
    cells = [
        _spread(scores_of(ablation, row, what, metric))
        for what in (ORGANS, TUMOR.name)
        for metric in METRICS
    ]
    return (TITLES[row], *cells)


def _tested(ablation: Ablation, first: str | None, second: str, what: str) -> tuple[str, str]:
    comparison = compared(ablation, first, second, what, "dsc") if first is not None else None
    if comparison is None:
        return "", ""
    return _difference(comparison.found), _p(comparison.found)


def _spread(scores: Sequence[float]) -> str:
    found = spread(scores)
    if found.n == 0:
        return "-"
    mean = f"{100 * found.mean:.2f}"
    return mean if math.isnan(found.sd) else f"{mean} ± {100 * found.sd:.2f}"


def _difference(found: Paired) -> str:
    if found.n == 0:
        return "-"
    mean = f"{100 * found.difference:+.2f}"
    if math.isnan(found.interval.low) or found.n < LEAST_CASES:
        return mean
    return f"{mean} [{100 * found.interval.low:+.2f}, {100 * found.interval.high:+.2f}]"


def _p(found: Paired, adjusted: float | None = None) -> str:
    p = found.p if adjusted is None else adjusted
    if math.isnan(p) or found.n < LEAST_CASES:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
