"""One connected component per organ (paper 2.3). Tumors may be many and are left alone."""

import numpy as np

from cfseg.components import Component, components, keep_largest
from cfseg.geometry import TripleMm
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
