"""What is told of all cases together: estimates with intervals, and the tables of the paper."""

import math
from dataclasses import dataclass

import numpy as np

from cfseg.evaluation.cells import (
    ABSENT_NOTE,
    FEWER_NOTE,
    NOTHING,
    interval_cell,
    mark_absent,
    spread_cell,
    with_n,
)
from cfseg.evaluation.lesions import Detections, detections
from cfseg.evaluation.scores import METRICS, ORGANS, SHARES, Metric, Summary, mean, score_of
from cfseg.evaluation.statistics import Interval, Spread, bootstrap_interval, spread
from cfseg.labels import LABELS, ORGAN_IDS, Label
from cfseg.tables import Table

AVERAGE = "average"


@dataclass(frozen=True)
class Estimate:
    """A score over cases; those where it is not defined are left out.

    Attributes:
        n: cases where it is defined.
        mean: over them.
        sd: of the sample.
        low: lower limit of the bootstrap interval of the mean.
        high: upper limit.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


Estimates = dict[str, dict[Metric, Estimate]]
"""By the name of a label (or ``organs``) and metric."""


def chosen(summary: Summary) -> list[Label]:
    """Return the labels that were judged."""
    return [label for label in LABELS if label.id in summary.labels]


def names(summary: Summary) -> list[str]:
    """Return the names of the labels that were judged, and ``organs`` if one of them is one."""
    found = [label.name for label in chosen(summary)]
    return [*found, ORGANS] if set(summary.labels) & set(ORGAN_IDS) else found


def estimates(summary: Summary) -> Estimates:
    """Return each metric of each label and of the organs' mean, by name."""
    found = {}
    for name in names(summary):
        of_name: dict[Metric, Estimate] = {}
        for metric in METRICS:
            scores = [score_of(case, name, metric) for case in summary.judged]
            one, interval = spread(scores), bootstrap_interval(scores)
            of_name[metric] = Estimate(one.n, one.mean, one.sd, interval.low, interval.high)
        found[name] = of_name
    return found


def detection(summary: Summary) -> Detections | None:
    """Return how lesions are found; None where tumors were not judged."""
    cases = [case.lesions for case in summary.judged if case.lesions is not None]
    return detections(cases) if cases else None


def paper_rows(summary: Summary) -> list[tuple[str, Spread, Spread]]:
    """Return the rows of the paper's Tables 3 and 4: target, DSC and NSD as fractions.

    The last row is the mean over all labels, as in the column "Public Validation" of the paper's
    tables; the one before it is the mean over the organs alone, as in their other columns.
    """
    keys = [(label.name, label.abbreviation) for label in chosen(summary)]
    if "Organ_DSC" in summary.means:
        keys.append((ORGANS, "Organ"))
    rows = []
    for name, key in keys:
        dsc, nsd = (summary.spread(f"{key}_{metric.upper()}") for metric in SHARES)
        rows.append((name, dsc, nsd))
    dsc, nsd = (_average(summary, metric) for metric in SHARES)
    return [*rows, (AVERAGE, dsc, nsd)]


def tables(summary: Summary, found: Estimates) -> list[Table]:
    """Return what ``tables.md`` shows."""
    shown = [_paper_table(summary), _details_table(found, len(summary.judged))]
    lesions = detection(summary)
    return shown if lesions is None else [*shown, _lesions_table(lesions)]


def head(summary: Summary) -> str:
    """Return what holds for all tables, in one line."""
    counts = ", ".join(f"{n} {state}" for state, n in summary.counts.items() if n)
    return f"Rules of {summary.mode}; {counts}; mean ± SD over cases."


def target(name: str) -> str:
    """Return a label's name as the paper writes it."""
    if name == ORGANS:
        return "Average of organs"
    return name.replace("_", " ").capitalize()


def _average(summary: Summary, metric: Metric) -> Spread:
    kept = summary.kept
    keys = [f"{label.abbreviation}_{metric.upper()}" for label in chosen(summary)]
    of_cases = kept(
        [mean(kept([case.value(label, metric) for label in summary.labels]))
         for case in summary.judged]
    )  # fmt: skip
    over_labels = mean(kept([summary.means[key] for key in keys]))
    sd = float(np.std(of_cases, ddof=1)) if len(of_cases) > 1 else math.nan
    return Spread(len(of_cases), over_labels, sd)


def _paper_table(summary: Summary) -> Table:
    absent = {label.name: summary.absent(label.id) for label in chosen(summary)}
    of = len(summary.judged)
    rows = tuple(
        mark_absent(
            target(name), (spread_cell(dsc, of=of), spread_cell(nsd, of=of)),
            (dsc.mean, nsd.mean), absent.get(name, 0), of,
        )
        for name, dsc, nsd in paper_rows(summary)
    )  # fmt: skip
    note = f" {ABSENT_NOTE}" if any(absent.values()) else ""
    return Table(
        "DSC and NSD",
        ("Target", "DSC (%)", "NSD (%)"),
        rows,
        f"In the shape of the paper's Tables 3 and 4. Average: of all labels judged.{note}",
    )


def _details_table(found: Estimates, of: int) -> Table:
    rows = []
    for name, of_name in found.items():
        shares = [_with_interval(of_name[metric], of) for metric in SHARES]
        others = [_estimate_cell(of_name[metric], of) for metric in METRICS if metric not in SHARES]
        rows.append((target(name), str(of), *shares, *others))
    return Table(
        "Intervals, distances and volumes",
        (
            "Target",
            "n",
            "DSC (%) [95 % CI]",
            "NSD (%) [95 % CI]",
            "HD95 (mm)",
            "HD95 with misses (mm)",
            "volume error (ml)",
            "volume error (%)",
        ),
        tuple(rows),
        f"{FEWER_NOTE} HD95: where both maps have the label, so it gets better when a far one is "
        "missed; with misses: a label that one map alone has counts as the image's diagonal. "
        "Volume error: prediction - reference; in percent where the reference has the label, so "
        "what is found where there is none counts in ml alone.",
    )


def _lesions_table(found: Detections) -> Table:
    rows = tuple(
        (
            one.size,
            str(one.lesions),
            str(one.found),
            NOTHING if not one.lesions else f"{100 * one.share:.1f}",
            interval_cell(one.interval, digits=1),
        )
        for one in found.sizes
    )
    false = found.false_positives
    return Table(
        "Lesions",
        ("size", "lesions", "found", "found (%)", "95 % CI"),
        rows,
        f"False positives per scan that was scored: {spread_cell(false, scale=1)} "
        f"(n = {false.n}). Size: diameter of a ball of the lesion's volume; "
        "found: a tenth of it or more is covered.",
    )


def _with_interval(found: Estimate, of: int) -> str:
    if math.isnan(found.mean):
        return NOTHING
    cell = f"{100 * found.mean:.2f} {interval_cell(Interval(found.low, found.high))}"
    return with_n(cell, found.n, of)


def _estimate_cell(found: Estimate, of: int) -> str:
    return spread_cell(Spread(found.n, found.mean, found.sd), scale=1, of=of)
