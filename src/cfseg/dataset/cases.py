"""A cohort's cases: which scans there are, and which labels are annotated in each.

Annotated is not the same as present: a case may lack a gallbladder although all organs are
annotated. The manifest says which labels are annotated; without one, those that are present are.
An organ that the manifest calls absent counts as annotated: it is known not to be there. Where it
calls the tumor absent, somebody looked for tumors and found none; such a case has no annotated ones
(the paper's group 4 has), and is not one of which nobody knows.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cfseg.dataset.folders import is_there
from cfseg.dataset.label_names import IDENTITY, IGNORE
from cfseg.dataset.layouts import EXPECTED, Cohort, Entry, list_cohort
from cfseg.dataset.problems import Problem, problem_from
from cfseg.errors import InputError, UsageError
from cfseg.io import AS_IS, ReadingOptions, read_label_map
from cfseg.labels import NAMES, ORGAN_IDS, TUMOR
from cfseg.volume import LabelMap

PHANTOM_NOTICE = (
    "This model was trained on synthetic scans. It shows how the software works and is not for "
    "clinical use; its masks of real scans mean nothing."
)
MOST_WORKERS = 4
"""Each of them holds a whole scan in memory."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Case:
    """One CT of a cohort.

    Attributes:
        name: of the case.
        image: its scan.
        label: its label map, None if it has none.
        annotated: FLARE ids that are annotated, those of absent organs among them; never an absent
            tumor's.
        absent: labels that are known not to be there.
        label_map: {id in the file ``label``: FLARE id}; None: the file has FLARE's ids. Read the
            file with :func:`read_labels`, which applies it.
        ignore: value in the file ``label`` of voxels that nobody annotated, None if it has none.
    """

    name: str
    image: Path
    label: Path | None
    annotated: frozenset[int]
    absent: frozenset[int] = frozenset()
    label_map: Mapping[int, int] | None = field(default=None, hash=False)
    ignore: int | None = None

    @property
    def has_all_organs(self) -> bool:
        """Whether all 13 organs are annotated."""
        return self.annotated.issuperset(ORGAN_IDS)

    @property
    def has_tumor(self) -> bool:
        """Whether tumors are annotated (the paper's group 4)."""
        return TUMOR.id in self.annotated

    @property
    def is_tumor_free(self) -> bool:
        """Whether it is known that there is no tumor."""
        return TUMOR.id in self.absent

    @property
    def known(self) -> frozenset[int]:
        """The labels of which it is known where they are, or that they are not there."""
        return self.annotated | self.absent

    @property
    def perhaps_absent(self) -> int | None:
        """The one organ that is missing from an otherwise full set: never annotated, or removed."""
        missing = [organ for organ in ORGAN_IDS if organ not in self.annotated]
        return missing[0] if len(missing) == 1 else None


def read_cases(folder: Path) -> tuple[Case, ...]:
    """List the cases of a cohort, in order of name; see :func:`list_cohort` for what is read.

    Label maps are opened only for cases of which no manifest says what is annotated.

    Args:
        folder: of the cohort, or its manifest.

    Raises:
        UsageError: not a cohort, or a manifest that does not fit it.
        InputError: there is nothing in it, or a label map cannot be read or has unknown values.
    """
    cohort = list_cohort(folder)
    refuse_empty(cohort)
    for problem in cohort.problems:
        raise InputError(problem.message, code=problem.code)
    for entry in cohort.entries:
        if entry.problem:
            raise UsageError(entry.problem)
    return tuple(each(as_case, cohort.entries))


def refuse_empty(cohort: Cohort) -> None:
    """Refuse a cohort without any scan.

    Raises:
        InputError: ``E_NO_CASES``.
    """
    if not cohort.entries and not cohort.problems:
        raise InputError(f"{cohort.root}: no scans found; {EXPECTED}", code="E_NO_CASES")


def case_or_problem(entry: Entry) -> Case | Problem:
    """Return an entry's case as :func:`as_case` does, or why it cannot be used."""
    if entry.problem:
        return Problem(entry.name, entry.image, entry.code, entry.problem)
    try:
        return as_case(entry)
    except Exception as error:  # whatever it is, it is this case's alone
        return problem_from(entry.name, entry.label, error)


