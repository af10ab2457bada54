"""How well two masks agree: Dice coefficient, normalized surface distance, Hausdorff distance."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from cfseg.evaluation.surfels import surfel_areas
from cfseg.geometry import Box, TripleMm

_Mask = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]


def dice(pred: _Mask, ref: _Mask) -> float:
    """Return ``2 |pred & ref| / (|pred| + |ref|)``; NaN where both masks are empty."""
    total = int(np.count_nonzero(pred)) + int(np.count_nonzero(ref))
    if total == 0:
        return math.nan
    return 2 * int(np.count_nonzero(pred & ref)) / total


@dataclass(frozen=True)
class Surface:
    """The elements of one surface against another surface.

    A surface is cut into elements between voxel centers, see :mod:`cfseg.evaluation.surfels`.

    Attributes:
        areas_mm2: (N,) of the elements.
        distances_mm: (N,) to the nearest element of the other surface; inf where there is none.
    """

    areas_mm2: _Floats
    distances_mm: _Floats

    def percentile_mm(self, percent: float) -> float:
        """Return the distance within which ``percent`` of the area lies; NaN without elements."""
        if not len(self.areas_mm2):
            return math.nan
        order = np.argsort(self.distances_mm)
        areas_mm2 = self.areas_mm2[order]
        share = np.cumsum(areas_mm2) / np.sum(areas_mm2)
        index = min(int(np.searchsorted(share, percent / 100.0)), len(order) - 1)
        return float(self.distances_mm[order][index])


@dataclass(frozen=True)
class Surfaces:
    """The surfaces of two masks, each against the other."""

    pred: Surface
    ref: Surface

    def agreement(self, tolerance_mm: float) -> float:
        """Return the normalized surface distance (NSD): the share of both areas that agrees.

        An element agrees if one of the other surface lies within the tolerance, which counts as
        within. Figures equal those of the official FLARE evaluation.

        Returns:
            0..1; NaN where both masks are empty, 0 where one of them is.
        """
        agreeing_mm2 = total_mm2 = 0.0
        for surface in (self.pred, self.ref):
            near = surface.distances_mm <= tolerance_mm
            agreeing_mm2 += float(surface.areas_mm2[near].sum())
            total_mm2 += float(surface.areas_mm2.sum())
        return agreeing_mm2 / total_mm2 if total_mm2 else math.nan

    def hausdorff_mm(self, percent: float = 95.0) -> float:
        """Return the greater of both distances within which ``percent`` of a surface's area lies.

        Elements count by their area, as in the package surface-distance.

        Returns:
            NaN where a mask is empty, or no element of either surface counts.
        """
        both = [surface.percentile_mm(percent) for surface in (self.pred, self.ref)]
        there = [mm for mm in both if not math.isnan(mm)]
        return max(there) if there and math.isfinite(max(there)) else math.nan


def surfaces(
    pred: _Mask, ref: _Mask, spacing_mm: TripleMm, unknown: _Mask | None = None
) -> Surfaces:
    """Return the surfaces of two masks and how far they are from one another.

    Args:
        pred: (A, B, C) mask.
        ref: (A, B, C) mask.
        spacing_mm: along the three axes of the arrays, whatever they are.
        unknown: (A, B, C) voxels that nobody annotated; neither mask has one. Where a surface
            touches one, nobody knows where it should lie: such elements do not count, but others
            may be near to them, for the true surface may begin there.
    """
    box = Box.around(pred | ref)
    if box is None:
        nothing = Surface(np.zeros(0), np.zeros(0))
        return Surfaces(nothing, nothing)
    areas_mm2 = surfel_areas(spacing_mm)
    one, other = (_codes(np.pad(mask[box.slices], 1)) for mask in (pred, ref))
    at_one, at_other = _border(one), _border(other)
    counts_one, counts_other = at_one, at_other
    if unknown is not None:
        known = _codes(_with_border(unknown, box)) == 0
        counts_one, counts_other = at_one & known, at_other & known
    return Surfaces(
        Surface(areas_mm2[one[counts_one]], _distances_mm(counts_one, at_other, spacing_mm)),
        Surface(areas_mm2[other[counts_other]], _distances_mm(counts_other, at_one, spacing_mm)),
    )


def surface_dice(pred: _Mask, ref: _Mask, spacing_mm: TripleMm, tolerance_mm: float) -> float:
    """Return the normalized surface distance of two masks.

    Args:
        pred: (A, B, C) mask.
        ref: (A, B, C) mask; swapping both gives the same.
        spacing_mm: along the three axes of the arrays, whatever they are.
        tolerance_mm: greatest distance at which surfaces agree.

    Returns:
        See :meth:`Surfaces.agreement`.
    """
    return surfaces(pred, ref, spacing_mm).agreement(tolerance_mm)


def _with_border(mask: _Mask, box: Box) -> _Mask:
    """Return a box of a mask with one more voxel on each side; beyond the array none is set."""
    i, j, k = (slice(start, stop + 2) for start, stop in zip(box.start, box.stop, strict=True))
    return np.pad(mask, 1)[i, j, k]


def _codes(mask: _Mask) -> npt.NDArray[np.uint8]:
    """Return for each cube of 2x2x2 voxels which are set, one less along each axis, uint8."""
    codes: npt.NDArray[np.uint8] = mask.view(np.uint8)
    # Corner (i, j, k) is bit 4i + 2j + k, so two neighbors along an axis are joined at a time.
    codes = codes[:, :, :-1] | codes[:, :, 1:] << np.uint8(1)
    codes = codes[:, :-1] | codes[:, 1:] << np.uint8(2)
    return codes[:-1] | codes[1:] << np.uint8(4)


def _border(codes: npt.NDArray[np.uint8]) -> _Mask:
    return np.asarray((codes != 0) & (codes != 255))


def _distances_mm(here: _Mask, there: _Mask, spacing_mm: TripleMm) -> _Floats:
    """Return the distance of each element of ``here``, in C order, to the nearest of ``there``.

    A tree over the elements of a surface is faster than a distance transform of its box, and it
    is exact: the tree only finds the nearest element, the distance is then computed as SciPy's
    transform does, so that one that ties with a tolerance falls on the same side as in the
    official script.
    """
    distances_mm = np.zeros(np.count_nonzero(here))
    apart = ~there[here]
    targets, queries = np.argwhere(there), np.argwhere(here & ~there)
    if not len(targets):
        distances_mm[:] = math.inf
    elif len(queries):
        spacing = np.asarray(spacing_mm)
        tree = KDTree(targets * spacing, balanced_tree=False, compact_nodes=False)
        _, nearest = tree.query(queries * spacing)
        a, b, c = (((targets[nearest] - queries) * spacing) ** 2).T
        distances_mm[apart] = np.sqrt(a + b + c)
    return distances_mm
