"""Overlap of two masks: the Dice coefficient and the normalized surface distance."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from cfseg.evaluation.surfels import CORNERS, surfel_areas
from cfseg.geometry import Box, TripleMm

_Mask = npt.NDArray[np.bool_]


def dice(pred: _Mask, ref: _Mask) -> float:
    """Return ``2 |pred & ref| / (|pred| + |ref|)``; NaN where both masks are empty."""
    total = int(np.count_nonzero(pred)) + int(np.count_nonzero(ref))
    if total == 0:
        return float("nan")
    return 2 * int(np.count_nonzero(pred & ref)) / total


def surface_dice(pred: _Mask, ref: _Mask, spacing_mm: TripleMm, tolerance_mm: float) -> float:
    """Return the normalized surface distance (NSD): the share of both surfaces that agrees.

    A surface is cut into elements between voxel centers, each weighted by its area. An element
    agrees if an element of the other surface lies within the tolerance, which counts as within.
    Figures equal those of the official FLARE evaluation (see :mod:`cfseg.evaluation.surfels`).

    Args:
        pred: (A, B, C) mask.
        ref: (A, B, C) mask; swapping both gives the same.
        spacing_mm: along the three axes of the arrays, whatever they are.
        tolerance_mm: greatest distance at which surfaces agree.

    Returns:
        0..1; NaN where both masks are empty, 0 where one of them is.
    """
    box = Box.around(pred | ref)
    if box is None:
        return float("nan")
    areas_mm2 = surfel_areas(spacing_mm)
    one, other = (_codes(mask[box.slices]) for mask in (pred, ref))
    agreeing_mm2 = total_mm2 = 0.0
    for codes, others in ((one, other), (other, one)):
        here = _border(codes)
        elements_mm2 = areas_mm2[codes[here]]
        near = _near(_border(others), spacing_mm, tolerance_mm)[here]
        agreeing_mm2 += float(elements_mm2[near].sum())
        total_mm2 += float(elements_mm2.sum())
    return agreeing_mm2 / total_mm2


def _codes(mask: _Mask) -> npt.NDArray[np.uint8]:
    """Return for each cube of 2x2x2 voxels which are set, (A + 1, B + 1, C + 1) uint8.

    Voxels beyond the array count as not set.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    a, b, c = (n + 1 for n in mask.shape)
    codes = np.zeros((a, b, c), dtype=np.uint8)
    for bit, (i, j, k) in enumerate(CORNERS):
        codes |= padded[i : i + a, j : j + b, k : k + c] << bit
    return codes


def _border(codes: npt.NDArray[np.uint8]) -> _Mask:
    return np.asarray((codes != 0) & (codes != 255))


def _near(border: _Mask, spacing_mm: TripleMm, tolerance_mm: float) -> _Mask:
    """Return where an element of ``border`` lies within the tolerance."""
    if not border.any():
        return border
    # SciPy's transform, with the axes as they come: distances that tie with the tolerance fall on
    # the same side as in the official script.
    distance_mm = distance_transform_edt(~border, sampling=spacing_mm)
    return np.asarray(distance_mm <= tolerance_mm)
