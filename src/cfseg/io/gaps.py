"""The distances between the slices of a series: even, or filled in along the normal, linearly."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError

TOLERANCE_MM, TOLERANCE_SHARE = 0.1, 0.01
LEAST_MM = 1e-2
"""Slices nearer to each other along the normal lie beside each other."""
MOST_FILLED = 10
"""An even stack has at most so many times the slices that are there; more is no volume."""


@dataclass(frozen=True)
class Filling:
    """Where each slice of an even stack comes from.

    Attributes:
        below: (Z,) index of the stored slice at or below it.
        share: (Z,) weight of the next stored slice, 0 where it is ``below`` itself.
        spacing_mm: of the even stack.
    """

    below: npt.NDArray[np.intp]
    share: npt.NDArray[np.float64]
    spacing_mm: float

    @property
    def count(self) -> int:
        """How many slices there are in all."""
        return len(self.below)

    @property
    def made(self) -> int:
        """How many slices are interpolated."""
        return int(np.count_nonzero(self.share))

    def fill(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return (Z, rows, columns) of the even stack; whole numbers stay whole.

        Args:
            volume: (stored slices, rows, columns).
        """
        filled = np.empty((len(self.below), *volume.shape[1:]), dtype=volume.dtype)
        for index, (low, share) in enumerate(zip(self.below, self.share, strict=True)):
            if share == 0:
                filled[index] = volume[low]
                continue
            plane = (1 - share) * volume[low] + share * volume[low + 1].astype(np.float64)
            filled[index] = np.rint(plane) if volume.dtype.kind == "i" else plane
        return filled


def even(along_mm: npt.NDArray[np.float64], tolerance_mm: float) -> Filling:
    """Return an even stack over uneven slices, with the median of their distances.

    Args:
        along_mm: (N,) ascending positions along the normal.
        tolerance_mm: a stored slice that lies so near to its place is taken as it is.
    """
    typical = float(np.median(np.diff(along_mm)))
    steps = max(1, round(float(along_mm[-1] - along_mm[0]) / typical))
    places = along_mm[0] + typical * np.arange(steps + 1)
    nearest = np.abs(along_mm[:, None] - places).argmin(axis=0)
    below = np.clip(np.searchsorted(along_mm, places, side="right") - 1, 0, len(along_mm) - 2)
    share = (places - along_mm[below]) / (along_mm[below + 1] - along_mm[below])
    near = np.abs(along_mm[nearest] - places) <= tolerance_mm
    return Filling(
        below=np.where(near, nearest, below),
        share=np.where(near, 0.0, np.clip(share, 0, 1)),
        spacing_mm=typical,
    )


def _gaps(along_mm: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Return the distances between slices and their median, in mm.

    Raises:
        InputError: ``E_GEOMETRY``, no even stack can come of them.
    """
    gaps = np.diff(along_mm)
    typical, extent = float(np.median(gaps)), float(along_mm[-1] - along_mm[0])
    if typical < LEAST_MM or extent > MOST_FILLED * len(along_mm) * typical:
        raise InputError(
            f"the {len(along_mm)} slices reach over {extent:.4g} mm, but most lie {typical:.4g} mm "
            "from the next one; keep the files of one volume only",
            code="E_GEOMETRY",
        )
    return gaps, typical


def filling(along_mm: npt.NDArray[np.float64]) -> Filling | None:
    """Return how an uneven stack is made even, None where it is.

    Args:
        along_mm: (N,) ascending positions along the normal.
    """
    gaps, typical = _gaps(along_mm)
    tolerance_mm = max(TOLERANCE_MM, TOLERANCE_SHARE * typical)
    if np.abs(gaps - typical).max() <= tolerance_mm:
        return None
    return even(along_mm, tolerance_mm)


def even_spacing(along_mm: npt.NDArray[np.float64]) -> float:
    """Return the distance between slices, in mm, or say which one is missing or out of place."""
    gaps, typical = _gaps(along_mm)
    tolerance = max(TOLERANCE_MM, TOLERANCE_SHARE * typical)
    wrong = np.flatnonzero(np.abs(gaps - typical) > tolerance)
    if wrong.size == 0:
        return float(along_mm[-1] - along_mm[0]) / gaps.size
    counts = np.rint(gaps / typical)
    whole = bool((np.abs(gaps - counts * typical) <= tolerance * np.maximum(counts, 1)).all())
    if whole and (counts >= 1).all() and wrong.size <= max(1, gaps.size // 4):
        missing = [along_mm[i] + typical * step for i in wrong for step in range(1, int(counts[i]))]
        shown = ", ".join(f"{value:.1f}" for value in missing[:8])
        raise InputError(
            f"{len(missing)} slices are missing inside the series, at {shown} mm along its "
            f"normal (spacing {typical:g} mm); export it completely, or pass --allow-gaps to have "
            "them interpolated",
            code="E_MISSING_SLICES",
        )
    raise InputError(
        f"the distances between slices vary from {gaps.min():.2f} to {gaps.max():.2f} mm, first "
        f"after {along_mm[wrong[0]]:.1f} mm; export an evenly spaced reconstruction, or pass "
        "--allow-gaps to have one interpolated",
        code="E_SPACING_IRREGULAR",
    )
