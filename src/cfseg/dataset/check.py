"""Is every case of a cohort fit to train on? All are looked at; none stops the others.

An error keeps a case from being used. A warning does not: it says what is unusual, and perhaps
wrong, by a name of its own.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from cfseg.dataset.cases import Case, each, present_labels, read_mapped, settled
from cfseg.dataset.layouts import Cohort, Entry, list_cohort
from cfseg.dataset.manifest import NAME, write_manifest
from cfseg.dataset.problems import Problem, check_out, problem_from
from cfseg.errors import exit_code
from cfseg.geometry import Geometry
from cfseg.io import (
    AS_IS,
    CHANNEL,
    ReadingOptions,
    read_scan,
    stem,
    write_json,
    write_text,
)
from cfseg.labels import NAMES
from cfseg.situs import misplaced
from cfseg.tables import csv_text
from cfseg.volume import LabelMap, Volume

OnCase = Callable[["CheckedCase", int, int], None]
"""Called with each case, the cases done and the cases in all."""


@dataclass(frozen=True)
class CheckedCase:
    """What was found out about a case.

    Attributes:
        name: of the case.
        case: the case with what is annotated in it, None if that cannot be said.
        problems: why it must not be used.
        notes: what was decided in reading it and what is unusual about it, each ``word: detail``.
        warnings: what may be wrong with it although it can be used.
        voxels: digest of the scan's voxels on the canonical axes, "" if it cannot be read.
        grid: of the scan, None if it cannot be read.
    """

    name: str
    case: Case | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    voxels: str = ""
    grid: Geometry | None = None


@dataclass(frozen=True)
class CheckSummary:
    """What was found out about a cohort.

    Attributes:
        root: of the cohort.
        layout: what kind of a cohort it is, in words.
        cases: all of them, label maps without a scan and unreadable folders among them.
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
    def warnings(self) -> tuple[Problem, ...]:
        """All warnings, in order of case."""
        return tuple(warning for case in self.cases for warning in case.warnings)

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
        return _counts(self.problems)

    @property
    def warning_codes(self) -> dict[str, int]:
        """How many warnings there are of each name, the most frequent first."""
        return _counts(self.warnings)

    @property
    def exit_code(self) -> int:
        """0 all cases good, 3 some bad, 4 all bad or none found; warnings do not count."""
        return exit_code(len(self.good), [problem.code for problem in self.problems])

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
            "warning_codes": self.warning_codes,
            "warnings": [warning.as_dict() for warning in self.warnings],
        }

    def csv_text(self) -> str:
        """Return what ``check.csv`` holds: a row for each problem, then one for each warning."""
        rows = [list(it.as_dict().values()) for it in (*self.problems, *self.warnings)]
        return csv_text(("case", "file", "code", "message", "severity"), rows)


def _counts(problems: Iterable[Problem]) -> dict[str, int]:
    return dict(Counter(problem.code for problem in problems).most_common())


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
    aside = [*map(_orphan, cohort.orphans), *map(_unread, cohort.problems)]
    checked = _checked(cohort, len(aside), workers, options, on_case)
    known = _with_twins(cohort.entries, tuple(checked))
    cases = sorted((*known, *aside), key=lambda case: case.name)
    summary = CheckSummary(cohort.root, cohort.layout, tuple(cases), options)
    if out is not None:
        write_json(out / "check.json", summary.as_dict())
        write_text(out / "check.csv", summary.csv_text())
        if manifest:
            write_manifest(out / NAME, summary.good)
    return summary


def check_case(entry: Entry, options: ReadingOptions = AS_IS) -> CheckedCase:
    """Read a case's scan and label map, each once, and say what is wrong with them."""
    if entry.problem:
        problem = Problem(entry.name, entry.image, entry.code, entry.problem)
        return CheckedCase(entry.name, None, (problem,))
    try:
        scan = read_scan(entry.image, case=entry.name, options=options)
    except Exception as error:  # whatever it is, it is this case's alone
        problems = (problem_from(entry.name, entry.image, error),)
        return _check_labels(entry, CheckedCase(entry.name, None, problems), None, options)
    digest, grid = _digest(scan.volume), scan.volume.geometry
    found = CheckedCase(entry.name, None, (), scan.notes, voxels=digest, grid=grid)
    return _check_labels(entry, found, grid, options)


def twins(scans: Iterable[tuple[str, Path, str]]) -> tuple[Problem, ...]:
    """Return a warning for each scan that came before under another name.

    Args:
        scans: name of the case, file of the scan, and :attr:`CheckedCase.voxels`.
    """
    first: dict[str, str] = {}
    found = []
    for name, image, voxels in scans:
        other = first.setdefault(voxels, name) if voxels else name
        if other != name:
            message = (
                f"{image} is voxel for voxel the scan of {other}; remove one of the two: where one "
                "is learned from and the other judged by, results look better than they are"
            )
            found.append(Problem(name, image, "duplicate_scan", message, "warning"))
    return tuple(found)


