"""Connected components: voxels that touch by a face, an edge or a corner (26-connected)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt

from cfseg.geometry import Box, Triple, TripleMm

_Ids = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_Parts = npt.NDArray[np.uint32]
_Floats = npt.NDArray[np.float64]
_CONNECTIVITY: Literal[26] = 26


@dataclass(frozen=True, slots=True)
class Component:
    """One connected component.

    Attributes:
        label: its value in the array of parts, from 1.
        voxels: how many it has.
        box: smallest box around it.
        centroid: mean index (z, y, x).
    """

    label: int
    voxels: int
    box: Box
    centroid: TripleMm


def components(mask: _Mask | _Ids) -> tuple[_Parts, list[Component]]:
    """Return the parts of a mask or, of a label map, the parts of each label.

    Args:
        mask: (Z, Y, X) bool, or uint8 labels: voxels of different labels are never connected.

    Returns:
        An array (Z, Y, X) uint32 of part numbers, 0 is background, and the parts in order.
    """
    parts = _connect(mask)
    if not parts.any():
        return parts, []
    statistics = cc3d.statistics(parts)
    found = zip(
        statistics["voxel_counts"],
        statistics["bounding_boxes"],
        statistics["centroids"],
        strict=True,
    )
    return parts, [
        Component(label, int(voxels), _box(slices), _triple(centroid))
        for label, (voxels, slices, centroid) in enumerate(found)
        if label > 0
    ]


def largest_component(mask: _Mask) -> _Mask:
    """Return the largest part of a mask; of equal ones the first; an empty mask stays empty."""
    return keep_largest(mask.view(np.uint8), (1,)).view(np.bool_)


def keep_largest(ids: _Ids, labels: Sequence[int]) -> _Ids:
    """Return a label map with only the largest part of each of ``labels``; others stay as is.

    Args:
        ids: (Z, Y, X) uint8 label map.
        labels: the labels to clean; of equally large parts the first is kept.
    """
    return keep_best(ids, labels, lambda voxels, _: voxels)


def keep_best(
    ids: _Ids, labels: Sequence[int], score: Callable[[_Floats, _Floats], _Floats]
) -> _Ids:
    """Return a label map with only the best part of each of ``labels``; others stay as is.

    Args:
        ids: (Z, Y, X) uint8 label map.
        labels: the labels to clean; of equally good parts the first is kept.
        score: of all parts, above 0, from their numbers of voxels (N,) and their centroids (N, 3)
            (z, y, x), as indices from the center of all voxels of ``labels``.
    """
    chosen = np.isin(ids, np.asarray(labels, dtype=np.uint8))
    box = Box.around(chosen)
    if box is None:
        return ids.copy()
    cleaned = ids.copy()
    window = cleaned[box.slices]
    parts = _connect(np.where(chosen[box.slices], window, np.uint8(0)))
    statistics = cc3d.statistics(parts, no_slice_conversion=True)
    voxels = statistics["voxel_counts"][1:].astype(np.float64)
    centroids = statistics["centroids"][1:]
    points = np.zeros(voxels.size + 1)  # part 0 is everything that was not asked about
    points[1:] = score(voxels, centroids - np.average(centroids, axis=0, weights=voxels))
    owner = np.zeros(points.size, dtype=np.uint8)
    owner[parts.ravel()] = window.ravel()
    kept = np.zeros(points.size, dtype=np.bool_)
    for label in labels:
        kept[np.argmax(np.where(owner == label, points, 0))] = True
    kept[0] = True
    window[~kept[parts]] = 0
    return cleaned


def _connect(values: _Mask | _Ids) -> _Parts:
    # As bytes: cc3d 4.1.1 raises a RuntimeError for some tiny bool masks, as [[[1, 0, 1]]].
    parts = cc3d.connected_components(
        np.ascontiguousarray(values).view(np.uint8),
        connectivity=_CONNECTIVITY,
        out_dtype=np.uint32,
    )
    return parts.astype(np.uint32, copy=False)


def _box(slices: tuple[slice, slice, slice]) -> Box:
    start: Triple = (int(slices[0].start), int(slices[1].start), int(slices[2].start))
    stop: Triple = (int(slices[0].stop), int(slices[1].stop), int(slices[2].stop))
    return Box(start, stop)


def _triple(values: npt.NDArray[np.float64]) -> TripleMm:
    z, y, x = (float(value) for value in values)
    return z, y, x
