"""Each case once, as inference sees it just before the z-score (paper 2.1).

A stored case is the scan, clipped to the stage's range and resampled by :mod:`cfseg.preprocessing`,
rounded to 1 HU, and its labels on the same grid. The names of the files carry what decides them: a
run that was stopped goes on, stages that agree share a scan, and what changed is stored anew.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from cfseg.dataset.cases import each, voxel_counts
from cfseg.dataset.label_names import IGNORE as READ_AS_IGNORED
from cfseg.errors import ResourceError
from cfseg.feed.chunked import Chunked, remove
from cfseg.feed.planning import Facts
from cfseg.geometry import Box, Geometry, Triple
from cfseg.io import write_json
from cfseg.labels import IGNORE, LABELS
from cfseg.plan import StagePlan
from cfseg.preprocessing.labels import prepare_labels
from cfseg.preprocessing.prepare import network_shape, prepare
from cfseg.volume import LabelMap, Volume

ANNOTATED = 0
"""Under this label a case that has such voxels knows where some of the others are."""
LOCATIONS = 1000
"""Voxels of each label of which it is known where they are. nnU-Net keeps 10 000; no case is looked
at so often that it would make a difference."""
EXPECTED_BYTES = 1.0
"""On disk, of a voxel with its label; CTs had 0.4 to 0.7."""
HELD_BYTES = 3
"""In memory, of a voxel with its label."""
_INT16 = torch.iinfo(torch.int16)
_T = TypeVar("_T")

Progress = Callable[[int, int], None]
"""Gets how many cases are done, and how many there are."""


@dataclass(frozen=True)
class Origin:
    """A case to be stored.

    Attributes:
        name: of the case, safe in a file name.
        scan: what decides the scan, as a digest does.
        labels: what decides its labels.
        read: gives both, on one grid.
    """

    name: str
    scan: str
    labels: str
    read: Callable[[], tuple[Volume, LabelMap]]


def survey(
    origins: Sequence[Origin],
    folder: Path,
    z_margin_slices: int,
    jobs: int = 0,
    on_case: Progress | None = None,
) -> list[Facts]:
    """Return what planning needs of each case; what was seen before is not read again.

    Args:
        origins: the cases.
        folder: remembers what was seen.
        z_margin_slices: kept beyond the labelled slices (paper 2.1).
        jobs: threads, each with a case in memory; 0: as many as cores, up to four.
        on_case: is told after each case.

    Raises:
        InputError: a case cannot be read.
        ResourceError: ``E_DISK``.
    """

    def look(origin: Origin) -> Facts:
        file = folder / f"{origin.name}.{_key(origin.scan, origin.labels, z_margin_slices)}.npz"
        known = Facts.load(file)
        if known is None:
            known = Facts.of(*origin.read(), z_margin_slices)
            known.save(file)
        return known

    return _told(each(look, origins, jobs), 0, len(origins), on_case)


@dataclass(frozen=True)
class Size:
    """What cases take.

    Attributes:
        cases: how many.
        stored: bytes on disk, as expected.
        largest: of the largest case.
        held: bytes in memory, all of them at once.
    """

    cases: int
    stored: int
    largest: int
    held: int


def plan_bytes(facts: Sequence[Facts], plan: StagePlan) -> Size:
    """Return what cases will take on a stage's grid, before any is stored."""
    grids = (Geometry.from_spacing(fact.shape, fact.spacing_mm) for fact in facts)
    voxels = [math.prod(network_shape(grid, plan)) for grid in grids]
    stored = [int(count * EXPECTED_BYTES) for count in voxels]
    return Size(len(voxels), sum(stored), max(stored, default=0), sum(voxels) * HELD_BYTES)


