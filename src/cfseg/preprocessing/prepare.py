"""A CT becomes a network's input, by the plan that trained it, so that it sees what it saw then.

The way back is in :mod:`cfseg.preprocessing.restore`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cfseg.geometry import Geometry, Triple, TripleMm
from cfseg.plan import StagePlan
from cfseg.preprocessing.intensity import clamp, normalize
from cfseg.preprocessing.resample import (
    between_planes,
    plane_matrix,
    resample,
    separate_axis,
    within_planes,
)
from cfseg.volume import Volume

SLAB_PLANES, SLAB_VOXELS = 8, 1 << 19
"""At least so many planes are worked on at a time, and more of small ones up to so many voxels.

That is a few MB, which stay in the cache. With less, threads wait longer for each other than they
work.
"""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Prepared:
    """What a network looks at, and what is needed to find the way back.

    Attributes:
        image: (Z, Y, X) float32 z-scores on the network's grid, axes in the plan's order.
        geometry: grid of the volume that it was made from.
        plan: the plan that it was made after.
    """

    image: torch.Tensor
    geometry: Geometry
    plan: StagePlan

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """The image as a numpy array; of one on the CPU it is the same memory."""
        array: npt.NDArray[np.float32] = self.image.cpu().numpy()
        return array


def prepare(volume: Volume, plan: StagePlan, device: torch.device = CPU) -> Prepared:
    """Normalize and resample a CT for a network (paper 2.1), a few planes at a time.

    Beside the volume only one array exists, as large as the planes resampled within.

    Args:
        volume: (Z, Y, X) in HU; not changed.
        plan: gives the spacing, the intensities, the interpolation and the order of the two.
        device: where the image is wanted, and resampled.
    """
    shape = network_shape(volume.geometry, plan)
    hu = volume.hu.transpose(plan.transpose)
    rule = plan.resampling
    axis = separate_axis(spacing(volume.geometry, plan), plan.spacing_mm, rule)
    if rule.method == "spline" and axis in (1, 2):
        image = resample(_ready(hu, plan, device), shape, rule.order, rule.order_z, axis)
    else:
        image = _by_slabs(hu, shape, plan, axis, device)
    if not rule.normalize_first:
        normalize(image, plan.intensity)
    return Prepared(image, volume.geometry, plan)


def network_shape(geometry: Geometry, plan: StagePlan) -> Triple:
    """Return the shape of a volume on the network's grid, axes in the plan's order.

    Args:
        geometry: grid of the volume.
        plan: gives spacing and order of axes.
    """
    shape = transposed(geometry.shape, plan)
    sizes = zip(spacing(geometry, plan), plan.spacing_mm, shape, strict=True)
    z, y, x = (max(1, round(old / new * voxels)) for old, new, voxels in sizes)
    return z, y, x


def transposed(shape: Triple, plan: StagePlan) -> Triple:
    """Return a volume's shape with its axes in the plan's order."""
    z, y, x = (shape[axis] for axis in plan.transpose)
    return z, y, x


def spacing(geometry: Geometry, plan: StagePlan) -> TripleMm:
    """Return the spacing of a volume's grid, axes in the plan's order."""
    z, y, x = (geometry.spacing_mm[axis] for axis in plan.transpose)
    return z, y, x


def slab_planes(shape: Sequence[int]) -> int:
    """Return how many planes of a (z, y, x) shape are worked on at a time."""
    planes, rows, columns = shape
    return min(planes, max(SLAB_PLANES, SLAB_VOXELS // (rows * columns)))


def _ready(hu: npt.NDArray[Any], plan: StagePlan, device: torch.device) -> torch.Tensor:
    """Return HU as a float32 tensor of its own, clamped and, if the plan says so, normalized."""
    raw = torch.from_numpy(np.array(hu, order="C"))
    if device.type == "cuda":
        raw = raw.pin_memory().to(device, non_blocking=True)
    image = raw.to(torch.float32)
    clamp(image, plan.intensity)
    if plan.resampling.normalize_first:
        normalize(image, plan.intensity)
    return image


def _by_slabs(
    hu: npt.NDArray[Any], shape: Triple, plan: StagePlan, axis: int | None, device: torch.device
) -> torch.Tensor:
    """Resample within the planes, slab by slab, then between them, in place."""
    rule, count = plan.resampling, hu.shape[0]
    corners = rule.method == "trilinear"
    order = 1 if corners else rule.order
    image = torch.empty((max(count, shape[0]), *shape[1:]), device=device)
    lowest, highest = [], []
    some = slab_planes(hu.shape)
    for start in range(0, count, some):
        slab = _ready(hu[start : start + some], plan, device)
        planes = image[start : start + len(slab)]
        planes.copy_(within_planes(slab, shape[1:], order, corners))
        if order > 1:
            lowest.append(slab.amin(dim=(1, 2), keepdim=True))
            highest.append(slab.amax(dim=(1, 2), keepdim=True))
            if axis == 0:  # each plane keeps its own range, as in nnU-Net
                planes.clamp_(lowest[-1], highest[-1])
    matrix = plane_matrix(shape[0], count, rule, axis)
    image = between_planes(image, matrix)
    if order > 1 and axis is None:
        image.clamp_(torch.cat(lowest).min(), torch.cat(highest).max())
    return image