def read_labels(
    case: Case, options: ReadingOptions = AS_IS, *, keep_ignored: bool = False
) -> LabelMap:
    """Read a case's label map with FLARE's ids, whatever ids the file has.

    Args:
        case: with a label map.
        options: with which its scan is read.
        keep_ignored: give voxels that are to be ignored :data:`IGNORE`. Who does not know that
            value would take them for a label or for background.

    Raises:
        ValueError: the case has no label map.
        InputError: the file is refused; ``E_LABELS`` for values that mean nothing, ``E_IGNORE`` for
            voxels to be ignored, unless they are kept.
    """
    if case.label is None:
        raise ValueError(f"{case.name} has no label map")
    found = read_mapped(case.label, case.label_map, options, case.ignore)
    if case.ignore is not None and not keep_ignored and (found.ids == IGNORE).any():
        raise InputError(
            f"{case.label} has voxels to be ignored (value {case.ignore}), which cannot be left "
            "out here; use a label map without them, or leave the case out",
            code="E_IGNORE",
        )
    return found


def read_mapped(
    path: Path,
    label_map: Mapping[int, int] | None,
    options: ReadingOptions = AS_IS,
    ignore: int | None = None,
) -> LabelMap:
    """Read a label map and give its labels FLARE's ids.

    Args:
        path: of the file.
        label_map: {id in the file: FLARE id}, 0 leaves a label out; None: the ids are FLARE's.
        options: with which its scan is read.
        ignore: value in the file of voxels that nobody annotated; they get :data:`IGNORE`.

    Raises:
        InputError: the file is refused; ``E_LABELS`` for values that mean nothing.
    """
    found = read_label_map(path, options)[0]
    known = {0: 0} | dict(IDENTITY if label_map is None else label_map)
    if ignore is not None:
        known[ignore] = IGNORE
    counts = voxel_counts(found.ids)
    unknown = [int(value) for value in np.flatnonzero(counts) if int(value) not in known]
    if unknown:
        listed = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:5])
        raise InputError(
            f"{path} has values that mean no label: {listed}; known are "
            f"{', '.join(map(str, sorted(known)))}; repair it, or say in a label_map of "
            "manifest.json what they mean",
            code="E_LABELS",
        )
    if all(source == target for source, target in known.items()):
        return found
    table = np.zeros(256, dtype=np.uint8)
    table[list(known)] = list(known.values())
    return LabelMap(table[found.ids], found.geometry)


def voxel_counts(ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return how many voxels have each value 0..255.

    Args:
        ids: (Z, Y, X).
    """
    counts = np.zeros(256, dtype=np.int64)
    for plane in ids:  # bincount widens its input eightfold, and most of a scan is background
        counts += np.bincount(plane[plane != 0], minlength=256)
    counts[0] = ids.size - counts.sum()
    return counts


def as_case(entry: Entry) -> Case:
    """Make a case of an entry; its label map is opened only if nobody says what is annotated.

    Raises:
        InputError: the label map is refused.
    """
    if entry.label is None or entry.annotated is not None:
        return settled(entry, frozenset())
    found = read_mapped(entry.label, entry.label_map, ignore=entry.ignore)
    return settled(entry, present_labels(found))


def present_labels(label_map: LabelMap) -> frozenset[int]:
    """Return the ids of the labels that a label map has."""
    return frozenset(int(i) for i in np.flatnonzero(voxel_counts(label_map.ids))) & NAMES.keys()


def settled(entry: Entry, present: frozenset[int]) -> Case:
    """Make a case of an entry.

    Args:
        entry: as listed.
        present: labels in its label map; they count where nobody says what is annotated.
    """
    annotated = present if entry.annotated is None else entry.annotated
    no_tumor = entry.absent & {TUMOR.id}
    return Case(
        entry.name,
        entry.image,
        entry.label,
        (annotated | entry.absent) - no_tumor,
        entry.absent,
        entry.label_map,
        entry.ignore,
    )


def each(function: Callable[[_T], _R], items: Iterable[_T], workers: int = 0) -> Iterator[_R]:
    """Yield the function of each item, in order, worked out in threads.

    Decompressing, digesting and counting all release the interpreter's lock.

    Args:
        function: of one item.
        items: all of them.
        workers: threads; 0: as many as there are cores, at most :data:`MOST_WORKERS`.
    """
    with ThreadPoolExecutor(workers or min(MOST_WORKERS, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


def phantom_notice(folder: Path) -> str:
    """Return what a model trained on this cohort must say, "" unless it is made of phantoms.

    Args:
        folder: of the cohort, or its manifest; then the folders of its scans count.
    """
    folder = Path(folder)
    roots = {folder}
    if folder.is_file():
        roots = {entry.image.parent.parent for entry in list_cohort(folder).entries}
    return PHANTOM_NOTICE if any(is_there(root / "cohort.json") for root in roots) else ""
