"""Resampling as nnU-Net does it, by one matrix per axis.

nnU-Net resamples with ``skimage.transform.resize(mode="edge", anti_aliasing=False)``, which is a
linear operator on each axis in turn and then a clip to the input's range. The operator of an axis
is read off by resampling unit vectors; applying it as a matrix product gives the same numbers
about ten times faster.
"""

from functools import lru_cache
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from scipy.ndimage import zoom

from cfseg.geometry import Triple, TripleMm
from cfseg.plan import Resampling

Order = Literal[0, 1, 2, 3, 4, 5]
COLUMNS = 1 << 14
"""Voxels of a plane that are resampled between the planes at a time."""


@lru_cache(maxsize=32)
def axis_matrix(n_out: int, n_in: int, order: int) -> torch.Tensor:
    """Return the operator that resamples one axis, voxel edges aligned.

    Args:
        n_out: length after.
        n_in: length before.
        order: of the spline; 0 takes the nearest voxel, 1 is linear.

    Returns:
        (n_out, n_in) float32. Callers share it: do not change it.
    """
    unit_vectors = np.eye(n_in)
    size = (n_out / n_in, 1.0)
    degree = cast(Order, order)
    matrix = zoom(unit_vectors, size, order=degree, mode="nearest", grid_mode=True)
    return torch.from_numpy(matrix.astype(np.float32))


@lru_cache(maxsize=32)
def corner_matrix(n_out: int, n_in: int) -> torch.Tensor:
    """Return the linear operator with the centers of the corner voxels aligned, (n_out, n_in)."""
    unit_vectors = torch.eye(n_in)[None]
    return F.interpolate(unit_vectors, size=n_out, mode="linear", align_corners=True)[0].T


def separate_axis(current_mm: TripleMm, new_mm: TripleMm, rule: Resampling) -> int | None:
    """Return the axis that is to be resampled apart from the other two, or None.

    It is the one axis with the largest spacing, of the current grid if that is anisotropic, else
    of the new one. Two axes that are equally coarse are not treated apart.

    Args:
        current_mm: spacing before.
        new_mm: spacing after.
        rule: the plan's switch and threshold.
    """
    if rule.separate_z is None:
        anisotropic = [s for s in (current_mm, new_mm) if _is_anisotropic(s, rule)]
        if not anisotropic:
            return None
        return _coarse_axis(anisotropic[0])
    return _coarse_axis(current_mm) if rule.separate_z else None


def _is_anisotropic(spacing_mm: TripleMm, rule: Resampling) -> bool:
    return max(spacing_mm) / min(spacing_mm) > rule.anisotropy_threshold


def _coarse_axis(spacing_mm: TripleMm) -> int | None:
    # The tolerance is for spacings computed from an affine, which differ in the last digits.
    coarse = np.flatnonzero(np.isclose(spacing_mm, max(spacing_mm), rtol=1e-6, atol=0.0))
    return int(coarse[0]) if coarse.size == 1 else None


def resample(
    image: torch.Tensor, shape: Triple, order: int, order_z: int = 0, axis: int | None = None
) -> torch.Tensor:
    """Return the image on a grid of another shape over the same extent.

    Args:
        image: (Z, Y, X) float32, contiguous. Returned itself if it has that shape already.
        shape: (z, y, x) wanted.
        order: of the spline.
        order_z: of the spline along ``axis``.
        axis: the one that :func:`separate_axis` found.

    Returns:
        (Z, Y, X) float32. Splines overshoot: the result is clipped to the range of the input, or
        of each slice across ``axis``.
    """
    if tuple(image.shape) == shape:
        return image
    # Axes that shrink go first: what follows has less to do.
    in_order = sorted(
        (a for a in range(3) if a != axis), key=lambda a: (shape[a] / image.shape[a], -a)
    )
    result = image
    for each in in_order:
        result = along(result, each, shape[each], order)
    if order > 1 and result is not image:
        lower = image.amin(dim=in_order, keepdim=True)
        result = result.clamp_(lower, image.amax(dim=in_order, keepdim=True))
    return result if axis is None else along(result, axis, shape[axis], order_z)


def plane_matrix(n_out: int, n_in: int, rule: Resampling, axis: int | None) -> torch.Tensor:
    """Return the operator between the planes of an image, (n_out, n_in).

    Args:
        n_out: planes after.
        n_in: planes before.
        rule: of the plan.
        axis: the one that :func:`separate_axis` found.
    """
    if rule.method == "trilinear":
        return corner_matrix(n_out, n_in)
    return axis_matrix(n_out, n_in, rule.order_z if axis == 0 else rule.order)


def within_planes(
    planes: torch.Tensor, shape: tuple[int, int], order: int, corners: bool = False
) -> torch.Tensor:
    """Return planes (n, Y, X) resampled to a shape (y, x), each by itself; not clipped.

    Args:
        planes: float32. Returned themselves if they have that shape already.
        shape: wanted.
        order: of the spline.
        corners: the centers of the corner voxels are aligned, not the edges; order 1 only.
    """
    if tuple(planes.shape[1:]) == shape:
        return planes
    if corners:
        return F.interpolate(planes[None], size=shape, mode="bilinear", align_corners=True)[0]
    # Axes that shrink go first: what follows has less to do.
    for axis in sorted((1, 2), key=lambda a: (shape[a - 1] / planes.shape[a], -a)):
        planes = along(planes, axis, shape[axis - 1], order)
    return planes


def between_planes(image: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Resample between planes, in place, some columns of voxels at a time; not clipped.

    Args:
        image: (n, Y, X) float32 with room for the planes before and after, whichever are more.
        matrix: (after, before).

    Returns:
        The planes after, a view of ``image``.
    """
    after, before = matrix.shape
    if after != before or not torch.equal(matrix, torch.eye(after)):
        columns = image.flatten(1)
        matrix = matrix.to(image.device)
        for some in torch.split(columns, COLUMNS, dim=1):
            some[:after] = matrix @ some[:before]
    return image[:after]


def along(image: torch.Tensor, axis: int, length: int, order: int) -> torch.Tensor:
    """Return (Z, Y, X) with one axis resampled to a length, by splines; not clipped."""
    if image.shape[axis] == length:
        return image
    matrix = axis_matrix(length, image.shape[axis], order).to(image.device)
    if axis == 2:
        return image @ matrix.T
    if axis == 0:
        return (matrix @ image.flatten(1)).view(length, *image.shape[1:])
    return torch.bmm(matrix.expand(len(image), -1, -1), image)
