"""Is every case fit to train on? Asked before any work, and of each file once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cfseg.dataset.cases import Case, as_case, each, settled
from cfseg.dataset.check import check_case
from cfseg.dataset.layouts import Entry, list_cohort
from cfseg.dataset.problems import Problem
from cfseg.errors import InputError, UsageError
from cfseg.foreign import Stored, read_object
from cfseg.io import write_json

_NAMED = 10
_SAVE_EVERY = 50
OnCase = Callable[[int, int], None]
"""Called with the cases looked at and the cases in all."""


@dataclass(frozen=True)
class Fitness:
    """What was found out about a cohort.

    Attributes:
        good: the cases without a problem.
        problems: of the others.
    """

    good: tuple[Case, ...]
    problems: tuple[Problem, ...]

    @property
    def bad(self) -> dict[str, str]:
        """The codes of each bad case, by name."""
        found: dict[str, list[str]] = {}
        for problem in self.problems:
            found.setdefault(problem.case, []).append(problem.code)
        return {name: ", ".join(dict.fromkeys(codes)) for name, codes in found.items()}

    def judge(self, report: Callable[[str], None], *, skip_bad: bool) -> None:
        """Refuse a cohort with bad cases, or say which ones are left out.

        Raises:
            InputError: ``E_BAD_CASES`` with a list and what to do.
        """
        for problem in self.problems if skip_bad else ():
            report(f"left out: {problem.case}: {problem.code}: {problem.message}")
        if skip_bad or not self.problems:
            return
        count = len(self.bad)
        lines = [f"  {p.case}: {p.code}: {p.message}" for p in self.problems[:_NAMED]]
        if len(self.problems) > _NAMED:
            lines.append(f"  and {len(self.problems) - _NAMED} more")
        listed = "\n".join(lines)
        raise InputError(
            f"{count} of {count + len(self.good)} cases cannot be trained on:\n{listed}\nrepair "
            "them, or pass --skip-bad to leave them out (cfseg dataset check lists them all; other "
            "options that are named here are those of cfseg predict)",
            code="E_BAD_CASES",
        )


def check_fitness(
    dataset: Path, memory: Path, jobs: int = 0, on_case: OnCase | None = None
) -> Fitness:
    """Read each scan and label map of a cohort, unless they were read before and did not change.

    Args:
        dataset: as :func:`cfseg.dataset.layouts.list_cohort` takes it.
        memory: file that keeps what was found from one run to the next.
        jobs: threads; 0: as many as cores, up to four.
        on_case: see :data:`OnCase`.

    Raises:
        UsageError: not a cohort.
        ResourceError: the disk refuses.
    """
    entries = list_cohort(dataset).entries
    known, found = _read(memory), {}
    left = []
    for entry in entries:
        record = known.get(entry.name, {})
        if record.get("files") == _stamp(entry):
            found[entry.name] = record
        else:
            left.append(entry)
    for number, (entry, record) in enumerate(zip(left, each(_look, left, jobs), strict=True), 1):
        found[entry.name] = record
        if number % _SAVE_EVERY == 0 or number == len(left):
            write_json(memory, found)
        if on_case is not None:
            on_case(len(entries) - len(left) + number, len(entries))
    return _sorted(entries, found)


def readable_cases(dataset: Path) -> tuple[Case, ...]:
    """List the cases of a cohort without those whose labels cannot even be read.

    Args:
        dataset: as :func:`cfseg.dataset.layouts.list_cohort` takes it.

    Raises:
        UsageError: not a cohort, or no case of it can be read.
    """
    found = [case for case in each(_readable, list_cohort(dataset).entries) if case is not None]
    if not found:
        raise UsageError(f"{dataset}: no case can be read; see cfseg dataset check")
    return tuple(found)


def _readable(entry: Entry) -> Case | None:
    try:
        return None if entry.problem else as_case(entry)
    except InputError:
        return None


def _sorted(entries: Sequence[Entry], found: Mapping[str, Any]) -> Fitness:
    good, problems = [], []
    for entry in entries:
        record = found[entry.name]
        if not record["problems"]:
            good.append(settled(entry, frozenset(record["present"])))
        for row in record["problems"]:
            problems.append(Problem(entry.name, entry.image, row["code"], row["message"]))
    return Fitness(tuple(good), tuple(problems))


def _look(entry: Entry) -> dict[str, Any]:
    """Return what is remembered of a case: its problems, or the labels that are in it."""
    checked = check_case(entry)
    present = () if checked.case is None else checked.case.annotated - entry.absent
    return {
        "files": _stamp(entry),
        "problems": [{"code": p.code, "message": p.message} for p in checked.problems],
        "present": sorted(present),
    }


def _stamp(entry: Entry) -> list[Any]:
    """Return what tells that a case's files, or what is said of them, are still the same."""
    stamp: list[Any] = [
        None if entry.annotated is None else sorted(entry.annotated),
        sorted(entry.absent),
        None if entry.label_map is None else sorted(map(list, entry.label_map.items())),
        entry.problem,
    ]
    for path in (entry.image, entry.label):
        try:
            info = None if path is None else path.stat()
        except OSError:
            info = None
        stamp += [str(path), *((info.st_size, info.st_mtime_ns) if info else (0, 0))]
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
