"""Masks of several models become one (paper 2.2, "Inference process")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cfseg.labels import TUMOR

Ids = npt.NDArray[np.uint8]


def union_of_tumors(maps: Sequence[Ids]) -> npt.NDArray[np.bool_]:
    """Return where any of the label maps (Z, Y, X) says tumor."""
    union: npt.NDArray[np.bool_] = np.logical_or.reduce([ids == TUMOR.id for ids in maps])
    return union


def organs_of(ids: Ids) -> Ids:
    """Return the label map without its tumors: those voxels become background."""
    return np.where(ids == TUMOR.id, np.uint8(0), ids)


def tumor_over_organs(organs: Ids, tumor: npt.NDArray[np.bool_]) -> Ids:
    """Return the organs with tumor painted over them: tumor, then organ, then background."""
    merged: Ids = organs.copy()
    merged[tumor] = TUMOR.id
    return merged