def _with_twins(entries: Sequence[Entry], checked: Sequence[CheckedCase]) -> Iterator[CheckedCase]:
    scans = ((e.name, e.image, c.voxels) for e, c in zip(entries, checked, strict=True))
    warnings = {warning.case: warning for warning in twins(scans)}
    for case in checked:
        twin = warnings.get(case.name)
        yield case if twin is None else replace(case, warnings=(*case.warnings, twin))


def _digest(volume: Volume) -> str:
    """Return what scans share only if all voxels agree, in HU and on the canonical axes."""
    hu = volume.hu
    if hu.dtype != np.int16:  # whole numbers may have been saved as floats
        with np.errstate(invalid="ignore"):
            whole = hu.astype(np.int16)
        hu = whole if np.array_equal(whole, hu) else hu
    found = hashlib.sha256(repr(hu.shape).encode(), usedforsecurity=False)
    found.update(np.ascontiguousarray(hu).data)
    return found.hexdigest()


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


def _unread(problem: Problem) -> CheckedCase:
    return CheckedCase(problem.case, None, (problem,))


def _check_labels(
    entry: Entry, found: CheckedCase, grid: Geometry | None, options: ReadingOptions
) -> CheckedCase:
    """Add what is wrong with a case's label map.

    Args:
        entry: the case.
        found: what was found out about its scan.
        grid: of its scan, None if that cannot be read.
        options: with which the scan was read.
    """
    if entry.label is None:
        return replace(found, case=settled(entry, frozenset()))
    try:
        labels = read_mapped(entry.label, entry.label_map, options, entry.ignore)
    except Exception as error:  # whatever it is, it is this case's alone
        return replace(
            found, problems=(*found.problems, problem_from(entry.name, entry.label, error))
        )
    present = present_labels(labels)
    case = settled(entry, present)
    problems = [*found.problems, *_contradictions(entry, present)]
    if grid is not None and not labels.geometry.matches(grid):
        problems.append(_grids_differ(entry, grid, labels.geometry))
    unusual = tuple(_unusual(case, entry, labels, present))
    warnings = [
        Problem(entry.name, entry.label, word, f"{entry.label}: {detail}", "warning")
        for word, detail in unusual
    ]
    notes = [f"{word}: {detail}" for word, detail in unusual]
    if case.perhaps_absent is not None:
        notes.append(f"perhaps_absent: {NAMES[case.perhaps_absent]}")
    return replace(
        found, case=case, problems=tuple(problems), notes=(*found.notes, *notes),
        warnings=tuple(warnings),
    )  # fmt: skip


def _contradictions(entry: Entry, present: frozenset[int]) -> Iterator[Problem]:
    """Yield what cannot be true of both the manifest and the label map."""
    if there := present & entry.absent:
        message = f"the manifest says that {_names(there)} is absent, but {entry.label} has it"
        yield Problem(entry.name, entry.label, "E_MANIFEST", message)
    promised = (entry.annotated or frozenset()) - entry.absent
    if promised and not present:
        message = (
            f"the manifest says that {_names(promised)} is annotated, but {entry.label} holds no "
            "label at all; find the right label map, or say in the manifest that they are absent"
        )
        yield Problem(entry.name, entry.label, "E_EMPTY_LABELS", message)


def _unusual(
    case: Case, entry: Entry, labels: LabelMap, present: frozenset[int]
) -> Iterator[tuple[str, str]]:
    """Yield what may be wrong with a label map: a word for it, and what it is."""
    if not present and entry.annotated is None and not entry.absent:
        yield "empty_label", "the label map has no labels; the case counts as unlabelled"
    if present and (not_there := case.annotated - present - case.absent):
        yield "annotated_not_present", _names(not_there)
    if extra := present - case.known:
        yield "present_not_annotated", _names(extra)
    if wrong := misplaced(labels):
        detail = "; ".join(wrong)
        yield "situs", f"{detail}; is it mirrored, or are left and right exchanged?"


def _grids_differ(entry: Entry, image: Geometry, label: Geometry) -> Problem:
    message = (
        f"the grids differ: the scan has {image.in_words}, the label map {entry.label} has "
        f"{label.in_words}; resample the label map to the scan's grid, or find the scan it was "
        "drawn on"
    )
    return Problem(entry.name, entry.label, "E_GRID", message)


def _names(ids: Iterable[int]) -> str:
    return ", ".join(NAMES[i] for i in sorted(ids))
