"""Where to look: the voxel of a label map that shows most of what matters."""

import numpy as np
import numpy.typing as npt

from cfseg.components import components
from cfseg.geometry import Box, Geometry, Triple
from cfseg.labels import ORGAN_IDS, TUMOR
from cfseg.volume import LabelMap

CLOSE_UP_MM = 70.0
"""A close-up shows at least so much on every side of its place."""

_Ids = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]


def viewpoint(*label_maps: LabelMap) -> Triple:
    """Return the voxel (z, y, x) that shows most: in the largest tumor, or amid the organs.

    Args:
        label_maps: the first one that is not empty decides.
    """
    for label_map in label_maps:
        place = tumor_center(label_map.ids) or organ_center(label_map.ids)
        if place is not None:
            return place
    z, y, x = label_maps[0].geometry.shape
    return z // 2, y // 2, x // 2


def tumor_center(ids: _Ids) -> Triple | None:
    """Return the middle of the largest tumor, on its largest axial slice."""
    parts, found = components(ids == TUMOR.id)
    if not found:
        return None
    largest = max(found, key=lambda part: part.voxels)
    tumor = parts == largest.label
    return _center(tumor, tumor.sum(axis=(1, 2)))


def organ_center(ids: _Ids) -> Triple | None:
    """Return the middle of the organs on the axial slice that shows most of them."""
    organs = np.isin(ids, ORGAN_IDS)
    if not organs.any():
        return None
    shown = np.array([np.unique(plane[mask]).size for plane, mask in zip(ids, organs, strict=True)])
    return _center(organs, shown)


def inside(mask: _Mask) -> Triple | None:
    """Return a voxel of a mask near its middle, on its largest axial slice; None if it is empty."""
    if not mask.any():
        return None
    z, y, x = _center(mask, mask.sum(axis=(1, 2)))
    rows, columns = np.nonzero(mask[z])
    nearest = int(np.argmin((rows - y) ** 2 + (columns - x) ** 2))
    return z, int(rows[nearest]), int(columns[nearest])


def close_up(place: Triple, geometry: Geometry) -> Box:
    """Return the box that shows ``CLOSE_UP_MM`` on every side of a place."""
    z, y, x = place
    return Box(place, (z + 1, y + 1, x + 1)).grow(
        geometry.margin_voxels(CLOSE_UP_MM), geometry.shape
    )


def _center(mask: _Mask, weights: npt.NDArray[np.integer]) -> Triple:
    """Return the mask's centroid on the slice of greatest weight, the middle one of equals."""
    best = np.flatnonzero(weights == weights.max())
    z = int(best[len(best) // 2])
    y, x = (round(float(axis.mean())) for axis in np.nonzero(mask[z]))
    return z, y, x
