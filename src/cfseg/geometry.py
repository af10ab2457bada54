"""Where voxels lie: boxes in index space, grids in millimetres.

All arrays are (z, y, x), all triples too. z grows towards the head, y towards the back and x
towards the patient's left (LPS, as ITK and nnU-Net read an ordinary axial CT), to the nearest
axis; an oblique scan keeps its remaining rotation in :attr:`Geometry.affine`.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Triple = tuple[int, int, int]
TripleMm = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, ``start <= index < stop`` on each of (z, y, x)."""

    start: Triple
    stop: Triple

    @classmethod
    def whole(cls, shape: Triple) -> Self:
        """Return the box of a whole array of this shape."""
        return cls((0, 0, 0), shape)

    @classmethod
    def around(cls, mask: npt.NDArray[np.bool_]) -> "Box | None":
        """Return the smallest box that holds all true voxels, or None if there are none."""
        start, stop = [], []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            hits = np.flatnonzero(mask.any(axis=others))
            if hits.size == 0:
                return None
            start.append(int(hits[0]))
            stop.append(int(hits[-1]) + 1)
        return cls((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    @property
    def shape(self) -> Triple:
        """Number of voxels along (z, y, x)."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grow(self, margin: Triple, shape: Triple) -> "Box":
        """Return the box grown by ``margin`` voxels on every side, clipped to ``shape``."""
        start = tuple(max(0, a - m) for a, m in zip(self.start, margin, strict=True))
        stop = tuple(min(n, b + m) for b, m, n in zip(self.stop, margin, shape, strict=True))
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def shifted(self, offset: Triple) -> "Box":
        """Return the box moved by ``offset`` voxels: from a crop's frame to its parent's."""
        start = tuple(a + o for a, o in zip(self.start, offset, strict=True))
        stop = tuple(b + o for b, o in zip(self.stop, offset, strict=True))
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume or label map.

    Attributes:
        shape: voxels along (z, y, x).
        affine: (4, 4), maps an index (z, y, x, 1) to millimetres (z, y, x, 1), where z is up,
            y back and x left. Its diagonal is positive for the axis-aligned part.
    """

    shape: Triple
    affine: npt.NDArray[np.float64]

    @classmethod
    def from_spacing(cls, shape: Triple, spacing_mm: TripleMm) -> Self:
        """Return an axis-aligned grid with its origin at zero."""
        return cls(shape, np.diag([*spacing_mm, 1.0]))

    @property
    def spacing_mm(self) -> TripleMm:
        """Distance between voxel centres along (z, y, x), in mm."""
        z, y, x = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x

    @property
    def in_words(self) -> str:
        """Shape, spacing and origin, for messages."""
        spacing = ", ".join(f"{mm:.4g}" for mm in self.spacing_mm)
        origin = ", ".join(f"{mm:.2f}" for mm in self.affine[:3, 3])
        return f"shape {self.shape}, spacing ({spacing}) mm, origin ({origin}) mm along (z, y, x)"

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def cropped(self, box: Box) -> "Geometry":
        """Return the grid of the voxels inside ``box``, at the same place in space."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.asarray(box.start, dtype=np.float64)
        return Geometry(box.shape, affine)

    def margin_voxels(self, margin_mm: float) -> Triple:
        """Return how many whole voxels ``margin_mm`` is along each axis, rounded up."""
        z, y, x = (int(np.ceil(margin_mm / s - 1e-6)) for s in self.spacing_mm)
        return z, y, x

    def matches(self, other: "Geometry", tolerance_mm: float = 1e-2) -> bool:
        """Say whether both grids have the same shape and lie at the same place."""
        if self.shape != other.shape:
            return False
        corner = np.array([*self.shape, 1.0])
        apart = np.abs((self.affine - other.affine) @ corner).max()
        rotated = np.abs(self.affine - other.affine)[:3, :3].max() * max(self.shape)
        return bool(max(apart, rotated) <= tolerance_mm)
