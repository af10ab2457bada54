"""One connected component per organ (paper 2.3); tumors may be many, and small ones dropped."""

import numpy as np
import numpy.typing as npt

from cfseg.components import Component, components, keep_largest
from cfseg.geometry import Box, TripleMm
from cfseg.inference.merge import Ids
from cfseg.recipes.recipe import Clean


def clean_organs(ids: Ids, spacing_mm: TripleMm, clean: Clean) -> Ids:
    """Return the label map with one component left of each organ in ``clean.labels``.

    Args:
        ids: (Z, Y, X) label map.
        spacing_mm: (z, y, x), for the distances of the ``centroid`` rule.
        clean: which organs, by which rule.
    """
    if clean.rule == "largest":
        return keep_largest(ids, clean.labels)
    return _keep_central(ids, np.asarray(spacing_mm), clean)


def drop_small_tumors(
    tumor: npt.NDArray[np.bool_], voxel_ml: float, clean: Clean
) -> npt.NDArray[np.bool_]:
    """Return the mask without tumors of less than ``clean.min_tumor_ml`` (not in the paper).

    Args:
        tumor: (Z, Y, X) mask; each connected component is a tumor.
        voxel_ml: volume of one voxel.
        clean: with the limit; at 0 the mask itself comes back.
    """
    box = Box.around(tumor) if clean.min_tumor_ml else None
    if box is None:
        return tumor
    parts, found = components(tumor[box.slices])
    stays = np.array([False, *(part.voxels * voxel_ml >= clean.min_tumor_ml for part in found)])
    kept = np.zeros_like(tumor)
    kept[box.slices] = stays[parts]
    return kept


def _keep_central(ids: Ids, spacing_mm: np.ndarray, clean: Clean) -> Ids:
    """Keep the component with the greatest ``voxels / (1 + distance / centroid_mm)``."""
    organs = np.isin(ids, clean.labels)
    if not organs.any():
        return ids
    centre = np.array([axis.mean() for axis in np.nonzero(organs)])
    cleaned = ids.copy()
    for label in clean.labels:
        parts, found = components(ids == label)
        if len(found) > 1:
            best = max(found, key=lambda part: _score(part, centre, spacing_mm, clean.centroid_mm))
            cleaned[(parts > 0) & (parts != best.label)] = 0
    return cleaned


def _score(
    part: Component, centre: np.ndarray, spacing_mm: np.ndarray, centroid_mm: float
) -> float:
    distance_mm = float(np.linalg.norm((np.asarray(part.centroid) - centre) * spacing_mm))
    return part.voxels / (1 + distance_mm / centroid_mm)
