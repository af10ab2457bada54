"""The paper's groups (2.1, Fig. 1): what may train which model.

1 unlabelled, 2 labelled; 2 is 3 (no tumor annotated) with 4 (tumor); 3 is 5 (some organs) with
6 (all 13 organs).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfseg.dataset.cases import Case, case_or_problem, each, settled
from cfseg.dataset.folders import is_there
from cfseg.dataset.layouts import Entry, list_cohort
from cfseg.dataset.manifest import NAME, write_manifest
from cfseg.dataset.problems import Problem, check_out
from cfseg.errors import exit_code
from cfseg.io import write_json
from cfseg.labels import NAMES

Progress = Callable[[int, int], None]
"""Called with the cases done and the cases in all."""

MEANING = {
    1: "unlabelled",
    2: "labelled",
    3: "labelled, no tumor",
    4: "labelled, tumor",
    5: "some organs, no tumor",
    6: "all organs, no tumor",
}


@dataclass(frozen=True)
class Groups:
    """The groups that partition a cohort; 2 and 3 are unions of them.

    Attributes:
        unlabelled: group 1.
        tumor: group 4.
        partial: group 5, some organs, no tumor.
        full: group 6, all organs, no tumor.
    """

    unlabelled: tuple[Case, ...]
    tumor: tuple[Case, ...]
    partial: tuple[Case, ...]
    full: tuple[Case, ...]

    def numbered(self) -> dict[int, tuple[Case, ...]]:
        """Return the cases of each of the groups 1..6, in order of name."""
        without_tumor = _in_order(self.partial, self.full)
        return {
            1: self.unlabelled,
            2: _in_order(without_tumor, self.tumor),
            3: without_tumor,
            4: self.tumor,
            5: self.partial,
            6: self.full,
        }

    def sizes(self) -> dict[int, int]:
        """Return how many cases each of the groups 1..6 has."""
        return {number: len(cases) for number, cases in self.numbered().items()}


@dataclass(frozen=True)
class Grouping:
    """A cohort in groups.

    Attributes:
        root: of the cohort.
        layout: what kind of a cohort it is, in words.
        groups: its cases.
        refused: cases of which it cannot be said what is annotated, and unreadable folders.
        without_scan: names of the cases whose scan is not there; the manifest says enough of them.
    """

    root: Path
    layout: str
    groups: Groups
    refused: tuple[Problem, ...]
    without_scan: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[Case, ...]:
        """All cases that are in a group, in order of name."""
        return _in_order(self.groups.unlabelled, self.groups.numbered()[2])

    @property
    def perhaps_absent(self) -> dict[str, int]:
        """The one organ that is missing from an otherwise full set, by case.

        It may have been left out, or removed: only the manifest's ``absent`` can tell.
        """
        found = {case.name: case.perhaps_absent for case in self.cases}
        return {name: organ for name, organ in found.items() if organ is not None}

    @property
    def patterns(self) -> list[tuple[tuple[int, ...], int]]:
        """The sets of annotated labels and how many cases have each, the most frequent first."""
        counts = Counter(tuple(sorted(case.annotated)) for case in self.cases)
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    @property
    def exit_code(self) -> int:
        """0 all cases in a group, 3 some refused, 4 all refused or none found."""
        return exit_code(len(self.cases), [problem.code for problem in self.refused])

    def as_dict(self) -> dict[str, Any]:
        """Return what ``groups.json`` holds."""
        numbered = self.groups.numbered()
        settled = [case for case in self.cases if case.absent]
        return {
            "cohort": str(self.root),
            "layout": self.layout,
            "cases": len(self.cases),
            "counts": {str(number): len(cases) for number, cases in numbered.items()},
            "groups": {str(n): [case.name for case in cases] for n, cases in numbered.items()},
            "patterns": [{"annotated": ids, "cases": count} for ids, count in self.patterns],
            "perhaps_absent": {name: NAMES[i] for name, i in self.perhaps_absent.items()},
            "absent": {c.name: [NAMES[i] for i in sorted(c.absent)] for c in settled},
            "refused": [problem.as_dict() for problem in self.refused],
            "without_scan": len(self.without_scan),
        }


def group(cases: Iterable[Case]) -> Groups:
    """Sort cases into the paper's groups 1, 4, 5 and 6."""
    cases = tuple(cases)
    return Groups(
        unlabelled=tuple(c for c in cases if not c.annotated),
        tumor=tuple(c for c in cases if c.has_tumor),
        partial=tuple(c for c in cases if c.annotated and not c.has_tumor and not c.has_all_organs),
        full=tuple(c for c in cases if c.has_all_organs and not c.has_tumor),
    )


def groups(
    dataset: Path,
    out: Path | None = None,
    *,
    manifest: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Grouping:
    """Sort a cohort into the paper's groups.

    Label maps are opened only for cases of which no manifest says what is annotated; one that
    cannot be read leaves its case out and does not stop the others. A case whose annotations the
    manifest gives needs no files: groups can be planned before anything is downloaded.

    Args:
        dataset: folder of the cohort, or its manifest.
        out: folder for ``groups.json``; None writes nothing.
        manifest: write ``manifest.json`` too, so that no label map need be opened next time.
        workers: threads; 0: as many as there are cores, up to four.
        progress: see :data:`Progress`.

    Raises:
        UsageError: not a cohort, or ``out`` lies in it.
        ResourceError: the disk refuses.
    """
    cohort = list_cohort(dataset)
    if out is not None:
        check_out(out, cohort.root)
    cases: list[Case] = []
    refused: list[Problem] = [*cohort.problems]
    for done, found in enumerate(each(_case_or_problem, cohort.entries, workers), start=1):
        if isinstance(found, Case):
            cases.append(found)
        else:
            refused.append(found)
        if progress is not None:
            progress(done, len(cohort.entries))
    missing = tuple(case.name for case in cases if not is_there(case.image))
    grouping = Grouping(cohort.root, cohort.layout, group(cases), tuple(refused), missing)
    if out is not None:
        write_json(out / "groups.json", grouping.as_dict())
        if manifest:
            planned = [entry.name for entry in cohort.entries if entry.is_planned]
            write_manifest(out / NAME, grouping.cases, planned)
    return grouping


def _case_or_problem(entry: Entry) -> Case | Problem:
    return settled(entry, frozenset()) if entry.is_planned else case_or_problem(entry)


def _in_order(*parts: Iterable[Case]) -> tuple[Case, ...]:
    return tuple(sorted((case for part in parts for case in part), key=lambda case: case.name))
