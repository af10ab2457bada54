"""The longest diameter of a lesion on an axial slice and the diameter across it, in mm.

Both are measured as with calipers on the convex hull of the lesion's outline. The outline runs
through the middle between a voxel inside and its neighbor outside, so a row of n voxels is n
voxels long.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

_Mask = npt.NDArray[np.bool_]
_Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Diameters:
    """Two diameters on one axial slice.

    Attributes:
        longest_mm: greatest distance of two points of the outline.
        perpendicular_mm: longest chord at a right angle to it.
        slice: index z of the slice.
        ends: (y, x) of both ends of the longest, in voxels.
    """

    longest_mm: float
    perpendicular_mm: float
    slice: int
    ends: tuple[tuple[float, float], tuple[float, float]]


def axial_diameters(mask: _Mask, affine: npt.NDArray[np.float64]) -> Diameters:
    """Return the diameters on the axial slice that shows the longest.

    Args:
        mask: (Z, Y, X), not empty.
        affine: (4, 4) from indices (z, y, x) to mm; only its in-plane axes count, which may be
            oblique and of unequal length.

    Raises:
        ValueError: the mask is empty.
    """
    to_mm = _in_plane(affine)
    best: Diameters | None = None
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        outline = _outline(mask[z])
        found = _calipers(outline, to_mm, int(z))
        if best is None or found.longest_mm > best.longest_mm:
            best = found
    if best is None:
        raise ValueError("an empty mask has no diameter")
    return best


def _in_plane(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the (2, 2) matrix from (y, x) in voxels to a plane with right angles, in mm."""
    upper: npt.NDArray[np.float64] = np.linalg.qr(affine[:3, 1:3]).R
    return upper


def _outline(mask: _Mask) -> _Points:
    """Return the middles of the edges between inside and outside, (N, 2) as (y, x)."""
    padded = np.pad(mask, 1)
    rows = np.argwhere(padded[1:] != padded[:-1]) - (0.5, 1.0)
    columns = np.argwhere(padded[:, 1:] != padded[:, :-1]) - (1.0, 0.5)
    return np.concatenate([rows, columns])


def _calipers(outline: _Points, to_mm: npt.NDArray[np.float64], z: int) -> Diameters:
    corners = outline[ConvexHull(outline).vertices]
    points = corners @ to_mm.T
    apart = squareform(pdist(points))
    first, last = np.unravel_index(int(apart.argmax()), apart.shape)
    longest = float(apart[first, last])
    along = (points[last] - points[first]) / longest
    (y0, x0), (y1, x1) = corners[first].tolist(), corners[last].tolist()
    across = _longest_chord(points - points[first], along)
    return Diameters(longest, across, z, ((y0, x0), (y1, x1)))


def _longest_chord(points: _Points, along: _Points) -> float:
    """Return the longest chord of a convex polygon at a right angle to ``along``.

    The chord's length is piecewise linear between corners, so it is longest at one of them.
    """
    t, s = points @ along, points @ np.array([-along[1], along[0]])
    order = np.argsort(t, kind="stable")
    t, s = t[order], s[order]
    # Both ends of the longest diameter lie on s = 0 and belong to either half.
    ends = np.zeros(t.size, dtype=np.bool_)
    ends[[0, -1]] = True
    upper = np.interp(t, t[ends | (s > 0)], np.where(ends, 0, s)[ends | (s > 0)])
    lower = np.interp(t, t[ends | (s < 0)], np.where(ends, 0, s)[ends | (s < 0)])
    return float((upper - lower).max())
