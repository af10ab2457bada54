"""A CT becomes a network's input, the network's logits become a label map on the CT's grid.

Both follow the plan that trained the network, so that it sees at test time what it saw then.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from cfseg.geometry import Geometry, Triple, TripleMm
from cfseg.plan import Resampling, StagePlan
from cfseg.preprocessing.intensity import clamp, normalize
from cfseg.preprocessing.resample import (
    axis_matrix,
    corner_matrix,
    resample,
    resample_corners,
    separate_axis,
)
from cfseg.volume import LabelMap, Volume

SLAB = 8
"""Planes that come back from the network's grid at a time: a few MB, which stay in the cache."""


@dataclass(frozen=True)
class Prepared:
    """What a network looks at, and what is needed to find the way back.

    Attributes:
        array: (Z, Y, X) float32 z-scores on the network's grid, axes in the plan's order.
        geometry: grid of the volume that it was made from.
        plan: the plan that it was made after.
    """

    array: npt.NDArray[np.float32]
    geometry: Geometry
    plan: StagePlan


def prepare(volume: Volume, plan: StagePlan) -> Prepared:
    """Normalize and resample a CT for a network (paper 2.1).

    Args:
        volume: (Z, Y, X) in HU; not changed.
        plan: gives the spacing, the intensities, the interpolation and the order of the two.
    """
    hu = volume.hu.transpose(plan.transpose)
    array = np.array(hu, dtype=np.float32, order="C")  # always a copy: it is changed in place
    clamp(array, plan.intensity)
    if plan.resampling.normalize_first:
        normalize(array, plan.intensity)
    array = _to_network_grid(array, volume.geometry, plan)
    if not plan.resampling.normalize_first:
        normalize(array, plan.intensity)
    return Prepared(array, volume.geometry, plan)


def network_shape(geometry: Geometry, plan: StagePlan) -> Triple:
    """Return the shape of a volume on the network's grid, axes in the plan's order.

    Args:
        geometry: grid of the volume.
        plan: gives spacing and order of axes.
    """
    shape = _transposed(geometry.shape, plan)
    sizes = zip(_spacing(geometry, plan), plan.spacing_mm, shape, strict=True)
    z, y, x = (max(1, round(old / new * voxels)) for old, new, voxels in sizes)
    return z, y, x


def restore_labels(logits: torch.Tensor | npt.NDArray[np.float32], prepared: Prepared) -> LabelMap:
    """Bring logits back to the volume's grid and take the best class of each voxel.

    Classes are compared one by one in slabs of a few planes, so memory stays at about that of the
    logits themselves.

    Args:
        logits: (C, Z, Y, X) on the network's grid.
        prepared: what the logits were computed from.

    Returns:
        FLARE labels on the grid of the volume.

    Raises:
        ValueError: the logits do not lie on the grid of ``prepared``.
    """
    plan = prepared.plan
    expected = (len(plan.labels), *prepared.array.shape)
    if tuple(logits.shape) != expected:
        raise ValueError(f"logits of shape {tuple(logits.shape)}, expected {expected}")
    shape = _transposed(prepared.geometry.shape, plan)
    ids = np.empty(shape, dtype=np.uint8)
    with torch.inference_mode():
        classes = torch.as_tensor(logits, dtype=torch.float32)
        for planes, candidates in _resampled(classes, shape, prepared):
            ids[planes] = _winners(candidates, plan.labels).cpu().numpy()
    back = np.argsort(plan.transpose)
    return LabelMap(np.ascontiguousarray(ids.transpose(back)), prepared.geometry)


def _to_network_grid(
    array: npt.NDArray[np.float32], geometry: Geometry, plan: StagePlan
) -> npt.NDArray[np.float32]:
    rule = plan.resampling
    shape = network_shape(geometry, plan)
    image = torch.from_numpy(array)
    if rule.method == "trilinear":
        return resample_corners(image, shape).numpy()
    axis = separate_axis(_spacing(geometry, plan), plan.spacing_mm, rule)
    return resample(image, shape, rule.order, rule.order_z, axis).numpy()


def _resampled(
    logits: torch.Tensor, shape: Triple, prepared: Prepared
) -> Iterator[tuple[slice, Iterator[torch.Tensor]]]:
    """Yield ranges of planes on the volume's grid with each class's logits on them."""
    plan = prepared.plan
    rule = plan.resampling
    axis = separate_axis(plan.spacing_mm, _spacing(prepared.geometry, plan), rule)
    if rule.method == "trilinear":
        yield from _linear_slabs(logits, shape, corner_matrix(shape[0], logits.shape[1]), True)
    elif rule.logits_order == 1 and axis in (None, 0):
        order_z = _order_of_planes(rule, axis)
        yield from _linear_slabs(
            logits, shape, axis_matrix(shape[0], logits.shape[1], order_z), False
        )
    else:
        order, order_z = rule.logits_order, rule.logits_order_z
        whole = (resample(c.contiguous(), shape, order, order_z, axis) for c in logits)
        yield slice(0, shape[0]), whole


def _order_of_planes(rule: Resampling, axis: int | None) -> int:
    return rule.logits_order_z if axis == 0 else rule.logits_order


def _linear_slabs(
    logits: torch.Tensor, shape: Triple, between_planes: torch.Tensor, corners: bool
) -> Iterator[tuple[slice, Iterator[torch.Tensor]]]:
    """Interpolate linearly within planes and by a matrix (n_out, n_in) between them."""
    matrix = between_planes.to(logits.device)
    for start in range(0, shape[0], SLAB):
        planes = slice(start, min(start + SLAB, shape[0]))
        used = matrix[planes].any(dim=0).nonzero()
        below, above = int(used.min()), int(used.max()) + 1
        weights = matrix[planes, below:above]
        yield planes, (_slab(c[below:above], weights, shape, corners) for c in logits)


def _slab(
    source: torch.Tensor, weights: torch.Tensor, shape: Triple, corners: bool
) -> torch.Tensor:
    """Return (planes, Y, X) on the volume's grid from the planes of the network's that it needs."""
    planes = (weights @ source.flatten(1)).view(-1, *source.shape[1:])
    if tuple(planes.shape[1:]) == shape[1:]:
        return planes
    return F.interpolate(planes[None], size=shape[1:], mode="bilinear", align_corners=corners)[0]


def _winners(candidates: Iterator[torch.Tensor], labels: tuple[int, ...]) -> torch.Tensor:
    """Return the label of the class with the largest logit; the first of equals, as argmax."""
    best = next(candidates).clone()
    ids = torch.full(best.shape, labels[0], dtype=torch.uint8, device=best.device)
    for label, logit in zip(labels[1:], candidates, strict=True):
        ids.masked_fill_(logit > best, label)
        torch.maximum(best, logit, out=best)
    return ids


def _transposed(shape: Triple, plan: StagePlan) -> Triple:
    z, y, x = (shape[axis] for axis in plan.transpose)
    return z, y, x


def _spacing(geometry: Geometry, plan: StagePlan) -> TripleMm:
    """Return the spacing of a volume's grid, axes in the plan's order."""
    z, y, x = (geometry.spacing_mm[axis] for axis in plan.transpose)
    return z, y, x
