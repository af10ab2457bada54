"""A label map on the network's grid, by nnU-Net's rule for the label maps that it trains with."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import find_objects

from cfseg.plan import StagePlan
from cfseg.preprocessing.prepare import network_shape, spacing
from cfseg.preprocessing.resample import axis_matrix, corner_matrix, separate_axis
from cfseg.volume import LabelMap

Ids = npt.NDArray[np.uint8]
Slices = tuple[slice, ...]
TIE = 1e-6
"""Shares of a voxel that differ by less are the same: rounding must not decide."""


def prepare_labels(labels: LabelMap, plan: StagePlan) -> Ids:
    """Return a label map on the grid of :func:`cfseg.preprocessing.prepare.prepare`.

    Each label is interpolated linearly by itself, and the one with the largest share has the voxel;
    of equals the one that is nearest. An axis that is treated apart takes the nearest plane.

    Args:
        labels: (Z, Y, X); any values, such as that of voxels to be ignored. None is added.
        plan: gives the spacing, the order of axes and the rule.

    Returns:
        (Z, Y, X) uint8, axes in the plan's order.
    """
    ids = np.ascontiguousarray(labels.ids.transpose(plan.transpose))
    shape = network_shape(labels.geometry, plan)
    if plan.resampling.method == "trilinear":
        return _linear(ids, [corner_matrix(*n) for n in zip(shape, ids.shape, strict=True)])
    own = spacing(labels.geometry, plan)
    apart = separate_axis(own, plan.spacing_mm, plan.resampling)
    if apart is not None:
        ids = np.take(ids, _nearest(axis_matrix(shape[apart], ids.shape[apart], 0)), axis=apart)
    return _linear(ids, [axis_matrix(*n, 1) for n in zip(shape, ids.shape, strict=True)])


def _linear(ids: Ids, operators: list[torch.Tensor]) -> Ids:
    """Return labels resampled by one linear operator (after, before) per axis."""
    if ids.shape == tuple(map(len, operators)):
        return ids
    nearest = ids[np.ix_(*map(_nearest, operators))]
    result = np.zeros_like(nearest)
    best = np.zeros(nearest.shape, dtype=np.float32)
    for label, box in _boxes(ids):
        share, there = _share(ids[box] == label, box, operators)
        most, here = best[there], result[there]
        here[(share > most + TIE) | ((share > most - TIE) & (nearest[there] == label))] = label
        np.maximum(most, share, out=most)
    return result


def _nearest(operator: torch.Tensor) -> npt.NDArray[np.int64]:
    """Return of each voxel after the one before that has most part in it."""
    return operator.argmax(dim=1).numpy()


def _boxes(ids: Ids) -> Iterator[tuple[int, Slices]]:
    """Yield each label and the box that it lies in; first the background around them all."""
    found = [(label, box) for label, box in enumerate(find_objects(ids), start=1) if box]
    if not found:
        return
    sides = zip(*(box for _, box in found), strict=True)
    ends = [(min(s.start for s in side), max(s.stop for s in side)) for side in sides]
    yield 0, tuple(slice(max(0, start - 1), stop + 1) for start, stop in ends)
    yield from found


def _share(
    mask: npt.NDArray[np.bool_], box: Slices, operators: list[torch.Tensor]
) -> tuple[npt.NDArray[np.float32], Slices]:
    """Return a label's share of the voxels that it reaches, and where those are.

    Args:
        mask: where the label is within its box.
        box: where that is, before.
        operators: (after, before) of each axis; at most two voxels before have part in one after.
    """
    share, there = torch.from_numpy(mask).to(torch.float32), []
    for axis, (operator, columns) in enumerate(zip(operators, box, strict=True)):
        part = operator[:, columns]
        rows = part.any(dim=1).nonzero()[:, 0]
        # A label between two planes of a coarser grid reaches nothing.
        there.append(slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0))
        weights, places = part[there[-1]].topk(min(2, part.shape[1]), dim=1)
        pieces = [
            share.index_select(axis, place)
            * weight.view([-1 if a == axis else 1 for a in range(3)])
            for place, weight in zip(places.T, weights.T, strict=True)
        ]
        share = pieces[0] if len(pieces) == 1 else pieces[0].add_(pieces[1])
    return share.numpy(), tuple(there)
