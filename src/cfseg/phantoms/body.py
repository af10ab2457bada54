"""The body around bones and organs: skin, fat under it, the muscular wall, fat inside.

Public label maps name bones and organs and leave the rest open. The rest is drawn from the convex
hull of what is named in each slice, which lies on the ribs, the spine and the pelvis.
"""

import numpy as np
import numpy.typing as npt
from matplotlib.path import Path as Outline
from scipy.ndimage import distance_transform_edt, gaussian_filter1d
from scipy.spatial import ConvexHull, QhullError

from cfseg.labels import ORGAN_IDS
from cfseg.phantoms import tissues as t
from cfseg.phantoms.atlas import Atlas, Ids
from cfseg.phantoms.class_names import UNKNOWN

Mask = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float32]
TRUNK = (*ORGAN_IDS, t.BOWEL, t.COLON, t.BLADDER, t.LUNG, t.HEART)
"""A slice without any of these shows limbs."""
WALL_MM = 7.0
"""Muscle outside of the hull, over the ribs."""
INNER_WALL_MM = 5.0
"""Muscle inside of it, between the ribs."""
FAT_MM = 18.0
"""Between muscle and air."""
_SMOOTH_MM = 9.0
"""Along z, so that the skin has no stairs where a bone begins."""
_FAR_MM = 60.0


def with_body(atlas: Atlas) -> Atlas:
    """Return an atlas whose unknown voxels are muscle, fat or air; wider, so that the skin fits.

    Args:
        atlas: with bones, else the hull says little about the body.
    """
    margin = [0, *(int(np.ceil((WALL_MM + FAT_MM) / mm)) + 2 for mm in atlas.spacing_mm[1:])]
    tissue = np.pad(atlas.tissue, [(n, n) for n in margin], constant_values=UNKNOWN)
    outside_mm = _outside_mm(tissue != UNKNOWN, atlas.spacing_mm)
    unknown = tissue == UNKNOWN
    limbs = ~np.isin(tissue, TRUNK).any(axis=(1, 2))
    for layer, reach_mm in (
        (t.AIR, np.inf),
        (t.SUBCUTANEOUS, WALL_MM + FAT_MM),
        (t.MUSCLE, WALL_MM),
        (t.VISCERAL, -INNER_WALL_MM),
    ):
        tissue[unknown & (outside_mm <= reach_mm)] = layer
    # What bones of a limb leave open is muscle, not the fat of a belly.
    tissue[limbs] = np.where(tissue[limbs] == t.VISCERAL, t.MUSCLE, tissue[limbs])
    return Atlas.of(atlas.name, wrapped(tissue, atlas.spacing_mm), atlas.spacing_mm, atlas.source)


def wrapped(tissue: Ids, spacing_mm: tuple[float, float, float]) -> Ids:
    """Return the tissues with skin, fat and muscle around organs that reached out of the body.

    Args:
        tissue: (Z, Y, X).
        spacing_mm: of the grid.
    """
    organ = (tissue >= 1) & (tissue <= len(ORGAN_IDS))
    if not organ.any():
        return tissue
    away = distance_transform_edt(~organ, sampling=spacing_mm)
    output = tissue.copy()
    output[(away <= WALL_MM + FAT_MM) & np.isin(tissue, (t.AIR, t.TABLE))] = t.SUBCUTANEOUS
    output[(away > 0) & (away <= WALL_MM) & np.isin(output, (t.SUBCUTANEOUS, t.AIR))] = t.MUSCLE
    return output


def _outside_mm(known: Mask, spacing_mm: tuple[float, float, float]) -> Float:
    """Return how far each voxel lies outside of the hull of its slice, mm, negative inside."""
    total = np.zeros(known.shape, dtype=np.float32)
    weight = np.zeros((len(known), 1, 1), dtype=np.float32)
    for plane, found, counts in zip(known, total, weight, strict=True):
        hull = _hull(plane)
        if hull.any():
            depth = distance_transform_edt(~hull, sampling=spacing_mm[1:])
            depth -= distance_transform_edt(hull, sampling=spacing_mm[1:])
            found[...], counts[...] = np.clip(depth, -_FAR_MM, _FAR_MM), 1
    if not weight.any():
        return np.full(known.shape, np.inf, dtype=np.float32)
    sigma = _SMOOTH_MM / spacing_mm[0]
    smooth = gaussian_filter1d(total, sigma, axis=0)
    share = gaussian_filter1d(weight, sigma, axis=0)
    return np.where(share > 1e-3, smooth / np.maximum(share, 1e-3), _FAR_MM).astype(np.float32)


def _hull(plane: Mask) -> Mask:
    """Return the convex hull of a slice, empty if it holds too little to have one."""
    points = np.argwhere(plane)
    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return np.zeros_like(plane)
    grid = np.argwhere(np.ones_like(plane))
    return Outline(corners).contains_points(grid, radius=1e-6).reshape(plane.shape) | plane
