"""Label maps of any class table to atlases: each by itself, a bad one stops no other."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, zoom

from cfseg.errors import CfsegError, InputError, UsageError
from cfseg.geometry import TripleMm
from cfseg.io import file_digest, files_in, make_folder, read_label_map, stem
from cfseg.phantoms.atlas import (
    Atlas,
    Findings,
    Ids,
    check,
    read_about,
    read_atlases,
    write_atlas,
)
from cfseg.phantoms.class_names import UNKNOWN, read_classes
from cfseg.phantoms.completion import completed, donors, settled

FORMAT = 1
"""Goes up whenever the same map makes another atlas."""
MADE_FROM = "made_from"
_REACH_MM = 12.0
"""Beyond, how far a voxel is from a class does not matter."""


@dataclass(frozen=True)
class Converted:
    """What became of one label map.

    Attributes:
        name: of the map.
        findings: of its atlas, None if it was refused.
        error: why.
    """

    name: str
    findings: Findings | None = None
    error: CfsegError | None = None

    @property
    def line(self) -> str:
        """What became of it on one line."""
        if self.error is not None:
            return f"{self.name}: {self.error.code}: {self.error.message}"
        assert self.findings is not None  # noqa: S101 - there is one or the other
        return f"{self.name}: {self.findings.line}"


@dataclass(frozen=True)
class _Job:
    """What counts for all maps of a call.

    Attributes:
        table: tissue class of each id.
        source: attribution.
        spacing_mm: wanted.
        out: the folder.
        among: if the atlases are completed, all maps of the call, for each may give to the others.
    """

    table: Mapping[int, int]
    source: str
    spacing_mm: float
    out: Path
    among: tuple[Path, ...]

    def read(self, file: Path) -> Atlas:
        """Return a map as an atlas that is not completed."""
        return atlas_of(file, self.table, self.source, self.spacing_mm)

    @cached_property
    def donors(self) -> tuple[Atlas, ...]:
        """The atlases that others are completed from."""
        return donors(self._sound())

    def _sound(self) -> Iterator[Atlas]:
        for file in self.among:
            try:
                atlas = self.read(file)
                check(atlas)
            except InputError:
                continue  # it is refused when its turn comes
            yield atlas

    def finished(self, file: Path) -> Atlas:
        """Return the atlas of a map, completed if that was asked for."""
        atlas = self.read(file)
        check(atlas)
        return completed(atlas, self.donors) if self.among else settled(atlas)

    @cached_property
    def _digest(self) -> str:
        files = [_digest_of(it) for it in self.among]
        return _sha256([FORMAT, files, sorted(self.table.items()), self.source, self.spacing_mm])

    def digest(self, file: Path) -> str:
        """Return a sha256 of all that decides what the atlas of a map is."""
        return _sha256([self._digest, file_digest(file)])


def _digest_of(file: Path) -> str:
    try:
        return file_digest(file)
    except InputError as error:
        return error.code  # of a map that can give to no other, and is refused in its turn


def _sha256(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def convert(
    maps: Sequence[Path],
    classes: Path,
    out: Path,
    *,
    source: str,
    spacing_mm: float = 3.0,
    complete: bool = False,
    on_map: Callable[[Converted, int, int], None] | None = None,
) -> tuple[Converted, ...]:
    """Turn label maps into atlases, OUT/NAME.nii.gz and OUT/NAME.json.

    What is there already, from the same maps and arguments, is not made again.

    Args:
        maps: files, or folders of them.
        classes: the class table, see :func:`cfseg.phantoms.class_names.read_classes`.
        out: folder; it is made if needed.
        source: where the maps come from and under which license, in one line.
        spacing_mm: of the atlases, about, along every axis.
        complete: draw the body, and take missing organs from the other maps, see
            :func:`cfseg.phantoms.completion.completed`.
        on_map: called after each map, with how many are done and how many there are.

    Raises:
        UsageError: there are no maps, two have one name, or the class table means nothing.
        ResourceError: the disk is full or refuses.
    """
    files = _files(maps)
    among = tuple(files) if complete else ()
    job = _Job(read_classes(classes), source, spacing_mm, out, among)
    make_folder(out)
    done = []
    for file in files:
        done.append(_converted(file, job))
        if on_map is not None:
            on_map(done[-1], len(done), len(files))
    return tuple(done)


def _files(maps: Sequence[Path]) -> list[Path]:
    files = [file for place in maps for file in files_in(place)]
    if not files:
        raise UsageError(f"{', '.join(map(str, maps))}: no label maps found")
    names = [stem(file) for file in files]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UsageError(f"several label maps are called {twins[0]}; rename all but one")
    return files


def _converted(file: Path, job: _Job) -> Converted:
    name = stem(file)
    target = job.out / f"{name}.nii.gz"
    try:
        digest = job.digest(file)
        if _is_made(target, digest):
            return Converted(name, check(read_atlases(target)[0]))
        atlas = job.finished(file)
        findings = check(atlas)
    except InputError as error:
        return Converted(name, error=error)
    write_atlas(target, atlas, {MADE_FROM: digest})
    return Converted(name, findings)


def _is_made(target: Path, digest: str) -> bool:
    if not target.exists():
        return False
    try:
        return read_about(target).get(MADE_FROM) == digest
    except UsageError:
        return False


def atlas_of(file: Path, table: Mapping[int, int], source: str, spacing_mm: float) -> Atlas:
    """Read a label map as an atlas.

    Args:
        file: the label map.
        table: tissue class of each of its ids; 0 need not be there and is unknown.
        source: attribution.
        spacing_mm: wanted; the extent stays, so it is met only about.

    Raises:
        InputError: the file is refused; ``E_LABELS``, an id has no name.
    """
    label_map, _ = read_label_map(file)
    to_tissue = np.full(256, UNKNOWN, dtype=np.uint8)
    to_tissue[list(table)] = list(table.values())
    ids = set(np.unique(label_map.ids).tolist())
    if unnamed := sorted(ids - table.keys() - {0}):
        raise InputError(
            f"{file}: the class table has no name for {', '.join(map(str, unnamed))}; add them",
            code="E_LABELS",
        )
    tissue, mm = resampled(to_tissue[label_map.ids], label_map.geometry.spacing_mm, spacing_mm)
    return Atlas.of(stem(file), tissue, mm, source)


def resampled(tissue: Ids, spacing_mm: TripleMm, new_mm: float) -> tuple[Ids, TripleMm]:
    """Return a map of classes on a grid of about ``new_mm``, and its exact spacing.

    Within a slice the nearest voxel counts. Between slices surfaces are interpolated by their
    distances, for the nearest slice would leave stairs in maps of 5 mm.

    Args:
        tissue: (Z, Y, X).
        spacing_mm: of it.
        new_mm: wanted along every axis.
    """
    shape = [max(1, round(n * mm / new_mm)) for n, mm in zip(tissue.shape, spacing_mm, strict=True)]
    z, y, x = (n * mm / k for n, mm, k in zip(tissue.shape, spacing_mm, shape, strict=True))
    factors = [1.0, shape[1] / tissue.shape[1], shape[2] / tissue.shape[2]]
    planes: Ids = zoom(tissue, factors, order=0, mode="nearest", grid_mode=True)
    if shape[0] == len(planes):
        return planes, (z, y, x)
    best = np.full(shape, -np.inf, dtype=np.float32)
    output = np.zeros(shape, dtype=np.uint8)
    for tissue_class in np.unique(planes):
        depth = _depth_mm(planes == tissue_class, (y, x))
        moved = zoom(depth, [shape[0] / len(planes), 1, 1], order=1, mode="nearest", grid_mode=True)
        wins = moved > best
        output[wins], best[wins] = tissue_class, moved[wins]
    return output, (z, y, x)


def _depth_mm(inside: npt.NDArray[np.bool_], mm: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Return how deep each voxel lies inside of a mask in its slice, mm, negative outside."""
    depth = np.full(inside.shape, -_REACH_MM, dtype=np.float32)
    for plane, found in zip(inside, depth, strict=True):
        if plane.all():
            found[...] = _REACH_MM
        elif plane.any():
            deep = distance_transform_edt(plane, sampling=mm)
            found[...] = deep - distance_transform_edt(~plane, sampling=mm)
    return np.clip(depth, -_REACH_MM, _REACH_MM)
