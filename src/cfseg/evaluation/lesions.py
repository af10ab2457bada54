"""Which lesions are found: detection by size, and what is found where none is.

A lesion is a connected part (26 neighbors) of the reference's tumor label. Its size is the
diameter of a ball of its volume. It is found if the prediction covers a tenth of it or more. A
false positive is a connected part of the prediction that touches no lesion, not even by a corner.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfseg.components import components
from cfseg.evaluation.statistics import Interval, Spread, ratio_interval, spread
from cfseg.geometry import Box, TripleMm

_Mask = npt.NDArray[np.bool_]

COVERED = 0.1
"""Share of a lesion that has to be covered for it to be found; so much is enough."""
LIMITS_MM = (10.0, 20.0, 50.0)
"""Diameters where one size ends and the next begins; a lesion at a limit is of the larger size."""
SIZES = ("< 10 mm", "10-20 mm", "20-50 mm", "> 50 mm")
ALL = "all"


@dataclass(frozen=True)
class Lesion:
    """One lesion of a reference.

    Attributes:
        volume_ml: its volume.
        covered: share of it that the prediction covers, 0..1.
    """

    volume_ml: float
    covered: float

    @property
    def diameter_mm(self) -> float:
        """Diameter of the ball of this volume."""
        return 2 * math.cbrt(3 * self.volume_ml * 1000 / (4 * math.pi))

    @property
    def size(self) -> str:
        """Its size, one of :data:`SIZES`."""
        return SIZES[int(np.searchsorted(LIMITS_MM, self.diameter_mm, side="right"))]

    @property
    def found(self) -> bool:
        """Whether enough of it is covered."""
        return self.covered >= COVERED


@dataclass(frozen=True)
class CaseLesions:
    """The lesions of one case.

    Attributes:
        lesions: those of the reference.
        false_positives: how many parts of the prediction touch none of them; None without one.
    """

    lesions: tuple[Lesion, ...]
    false_positives: int | None


@dataclass(frozen=True)
class Detection:
    """How many lesions of one size are found, over all cases.

    Attributes:
        size: one of :data:`SIZES`, or ``all``.
        lesions: how many there are.
        found: how many of them are found.
        interval: bootstrap interval of the share, cases drawn with all their lesions.
    """

    size: str
    lesions: int
    found: int
    interval: Interval

    @property
    def share(self) -> float:
        """Found lesions per lesion; NaN without lesions."""
        return self.found / self.lesions if self.lesions else math.nan


@dataclass(frozen=True)
class Detections:
    """How lesions are found, over all cases.

    Attributes:
        sizes: for each size, then for all sizes.
        false_positives: per scan that there is a prediction of.
    """

    sizes: tuple[Detection, ...]
    false_positives: Spread


def case_lesions(pred: _Mask, ref: _Mask, spacing_mm: TripleMm) -> CaseLesions:
    """Find the lesions of a reference in a prediction.

    Args:
        pred: (A, B, C) mask of the predicted tumors.
        ref: (A, B, C) mask of the reference's tumors.
        spacing_mm: along the three axes.
    """
    either = pred | ref
    box = Box.around(either)
    if box is None:
        return CaseLesions((), 0)
    pred, ref, either = pred[box.slices], ref[box.slices], either[box.slices]
    voxel_ml = math.prod(spacing_mm) / 1000
    parts, found = components(ref)
    hits = np.bincount(parts[pred], minlength=len(found) + 1)
    lesions = tuple(Lesion(p.voxels * voxel_ml, float(hits[p.label]) / p.voxels) for p in found)
    # Parts of the prediction never touch each other: one that touches no lesion stays alone here.
    together, groups = components(either)
    with_lesion = np.unique(together[ref])
    return CaseLesions(lesions, len(groups) - len(with_lesion))


def detections(cases: Sequence[CaseLesions]) -> Detections:
    """Sum up over cases.

    Args:
        cases: one per scan, those without lesions too.
    """
    found = []
    for size in (*SIZES, ALL):
        chosen = [[one for one in c.lesions if size in (ALL, one.size)] for c in cases]
        hits = [sum(lesion.found for lesion in lesions) for lesions in chosen]
        counts = [len(lesions) for lesions in chosen]
        interval = ratio_interval(hits, counts)
        found.append(Detection(size, sum(counts), sum(hits), interval))
    false = [math.nan if c.false_positives is None else c.false_positives for c in cases]
    return Detections(tuple(found), spread(false))
