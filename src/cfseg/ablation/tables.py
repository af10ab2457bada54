"""The tables of an ablation, in the shape of the paper's Tables 3 to 6.

Scores are in percent, mean ± SD over cases. A case's organ score is the mean over its 13 organs;
the tumor is apart, as in the paper.
"""

from collections import Counter
from dataclasses import dataclass, replace

from cfseg.ablation.ablation import Ablation
from cfseg.ablation.rows import CFS, CSM, CSM_CUT, TWO_STAGE, WEIGHT_1, WEIGHT_2
from cfseg.evaluation.cells import (
    DIFFERENCE,
    LEAST_CASES,
    difference_cell,
    p_cell,
    spread_cell,
)
from cfseg.evaluation.comparison import compare_labels, comparison_table
from cfseg.evaluation.scores import ORGANS, SHARES, Metric, score_of
from cfseg.evaluation.statistics import Paired, compare
from cfseg.labels import LABELS, NAMES, TUMOR
from cfseg.tables import Table

LABELS_AND_ORGANS = (*(label.name for label in LABELS), ORGANS)
TITLES = {
    CSM_CUT: "CSM, cut down",
    CSM: "CSM",
    TWO_STAGE: "CSM + TSM (two-stage)",
    CFS: "CSM + TSM + OSM (CFS)",
    WEIGHT_1: "weight 1",
    WEIGHT_2: "weight 2",
}


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
    refused = len(ablation.cases) - count
    left_out = f" ({refused} more refused)" if refused else ""
    return (
        f"{count} case{'' if count == 1 else 's'}{left_out}; percent, mean ± SD over cases; "
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
        (*_MEANS_HEADER, f"organ DSC: {DIFFERENCE} from the row above", "p"),
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
        (*_MEANS_HEADER, f"tumor DSC: {DIFFERENCE} of both from this one", "p"),
        tuple(rows),
        "p: Wilcoxon signed-rank test.",
    )


def labels_tables(ablation: Ablation) -> tuple[Table, ...]:
    """Return the paper's Tables 3 and 4 side by side, one for each metric."""
    if not {TWO_STAGE, CFS} <= set(ablation.rows):
        return ()
    return tuple(_labels_table(ablation, metric) for metric in SHARES)


def _labels_table(ablation: Ablation, metric: Metric) -> Table:
    one, two = ([case.rows[row] for case in ablation.judged] for row in (TWO_STAGE, CFS))
    absent = Counter(NAMES[label] for case in ablation.judged for label in case.absent)
    return comparison_table(
        f"Tables 3 and 4: {metric.upper()} of each label",
        ("two-stage", "CFS"),
        [
            replace(found, absent=absent[found.what])
            for found in compare_labels(one, two, LABELS_AND_ORGANS, metric)
        ],
    )


def label_comparisons(ablation: Ablation, metric: Metric) -> list[Comparison]:
    """Set CFS against the two-stage method: each label, then the mean of the organs."""
    found = (compared(ablation, TWO_STAGE, CFS, name, metric) for name in LABELS_AND_ORGANS)
    return [comparison for comparison in found if comparison is not None]


def comparisons(ablation: Ablation) -> list[Comparison]:
    """Return all comparisons of the tables, both metrics."""
    pairs = [
        (CSM_CUT, CSM, ORGANS),
        (CSM, TWO_STAGE, ORGANS),
        (WEIGHT_1, CFS, TUMOR.name),
        (WEIGHT_2, CFS, TUMOR.name),
    ]
    found = [compared(ablation, *pair, metric) for pair in pairs for metric in SHARES]
    labels = [c for metric in SHARES for c in label_comparisons(ablation, metric)]
    return [*(c for c in found if c is not None), *labels]


_MEANS_HEADER = ("", "organ DSC", "organ NSD", "tumor DSC", "tumor NSD")


def _means(ablation: Ablation, row: str) -> tuple[str, ...]:
    cells = [
        spread_cell(scores_of(ablation, row, what, metric))
        for what in (ORGANS, TUMOR.name)
        for metric in SHARES
    ]
    return (TITLES[row], *cells)


def _tested(ablation: Ablation, first: str | None, second: str, what: str) -> tuple[str, str]:
    comparison = compared(ablation, first, second, what, "dsc") if first is not None else None
    if comparison is None:
        return "", ""
    return difference_cell(comparison.found), p_cell(comparison.found.p, comparison.found.n)
