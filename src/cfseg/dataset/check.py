"""Is every case of a cohort fit to train on? All are looked at; none stops the others."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cfseg.dataset.cases import Case, each, present_labels, read_mapped, settled
from cfseg.dataset.layouts import CHANNEL, Cohort, Entry, list_cohort, stem
from cfseg.dataset.manifest import NAME, write_manifest
from cfseg.dataset.problems import Problem, check_out, exit_code, problem_from
from cfseg.geometry import Geometry
from cfseg.io import AS_IS, ReadingOptions, read_scan, write_json, write_text
from cfseg.labels import NAMES
from cfseg.tables import csv_text
from cfseg.volume import LabelMap

OnCase = Callable[["CheckedCase", int, int], None]
"""Called with each case, the cases done and the cases in all."""


@dataclass(frozen=True)
class CheckedCase:
    """What was found out about a case.

    Attributes:
        name: of the case.
        case: the case with what is annotated in it, None if that cannot be said.
        problems: why it must not be used.
        notes: what is unusual about it, each ``word: detail``.
    """

    name: str
    case: Case | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckSummary:
    """What was found out about a cohort.

    Attributes:
        root: of the cohort.
        layout: what kind of a cohort it is, in words.
        cases: all of them, label maps without a scan among them.
        options: with which they were read.
    """

    root: Path
    layout: str
    cases: tuple[CheckedCase, ...]
    options: ReadingOptions = AS_IS

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, in order of case."""
        return tuple(problem for case in self.cases for problem in case.problems)

    @cached_property
    def good(self) -> tuple[Case, ...]:
        """The cases without a problem."""
        return tuple(c.case for c in self.cases if c.case is not None and not c.problems)

    @property
    def bad(self) -> int:
        """How many cases have a problem."""
        return sum(bool(case.problems) for case in self.cases)

    @property
    def codes(self) -> dict[str, int]:
        """How many problems there are of each code, the most frequent first."""
        return dict(Counter(problem.code for problem in self.problems).most_common())

    @property
    def exit_code(self) -> int:
        """0 all cases good, 3 some bad, 4 all bad or none found."""
        return exit_code(len(self.good), self.bad)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``check.json`` holds."""
        return {
            "cohort": str(self.root),
            "layout": self.layout,
            "reading": self.options.given(),
            "cases": len(self.cases),
            "good": len(self.good),
            "bad": self.bad,
            "codes": self.codes,
            "problems": [problem.as_dict() for problem in self.problems],
            "notes": {case.name: list(case.notes) for case in self.cases if case.notes},
        }

    def csv_text(self) -> str:
        """Return what ``check.csv`` holds: a row for each problem."""
        rows = [list(problem.as_dict().values()) for problem in self.problems]
        return csv_text(("case", "file", "code", "message"), rows)


def check(
    dataset: Path,
    out: Path | None = None,
    *,
    manifest: bool = False,
    workers: int = 0,
    options: ReadingOptions = AS_IS,
    on_case: OnCase | None = None,
) -> CheckSummary:
    """Read every scan and label map of a cohort and list the cases that cannot be used.

    Args:
        dataset: folder of the cohort, or its manifest.
        out: folder for ``check.json`` and ``check.csv``; None writes nothing.
        manifest: write ``manifest.json`` of the good cases too: a cohort without the bad ones.
        workers: threads, each with a whole scan in memory; 0: as many as cores, up to four.
        options: how scans and label maps are read, as ``cfseg pseudo-label`` takes them.
        on_case: see :data:`OnCase`.

    Raises:
        UsageError: not a cohort, or ``out`` lies in it.
        ResourceError: the disk refuses.
    """
    cohort = list_cohort(dataset)
    if out is not None:
        check_out(out, cohort.root)
    orphans = [_orphan(path) for path in cohort.orphans]
    checked = _checked(cohort, len(orphans), workers, options, on_case)
    cases = sorted((*checked, *orphans), key=lambda case: case.name)
    summary = CheckSummary(cohort.root, cohort.layout, tuple(cases), options)
    if out is not None:
        write_json(out / "check.json", summary.as_dict())
        write_text(out / "check.csv", summary.csv_text())
        if manifest:
            write_manifest(out / NAME, summary.good)
    return summary


def check_case(entry: Entry, options: ReadingOptions = AS_IS) -> CheckedCase:
    """Read a case's scan and label map and say what is wrong with them."""
    if entry.problem:
        problem = Problem(entry.name, entry.image, entry.code, entry.problem)
        return CheckedCase(entry.name, None, (problem,))
    problems: list[Problem] = []
    notes: list[str] = []
    grid = _image_grid(entry, options, problems, notes)
    if entry.label is None:
        return CheckedCase(entry.name, settled(entry, frozenset()), tuple(problems), tuple(notes))
    try:
        labels = read_mapped(entry.label, entry.label_map, options)
    except Exception as error:  # whatever it is, it is this case's alone
        problems.append(problem_from(entry.name, entry.label, error))
        return CheckedCase(entry.name, None, tuple(problems), tuple(notes))
    if grid is not None and not labels.geometry.matches(grid):
        problems.append(_grids_differ(entry, grid, labels.geometry))
    case = _judge_labels(entry, labels, problems, notes)
    return CheckedCase(entry.name, case, tuple(problems), tuple(notes))