def check_room(folder: Path, size: Size) -> None:
    """Refuse to begin what the disk will not hold.

    Args:
        folder: where it goes; it need not be there.
        size: of what is not stored yet.

    Raises:
        ResourceError: ``E_DISK``, with both numbers.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size.stored > free:
        raise ResourceError(
            f"{folder}: {size.cases} cases take about {size.stored / 1e9:.1f} GB (the largest "
            f"{size.largest / 1e6:.0f} MB) and {free / 1e9:.1f} GB are free; free some space, or "
            "choose a folder on another disk",
            code="E_DISK",
        )


@dataclass(frozen=True)
class StoredCase:
    """A case in a store. Threads may read one at the same time.

    Attributes:
        name: of the case.
        hu: (Z, Y, X) int16.
        labels: (Z, Y, X) uint8.
    """

    name: str
    hu: Chunked
    labels: Chunked

    @property
    def shape(self) -> Triple:
        """(z, y, x) voxels."""
        return self.hu.shape

    @property
    def held_bytes(self) -> int:
        """Bytes of the case in memory."""
        return math.prod(self.shape) * HELD_BYTES

    @property
    def voxels(self) -> Mapping[int, int]:
        """How many voxels each label has, background and :data:`IGNORE` among them."""
        return self.labels.voxels

    def locations(self, label: int) -> npt.NDArray[np.int32]:
        """Return where some voxels of a label are in the flat array, (n,).

        Args:
            label: one that the case has; or :data:`ANNOTATED` if it has voxels to be ignored.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        return self.labels.places(label)

    def read(self, start: Triple, hu: torch.Tensor, labels: torch.Tensor) -> None:
        """Fill tensors with the part of the case that lies in a box; the rest is left as it is.

        Args:
            start: first voxel of the box, (z, y, x); it may lie outside of the case.
            hu: (Z, Y, X) int16 on the CPU, of the box's shape.
            labels: (Z, Y, X) uint8, the same.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        self.hu.read(start, hu.numpy())
        self.labels.read(start, labels.numpy())


class Store:
    """The cases of one grid and range.

    Attributes:
        folder: of their files.

    Args:
        root: holds the folders of all stores.
        plan: gives grid, range and resampling; the rest of it does not count.
    """

    def __init__(self, root: Path, plan: StagePlan) -> None:
        self._plan = plan
        self._grid = plan.model_dump(
            mode="json",
            include={
                "spacing_mm": True, "transpose": True, "resampling": True,
                "intensity": {"lower", "upper", "clamp_hu"},
            },
        )  # fmt: skip
        self.folder = root / _key(self._grid)

    def write(
        self,
        origins: Sequence[Origin],
        facts: Sequence[Facts],
        jobs: int = 0,
        on_case: Progress | None = None,
    ) -> list[StoredCase]:
        """Store the cases that are not, and return all.

        Args:
            origins: the cases.
            facts: of each, as :func:`survey` gives them.
            jobs: threads, each with a case in memory; 0: as many as cores, up to four.
            on_case: is told after each case.

        Raises:
            InputError: a case cannot be read.
            ResourceError: ``E_DISK``, there is no room, the disk refuses, or it lost what was
                written.
        """
        pairs = list(zip(origins, facts, strict=True))
        left = [pair for pair in pairs if self.find(*pair) is None]
        if left:
            check_room(self.folder, plan_bytes([fact for _, fact in left], self._plan))
            write_json(self.folder / "grid.json", self._grid)
        done = len(pairs) - len(left)
        _told(each(lambda pair: self._write(*pair), left, jobs), done, len(pairs), on_case)
        return [self._found(*pair) for pair in pairs]

    def find(self, origin: Origin, facts: Facts) -> StoredCase | None:
        """Return a case that is stored, None if it is not."""
        hu, labels = (Chunked.find(file) for file in self._files(origin, facts))
        return None if hu is None or labels is None else StoredCase(origin.name, hu, labels)

    def _found(self, origin: Origin, facts: Facts) -> StoredCase:
        case = self.find(origin, facts)
        if case is None:
            raise ResourceError(
                f"{self.folder}: what was written of {origin.name} is gone; check the disk, and "
                "run it again",
                code="E_DISK",
            )
        return case

    def _files(self, origin: Origin, facts: Facts) -> tuple[Path, Path]:
        scan = _key(origin.scan, facts.slices)
        labels = _key(origin.scan, origin.labels, facts.slices)
        return (
            self.folder / f"{origin.name}.{scan}.hu.b2nd",
            self.folder / f"{origin.name}.{labels}.labels.b2nd",
        )

    def _write(self, origin: Origin, facts: Facts) -> None:
        volume, labels = origin.read()
        start, stop = facts.slices
        box = Box((start, 0, 0), (stop, *volume.geometry.shape[1:]))
        hu_file, labels_file = self._files(origin, facts)
        if Chunked.find(hu_file) is None:  # another stage may have stored the scan
            Chunked.write(hu_file, stored_hu(volume.crop(box), self._plan))
        ids = stored_labels(labels.crop(box), self._plan)
        Chunked.write(labels_file, ids, *counted(ids))


def prune(root: Path, keep: Collection[Path]) -> int:
    """Remove stored files that no stage needs any more, and return how many bytes they had.

    Args:
        root: of all stores.
        keep: the arrays that all stages need.

    Raises:
        ResourceError: ``E_DISK``, a file may not be removed.
    """
    return sum(remove(file) for file in root.glob("*/*.b2nd") if file not in keep)


def stored_hu(volume: Volume, plan: StagePlan) -> npt.NDArray[np.int16]:
    """Return a scan as it is stored: what inference sees, before mean and deviation.

    Args:
        volume: the scan, cut to its slices.
        plan: gives grid, range and resampling.

    Returns:
        (Z, Y, X) HU, axes in the plan's order.
    """
    in_hu = plan.intensity.model_copy(update={"mean": 0.0, "std": 1.0})
    image = prepare(volume, plan.model_copy(update={"intensity": in_hu})).image
    whole = image.round_().clamp_(_INT16.min, _INT16.max).to(torch.int16)
    hu: npt.NDArray[np.int16] = whole.numpy()
    return hu


def stored_labels(labels: LabelMap, plan: StagePlan) -> npt.NDArray[np.uint8]:
    """Return a label map as it is stored, with :data:`IGNORE` where nobody annotated.

    Args:
        labels: cut to its slices.
        plan: gives the grid.

    Returns:
        (Z, Y, X), axes in the plan's order.
    """
    ids = prepare_labels(labels, plan)
    return np.where(ids == READ_AS_IGNORED, np.uint8(IGNORE), ids)


def counted(
    ids: npt.NDArray[np.uint8],
) -> tuple[dict[int, int], dict[int, npt.NDArray[np.int32]]]:
    """Return how many voxels each label has, and where some of them are, drawn alike from all.

    Args:
        ids: (Z, Y, X), of :func:`stored_labels`.
    """
    counts, flat = voxel_counts(ids), ids.ravel()
    voxels = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    places = {label.id: _some(flat == label.id, label.id) for label in LABELS if label.id in voxels}
    if IGNORE in voxels:
        places[ANNOTATED] = _some(flat != IGNORE, ANNOTATED)
    return voxels, places


def _some(mask: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int32]:
    found = np.flatnonzero(mask)
    if len(found) > LOCATIONS:
        found = np.random.default_rng(seed).choice(found, LOCATIONS, replace=False)
    return found.astype(np.int32)


def _key(*parts: Any) -> str:  # noqa: ANN401 - JSON
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _told(results: Iterable[_T], done: int, cases: int, on_case: Progress | None) -> list[_T]:
    """Return the results, and tell after each how many cases are done."""
    found = []
    for result in results:
        found.append(result)
        if on_case is not None:
            on_case(done + len(found), cases)
    return found
