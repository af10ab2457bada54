"""One connected component per organ (paper 2.3); tumors may be many, and small ones dropped."""

import numpy as np
import numpy.typing as npt

from cfseg.components import components, keep_best, keep_largest
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

    def score(
        voxels: npt.NDArray[np.float64], offsets: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        distance_mm: npt.NDArray[np.float64] = np.linalg.norm(offsets * spacing_mm, axis=1)
        return voxels / (1 + distance_mm / clean.centroid_mm)

    return keep_best(ids, clean.labels, score)


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
