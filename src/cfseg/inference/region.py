"""From the coarse mask to the abdominal region (paper 2.2, "Inference process")."""

import numpy as np
import numpy.typing as npt

from cfseg.components import components, largest_component
from cfseg.geometry import Box, TripleMm
from cfseg.labels import by_name
from cfseg.recipes.recipe import Region
from cfseg.volume import LabelMap

LIVER_ID = by_name("liver").id


def abdominal_region(coarse: LabelMap, body: Box, region: Region) -> tuple[Box | None, list[str]]:
    """Return the box that the fine stages look at, and what there is to note about it.

    Args:
        coarse: the coarse model's label map, on the grid that ``body`` indexes.
        body: the patient's box, taken where the coarse mask is implausible.
        region: the rule.

    Returns:
        The box, or None when the coarse model found no organ; and notes.
    """
    mask = (coarse.ids > 0) & (coarse.ids <= 13) & ~np.isin(coarse.ids, region.ignore)
    if region.centroid_mm is not None:
        mask = near_liver(mask, coarse, region.centroid_mm)
    box = Box.around(mask)
    if box is None:
        return None, ["no_abdomen: the coarse model found no organ"]
    organs_ml = float(np.count_nonzero(mask)) * coarse.geometry.voxel_ml
    body_ml = float(np.prod(body.shape)) * coarse.geometry.voxel_ml
    if organs_ml < region.min_organs_ml:
        return body, [f"region_implausible: organs of {organs_ml:.0f} ml, the body is used"]
    if organs_ml > region.max_body_fraction * body_ml:
        return body, [f"region_implausible: {organs_ml / body_ml:.0%} of the body, which is used"]
    return box.grow(coarse.geometry.margin_voxels(region.margin_mm), coarse.geometry.shape), []


def near_liver(
    mask: npt.NDArray[np.bool_], coarse: LabelMap, centroid_mm: TripleMm
) -> npt.NDArray[np.bool_]:
    """Drop the parts of ``mask`` whose centroid is far from the liver's.

    Far means outside the ellipsoid with these semi-axes (z, y, x). As in the authors' code, the
    parts are components of the whole foreground, and nothing is dropped without a liver.
    """
    liver = coarse.ids == LIVER_ID
    if not liver.any():
        return mask
    (trunk,) = components(largest_component(liver))[1]
    radii = np.asarray(centroid_mm) / np.asarray(coarse.geometry.spacing_mm)
    parts, found = components(mask)
    kept = [
        part.label
        for part in found
        if np.linalg.norm((np.subtract(part.centroid, trunk.centroid)) / radii) <= 1
    ]
    return mask & np.isin(parts, kept)


def cut_sides(ids: npt.NDArray[np.uint8], region: Box, body: Box) -> Box | None:
    """Return the region grown towards every side where the mask was cut, or None if none was.

    A side counts as cut when the fine mask touches it although the body goes on behind it. It
    grows by half of the region's extent, within the body.

    Args:
        ids: (Z, Y, X) fine labels on the region's grid.
        region: their box.
        body: the box within which the region may grow.
    """
    start, stop = list(region.start), list(region.stop)
    for axis in range(3):
        faces = np.moveaxis(ids, axis, 0)
        reach = max(1, region.shape[axis] // 2)
        if start[axis] > body.start[axis] and faces[0].any():
            start[axis] = max(body.start[axis], start[axis] - reach)
        if stop[axis] < body.stop[axis] and faces[-1].any():
            stop[axis] = min(body.stop[axis], stop[axis] + reach)
    grown = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return None if grown == region else grown