def _checked(
    cohort: Cohort, before: int, workers: int, options: ReadingOptions, on_case: OnCase | None
) -> Iterable[CheckedCase]:
    total = before + len(cohort.entries)
    looked_at = each(partial(check_case, options=options), cohort.entries, workers)
    for done, case in enumerate(looked_at, start=before + 1):
        if on_case is not None:
            on_case(case, done, total)
        yield case


def _orphan(label: Path) -> CheckedCase:
    name = stem(label).removesuffix(CHANNEL)
    message = f"{label} is a label map without a scan; add the scan or remove the label map"
    return CheckedCase(name, None, (Problem(name, label, "E_MISSING", message),))


def _image_grid(
    entry: Entry, options: ReadingOptions, problems: list[Problem], notes: list[str]
) -> Geometry | None:
    try:
        scan = read_scan(entry.image, case=entry.name, options=options)
    except Exception as error:  # whatever it is, it is this case's alone
        problems.append(problem_from(entry.name, entry.image, error))
        return None
    notes += scan.notes
    return scan.volume.geometry


def _judge_labels(
    entry: Entry, labels: LabelMap, problems: list[Problem], notes: list[str]
) -> Case:
    """Compare what is said of a case's labels with what is there."""
    present = present_labels(labels)
    case = settled(entry, present)
    if there := present & entry.absent:
        message = f"the manifest says that {_names(there)} is absent, but {entry.label} has it"
        problems.append(Problem(entry.name, entry.label, "E_MANIFEST", message))
    if not present:
        notes.append("empty_label: the label map is background everywhere")
    if not_there := case.annotated - present - case.absent:
        notes.append(f"annotated_not_present: {_names(not_there)}")
    if extra := present - case.annotated:
        notes.append(f"present_not_annotated: {_names(extra)}")
    if case.perhaps_absent is not None:
        notes.append(f"perhaps_absent: {NAMES[case.perhaps_absent]}")
    return case


def _grids_differ(entry: Entry, image: Geometry, label: Geometry) -> Problem:
    message = (
        f"the grids differ: the scan has {_grid(image)}, the label map {entry.label} has "
        f"{_grid(label)}; resample the label map to the scan's grid, or find the scan it was "
        "drawn on"
    )
    return Problem(entry.name, entry.label, "E_GRID", message)


def _grid(grid: Geometry) -> str:
    spacing = ", ".join(f"{mm:.4g}" for mm in grid.spacing_mm)
    origin = ", ".join(f"{mm:.4g}" for mm in grid.affine[:3, 3])
    return f"shape {grid.shape}, spacing ({spacing}) mm and origin ({origin}) mm (z, y, x)"


def _names(ids: Iterable[int]) -> str:
    return ", ".join(NAMES[i] for i in sorted(ids))
