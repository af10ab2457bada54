"""Is every case fit to train on? Asked before any work, and of each file once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import TypeAdapter

from cfseg.dataset.cases import Case, case_or_problem, each, refuse_empty, settled
from cfseg.dataset.check import check_case, twins
from cfseg.dataset.layouts import Cohort, Entry, list_cohort
from cfseg.dataset.problems import Problem
from cfseg.errors import InputError
from cfseg.foreign import Stored, read_object
from cfseg.geometry import Triple, TripleMm
from cfseg.io import write_json

_NAMED = 10
_SAVE_EVERY_SECONDS = 30.0
"""A stop loses no more; after each case it would take longer than looking at cases does."""
_CHECKS = 3
"""Counts up when cases are looked at for more: what was found before then no longer serves."""
Grid = tuple[Triple, TripleMm]
OnCase = Callable[[int, int], None]
"""Called with the cases looked at and the cases in all."""


@dataclass(frozen=True)
class Fitness:
    """What was found out about a cohort.

    Attributes:
        good: the cases without a problem.
        problems: of the others.
        warnings: what may be wrong with cases that can be used.
        grids: shape and spacing (mm) of each good case's scan, (z, y, x), by name.
    """

    good: tuple[Case, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    grids: Mapping[str, Grid] = field(default_factory=dict)

    @property
    def bad(self) -> dict[str, str]:
        """The codes of each bad case, by name."""
        found: dict[str, list[str]] = {}
        for problem in self.problems:
            found.setdefault(problem.case, []).append(problem.code)
        return {name: ", ".join(dict.fromkeys(codes)) for name, codes in found.items()}

    def judge(self, report: Callable[[str], None], *, skip_bad: bool) -> None:
        """Say what is unusual; refuse a cohort with bad cases, or say which ones are left out.

        Raises:
            InputError: ``E_BAD_CASES`` with a list and what to do.
        """
        for line in _first(self.warnings):
            report(line)
        for problem in self.problems if skip_bad else ():
            report(f"left out: {problem.line}")
        if skip_bad or not self.problems:
            return
        count = len(self.bad)
        error = InputError(
            f"{count} of {count + len(self.good)} cases cannot be trained on; repair them, or pass "
            "--skip-bad to leave them out (cfseg dataset check lists them all; other options that "
            "are named here are those of cfseg predict)",
            code="E_BAD_CASES",
        )
        error.details = tuple(f"  {line}" for line in _first(self.problems))
        raise error


def _first(problems: Sequence[Problem]) -> list[str]:
    lines = [problem.line for problem in problems[:_NAMED]]
    more = len(problems) - _NAMED
    return [*lines, f"and {more} more {problems[0].severity}s"] if more > 0 else lines


def check_fitness(
    dataset: Path,
    memory: Path,
    jobs: int = 0,
    on_case: OnCase | None = None,
    *,
    remember: bool = True,
) -> Fitness:
    """Read each scan and label map of a cohort, unless they were read before and did not change.

    Args:
        dataset: as :func:`cfseg.dataset.layouts.list_cohort` takes it.
        memory: file that keeps what was found from one run to the next.
        jobs: threads; 0: as many as cores, up to four.
        on_case: see :data:`OnCase`.
        remember: write to ``memory``; what is in it counts either way.

    Raises:
        UsageError: not a cohort.
        ResourceError: the disk refuses.
    """
    cohort = list_cohort(dataset)
    entries = cohort.entries
    known, found = _read(memory), {}
    left = []
    for entry in entries:
        record = known.get(entry.name, {})
        if record.get("files") == _stamp(entry):
            found[entry.name] = record
        else:
            left.append(entry)
    saved_at = monotonic()
    for number, (entry, record) in enumerate(zip(left, each(_look, left, jobs), strict=True), 1):
        found[entry.name] = record
        is_late = monotonic() - saved_at > _SAVE_EVERY_SECONDS
        if remember and (is_late or number == len(left)):
            write_json(memory, found)
            saved_at = monotonic()
        if on_case is not None:
            on_case(len(entries) - len(left) + number, len(entries))
    return _sorted(cohort, found)


def readable_cases(dataset: Path) -> tuple[Case, ...]:
    """List the cases of a cohort without those whose labels cannot even be read.

    Args:
        dataset: as :func:`cfseg.dataset.layouts.list_cohort` takes it.

    Raises:
        UsageError: not a cohort.
        InputError: there is nothing in it, or no case of it can be read.
    """
    cohort = list_cohort(dataset)
    refuse_empty(cohort)
    listed = each(case_or_problem, cohort.entries)
    found = tuple(case for case in listed if isinstance(case, Case))
    if not found:
        message = f"{dataset}: no case can be read; cfseg dataset check says why"
        raise InputError(message, code="E_BAD_CASES")
    return found


def _sorted(cohort: Cohort, found: Mapping[str, Any]) -> Fitness:
    good, problems, warnings, grids = [], [*cohort.problems], [], {}
    for entry in cohort.entries:
        record = found[entry.name]
        if not record["problems"]:
            good.append(settled(entry, frozenset(record["present"])))
            shape, spacing_mm = record["grid"]
            grids[entry.name] = (tuple(shape), tuple(spacing_mm))
        problems += [_problem(entry, row) for row in record["problems"]]
        warnings += [_problem(entry, row) for row in record["warnings"]]
    copies = twins((e.name, e.image, found[e.name]["voxels"]) for e in cohort.entries)
    return Fitness(tuple(good), tuple(problems), (*warnings, *copies), grids)


def _problem(entry: Entry, row: Mapping[str, Any]) -> Problem:
    return Problem(entry.name, entry.image, row["code"], row["message"], row["severity"])


def _look(entry: Entry) -> dict[str, Any]:
    """Return what is remembered of a case: its problems, or the labels and the scan that it has."""
    checked = check_case(entry)
    present = () if checked.case is None else checked.case.annotated - entry.absent
    return {
        "files": _stamp(entry),
        "problems": [problem.as_dict() for problem in checked.problems],
        "warnings": [warning.as_dict() for warning in checked.warnings],
        "voxels": checked.voxels,
        "present": sorted(present),
        "grid": None if checked.grid is None else [checked.grid.shape, checked.grid.spacing_mm],
    }


def _stamp(entry: Entry) -> list[Any]:
    """Return what tells that a case's files, or what is said of them, are still the same."""
    stamp: list[Any] = [
        _CHECKS,
        None if entry.annotated is None else sorted(entry.annotated),
        sorted(entry.absent),
        None if entry.label_map is None else sorted(map(list, entry.label_map.items())),
        entry.ignore,
        entry.problem,
    ]
    for path in (entry.image, entry.label):
        try:
            info = None if path is None else path.stat()
        except OSError:
            info = None
        stamp += [
            str(path and path.absolute()),
            *((info.st_size, info.st_mtime_ns) if info else (0, 0)),
        ]
    return stamp


class _Problem(Stored):
    code: str
    message: str


class _Remembered(Stored):
    files: list[Any]
    problems: list[_Problem]
    present: list[int]


_MEMORY = TypeAdapter(dict[str, _Remembered])


def _read(memory: Path) -> dict[str, Any]:
    try:
        return read_object(memory, _MEMORY)
    except (OSError, ValueError):
        return {}
