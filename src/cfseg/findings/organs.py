"""Each label of a label map in figures: volume, density, extent, and whether the scan cuts it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from cfseg.geometry import Box, Triple, TripleMm
from cfseg.labels import LABELS, Label
from cfseg.volume import LabelMap, Volume

Side = Literal["feet", "head", "front", "back", "right", "left"]
SIDES: tuple[tuple[Side, Side], ...] = (("feet", "head"), ("front", "back"), ("right", "left"))
"""The two ends of each of the axes (z, y, x): where indices begin and where they end."""

BORDER_SLICES = 3
"""What reaches into so many outer slices counts as cut, as in TotalSegmentator: the masks of
networks thin out near the end of a scan."""


@dataclass(frozen=True)
class Density:
    """Hounsfield units inside a mask.

    Attributes:
        mean_hu: mean.
        sd_hu: standard deviation over its voxels.
        least_hu: smallest value.
        most_hu: largest value.
    """

    mean_hu: float
    sd_hu: float
    least_hu: float
    most_hu: float


@dataclass(frozen=True)
class Organ:
    """One label in figures.

    Attributes:
        label: which.
        voxels: how many it has.
        visible_ml: volume of what the scan shows of it.
        density: None where the label is absent.
        centroid: mean index (z, y, x), or None.
        box: smallest box around it, or None.
        extent_mm: size of the box along (z, y, x).
        cut_by: the sides of the scan at which it may go on.
    """

    label: Label
    voxels: int
    visible_ml: float
    density: Density | None = None
    centroid: TripleMm | None = None
    box: Box | None = None
    extent_mm: TripleMm | None = None
    cut_by: tuple[Side, ...] = ()

    @property
    def volume_ml(self) -> float | None:
        """Its volume, or None where the scan shows only a part of it."""
        return None if self.cut_by else self.visible_ml


def find_organs(
    volume: Volume, label_map: LabelMap, border_slices: int = BORDER_SLICES
) -> tuple[Organ, ...]:
    """Return every label in figures, in the table's order, absent ones too.

    Args:
        volume: (Z, Y, X) in HU.
        label_map: on the volume's grid.
        border_slices: see :data:`BORDER_SLICES`.
    """
    slices = find_objects(label_map.ids, max_label=LABELS[-1].id)
    found = []
    for label in LABELS:
        where = slices[label.id - 1]
        box = None if where is None else _box(where)
        found.append(_organ(volume, label_map, label, box, border_slices))
    return tuple(found)


def density(hu: npt.NDArray[np.generic]) -> Density:
    """Return the density of voxels that a mask picked, (N,) HU, N > 0."""
    values = hu.astype(np.float64)
    return Density(
        float(values.mean()), float(values.std()), float(values.min()), float(values.max())
    )


def sides_cut(box: Box, shape: Triple, border_slices: int = BORDER_SLICES) -> tuple[Side, ...]:
    """Return the sides of a scan into whose outer slices a box reaches."""
    cut: list[Side] = []
    for start, stop, size, (low, high) in zip(box.start, box.stop, shape, SIDES, strict=True):
        cut += [low] * (start < border_slices) + [high] * (stop > size - border_slices)
    return tuple(cut)


def extent_mm(box: Box, spacing_mm: TripleMm) -> TripleMm:
    """Return the size of a box along (z, y, x)."""
    z, y, x = (n * mm for n, mm in zip(box.shape, spacing_mm, strict=True))
    return z, y, x


def _organ(
    volume: Volume, label_map: LabelMap, label: Label, box: Box | None, border_slices: int
) -> Organ:
    if box is None:
        return Organ(label, 0, 0.0)
    geometry = label_map.geometry
    mask = label_map.ids[box.slices] == label.id
    voxels = int(mask.sum())
    z, y, x = (
        float(index.mean()) + a for index, a in zip(np.nonzero(mask), box.start, strict=True)
    )
    return Organ(
        label=label,
        voxels=voxels,
        visible_ml=voxels * geometry.voxel_ml,
        density=density(volume.hu[box.slices][mask]),
        centroid=(z, y, x),
        box=box,
        extent_mm=extent_mm(box, geometry.spacing_mm),
        cut_by=sides_cut(box, geometry.shape, border_slices),
    )


def _box(slices: tuple[slice, ...]) -> Box:
    z, y, x = slices
    return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
