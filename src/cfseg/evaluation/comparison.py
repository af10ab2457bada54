"""One method against another on the same cases: paired differences, tests and intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cfseg.errors import exit_code
from cfseg.evaluation.cells import (
    ABSENT_NOTE,
    DIFFERENCE,
    FEWER_NOTE,
    difference_cell,
    mark_absent,
    p_cell,
    plain,
    spread_cell,
)
from cfseg.evaluation.flare import Progress, judge
from cfseg.evaluation.overview import names
from cfseg.evaluation.rules import Mode
from cfseg.evaluation.scores import ORGANS, SHARES, CaseScores, Metric, Summary, score_of
from cfseg.evaluation.statistics import Paired, Spread, compare, holm, spread
from cfseg.evaluation.tables import versions
from cfseg.io import make_folder, write_json, write_text
from cfseg.labels import by_name
from cfseg.tables import Table, csv_text, markdown

METRICS: tuple[Metric, ...] = (*SHARES, "hd95_mm", "hd95_with_misses_mm")
_TITLES: dict[Metric, str] = {
    "dsc": "DSC (%)",
    "nsd": "NSD (%)",
    "hd95_mm": "HD95 (mm), where both methods have the label",
    "hd95_with_misses_mm": "HD95 with misses (mm)",
}
_NOTES: dict[Metric, str] = {
    "hd95_mm": "A label that one method misses leaves the comparison, so missing it may help; the "
    "next table counts it.",
    "hd95_with_misses_mm": "A label that a method misses, or finds where the reference has none, "
    "counts as the image's diagonal; where one method alone finds such a label, the other is 0 mm "
    "off.",
}


@dataclass(frozen=True)
class LabelComparison:
    """Two methods on one label.

    Attributes:
        what: name of a label, or ``organs`` for the mean over a case's organs.
        metric: what is compared.
        first: scores of the first method, over the cases where it is defined.
        second: of the second.
        found: second - first, over the cases where both are defined.
        p_holm: adjusted for the labels; NaN for the organs' mean, which is one test.
        cases: that were compared, whether a score is defined or not.
        absent: those of them whose reference does not have the label.
    """

    what: str
    metric: Metric
    first: Spread
    second: Spread
    found: Paired
    p_holm: float
    cases: int
    absent: int


@dataclass(frozen=True)
class MethodComparison:
    """Two methods on the same references.

    Attributes:
        names: of both.
        first: scores of the first.
        second: scores of the second.
        labels: comparisons, metric by metric.
    """

    names: tuple[str, str]
    first: Summary
    second: Summary
    labels: tuple[LabelComparison, ...]

    @property
    def exit_code(self) -> int:
        """0 if all cases were scored for both, 3 if some were not, 4 or 6 if a method has none."""
        sides = (self.first, self.second)
        done = min(side.counts["scored"] for side in sides)
        return exit_code(done, [code for side in sides for code in side.codes])


def compare_labels(
    first: Sequence[CaseScores],
    second: Sequence[CaseScores],
    names: Sequence[str],
    metric: Metric,
) -> list[LabelComparison]:
    """Compare two methods on each label.

    Args:
        first: scores of the first method.
        second: of the second, of the same cases in the same order.
        names: of labels, and ``organs`` if wanted.
        metric: what to compare.
    """
    found = []
    for name in names:
        one, other = ([score_of(case, name, metric) for case in side] for side in (first, second))
        if metric == "hd95_with_misses_mm":
            one, other = _filled(one, other), _filled(other, one)
        found.append((name, spread(one), spread(other), compare(one, other)))
    adjusted = iter(holm([paired.p for name, _, _, paired in found if name != ORGANS]))
    return [
        LabelComparison(
            name,
            metric,
            one,
            other,
            paired,
            math.nan if name == ORGANS else next(adjusted),
            len(first),
            0 if name == ORGANS else sum(by_name(name).id in case.absent for case in first),
        )
        for name, one, other, paired in found
    ]


def _filled(scores_mm: Sequence[float], others_mm: Sequence[float]) -> list[float]:
    """Return 0 mm where nothing is to be found and the other method alone finds something.

    Where neither does there is nothing to compare; but if only the other's mistake left the
    comparison with it, finding what is not there would be free.
    """
    pairs = zip(scores_mm, others_mm, strict=True)
    return [0.0 if math.isnan(mm) and not math.isnan(other) else mm for mm, other in pairs]


def compare_methods(
    first: Path,
    second: Path,
    ref: Path,
    out: Path,
    mode: Mode = "flare23",
    labels: Sequence[int] | None = None,
    progress: Progress | None = None,
    jobs: int = 1,
    ignore: int | None = None,
) -> MethodComparison:
    """Score two folders of predictions against the same references and compare them.

    Args:
        first: predictions of the first method, a folder or one file.
        second: of the second.
        ref: references, a folder or one file.
        out: folder for ``comparison.md``, ``.csv`` and ``.json``.
        mode: like the rest, and the errors, as :func:`cfseg.evaluation.flare.evaluate` has it.
        labels: see there.
        progress: see there; it is called for both methods.
        jobs: see there.
        ignore: see there.
    """
    one, other = (
        judge(pred, ref, mode, labels, progress, jobs, ignore) for pred in (first, second)
    )
    comparison = compare_summaries((str(first), str(second)), one, other)
    write_comparison(Path(out), comparison)
    return comparison


def compare_summaries(names_: tuple[str, str], first: Summary, second: Summary) -> MethodComparison:
    """Compare scores of the same references; a case that one of them lacks is left out.

    Args:
        names_: of the methods.
        first: scores of the first method.
        second: of the second, by the same rules and for the same labels.
    """
    other = {case.case: case for case in second.judged}
    pairs = [(case, other[case.case]) for case in first.judged if case.case in other]
    one, two = [a for a, _ in pairs], [b for _, b in pairs]
    found = [c for metric in METRICS for c in compare_labels(one, two, names(first), metric)]
    return MethodComparison(names_, first, second, tuple(found))


def comparison_table(
    title: str,
    header: tuple[str, str],
    comparisons: Sequence[LabelComparison],
    scale: float = 100,
    note: str = "",
) -> Table:
    """Return a table with a row for each label.

    Args:
        title: above it.
        header: names of both methods.
        comparisons: of one metric.
        scale: 100 for fractions as percent.
        note: what is to be known about the metric.
    """
    rows = tuple(
        (
            *mark_absent(
                "all organs" if c.what == ORGANS else c.what.replace("_", " "),
                (spread_cell(c.first, scale, of=c.cases), spread_cell(c.second, scale, of=c.cases)),
                (c.first.mean, c.second.mean),
                c.absent,
                c.cases,
            ),
            difference_cell(c.found, scale, c.cases),
            p_cell(c.found.p, c.found.n),
            "" if c.what == ORGANS else p_cell(c.p_holm, c.found.n),
        )
        for c in comparisons
    )
    count = sum(c.what != ORGANS for c in comparisons)
    fewer = any(n < c.cases for c in comparisons for n in (c.first.n, c.second.n, c.found.n))
    notes = (
        f"p: Wilcoxon signed-rank test; p (Holm): adjusted for the {count} labels.",
        note,
        FEWER_NOTE if fewer else "",
        ABSENT_NOTE if any(c.absent and c.metric in SHARES for c in comparisons) else "",
    )
    return Table(
        title,
        ("label", *header, DIFFERENCE, "p", "p (Holm)"),
        rows,
        " ".join(filter(None, notes)),
    )


def tables(comparison: MethodComparison) -> list[Table]:
    """Return a table for each metric."""
    return [
        comparison_table(
            _TITLES[metric],
            ("A", "B"),
            [c for c in comparison.labels if c.metric == metric],
            100 if metric in SHARES else 1,
            _NOTES.get(metric, ""),
        )
        for metric in METRICS
    ]


def head(comparison: MethodComparison) -> str:
    """Return what holds for all tables, in one line."""
    a, b = comparison.names
    n = max((c.cases for c in comparison.labels), default=0)
    left_out = len(comparison.first.cases) - n
    failed = f" ({left_out} more could not be judged)" if left_out else ""
    return (
        f"A: {a}. B: {b}. {n} case{'' if n == 1 else 's'}{failed}; rules of "
        f"{comparison.first.mode}; mean ± SD over cases; difference: B - A."
    )


def write_comparison(folder: Path, comparison: MethodComparison) -> None:
    """Write ``comparison.md``, ``.csv`` and ``.json``; each appears whole or not at all.

    Raises:
        ResourceError: the folder cannot be written.
    """
    make_folder(folder)
    notes = comparison.first.notes
    text = markdown("Comparison", head(comparison), tables(comparison), notes)
    write_text(folder / "comparison.md", text)
    write_text(folder / "comparison.csv", comparison_csv(comparison))
    write_json(folder / "comparison.json", plain(as_json(comparison)))


def comparison_csv(comparison: MethodComparison) -> str:
    """Return one row per metric and label, in the metric's own unit."""
    header = ("metric", "label", "cases", "n", "first_n", "first_mean", "first_sd", "second_n",
              "second_mean", "second_sd", "difference", "low", "high", "p", "p_holm")  # fmt: skip
    rows = (
        (c.metric, c.what, c.cases, c.found.n, c.first.n, c.first.mean, c.first.sd, c.second.n,
         c.second.mean, c.second.sd, c.found.difference, c.found.interval.low,
         c.found.interval.high, c.found.p, c.p_holm)
        for c in comparison.labels
    )  # fmt: skip
    return csv_text(header, rows)


def as_json(comparison: MethodComparison) -> dict[str, Any]:
    """Return everything; NaN where a number is not defined."""
    sides = zip(comparison.names, (comparison.first, comparison.second), strict=True)
    return {
        "mode": comparison.first.mode,
        "ignored": comparison.first.ignored,
        "notes": comparison.first.notes,
        "methods": [{"name": name, "counts": s.counts, "means": s.means} for name, s in sides],
        "comparisons": [asdict(c) for c in comparison.labels],
        "versions": versions(),
    }
