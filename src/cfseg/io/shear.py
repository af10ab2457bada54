"""Sheared grids, as a tilted gantry makes them: to an orthogonal grid, and back.

Where rows and columns of the axial slices are at a right angle they stay, so nothing is
interpolated along their normal; it becomes the third axis, and the distance between the slices its
spacing.
Otherwise the two axes that are closest to a right angle stay.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform

from cfseg.geometry import Geometry, Triple

_Affine = npt.NDArray[np.float64]
_ON_GRID = 1e-6
_RIGHT = 1e-4
_PAIRS = ((1, 2), (0, 2), (0, 1))


def angle_error(affine: _Affine) -> float:
    """Return the largest cosine between two of the axes: 0 at right angles.

    Args:
        affine: (4, 4), index to mm.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def orthogonal_grid(affine: _Affine, shape: Triple) -> tuple[Geometry, _Affine]:
    """Return an orthogonal grid that covers a sheared one.

    Args:
        affine: (4, 4), index (z, y, x, 1) on the sheared grid to mm.
        shape: of the sheared grid.

    Returns:
        The grid, and the (4, 4) matrix from an index on it to one on the sheared grid.
    """
    straight = np.eye(4)
    straight[:3, :3] = _right_angles(affine[:3, :3])
    straight[:3, 3] = affine[:3, 3]
    corners = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)])
    corners[:, :3] *= np.asarray(shape) - 1
    there = (np.linalg.inv(straight) @ affine @ corners.T)[:3]
    low = np.floor(there.min(axis=1) + _ON_GRID)
    high = np.ceil(there.max(axis=1) - _ON_GRID)
    straight[:3, 3] += straight[:3, :3] @ low
    z, y, x = (int(n) + 1 for n in high - low)
    return Geometry((z, y, x), straight), np.linalg.inv(affine) @ straight


def _right_angles(axes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (3, 3) orthogonal columns near ``axes`` that span the same volume."""
    units = axes / np.linalg.norm(axes, axis=0)
    cosines = {pair: abs(float(units[:, pair[0]] @ units[:, pair[1]])) for pair in _PAIRS}
    a, b = _PAIRS[0] if cosines[_PAIRS[0]] <= _RIGHT else min(_PAIRS, key=cosines.__getitem__)
    c = 3 - a - b
    made = np.empty((3, 3))
    made[:, a] = axes[:, a]
    made[:, b] = axes[:, b] - (axes[:, b] @ units[:, a]) * units[:, a]
    normal = np.cross(made[:, a], made[:, b])
    normal /= np.linalg.norm(normal)
    made[:, c] = (axes[:, c] @ normal) * normal
    return made


def resample(
    values: npt.NDArray[Any], matrix: _Affine, shape: Triple, order: Literal[0, 1], outside: float
) -> npt.NDArray[Any]:
    """Return ``values`` on another grid.

    Args:
        values: (Z, Y, X).
        matrix: (4, 4), index on the other grid to index of ``values``.
        shape: of the other grid.
        order: 0 takes the nearest voxel, 1 is linear.
        outside: where ``values`` does not reach.
    """
    found: npt.NDArray[Any] = affine_transform(
        values,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=shape,
        output=values.dtype,
        order=order,
        mode="grid-constant",  # "constant" would lose the last slice to a rounding error
        cval=outside,
    )
    return found
