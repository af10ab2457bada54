"""Is this a CT in Hounsfield units? What is not would give a silent, plausible wrong answer.

The thresholds are ours. They let through real CT, water and air phantoms and constant volumes;
they stop label maps, windowed or normalized images and scans that lost their rescale intercept.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError

AIR_HU = -1024
METAL_HU = 3071
PADDING_HU = -1100
"""Scanners fill the outside of the field of view with values below this."""
LIMITS_HU = (-70_000, 70_000)
FAT_HU = -50
WATER_RAW = (850, 1300)
"""Where soft tissue lies when the usual intercept of -1024 is missing."""

_Values = npt.NDArray[np.int16] | npt.NDArray[np.float32]


def check_hu(values: _Values) -> tuple[str, ...]:
    """Refuse a volume that cannot be in HU and return notes about one that can.

    Args:
        values: voxels of any shape, finite.

    Raises:
        InputError: ``E_NOT_HU`` with what was measured and what to do.
    """
    low, high = float(values.min()), float(values.max())
    if low < LIMITS_HU[0] or high > LIMITS_HU[1]:
        raise _not_hu(f"the values reach from {low:g} to {high:g}")
    if low < high:
        _check_normalized(values, low, high)
        if low > -1 and low < 1 and high <= 255:
            raise _small_range(values, high)
        _check_intercept(values, high)
    return _range_notes(values, low, high)


def in_hu(values: _Values, offset: float | None) -> tuple[_Values, tuple[str, ...]]:
    """Return a volume in HU and the notes about it.

    Args:
        values: voxels of any shape, finite.
        offset: is added where the values are not in HU without it; None adds nothing.

    Raises:
        InputError: as :func:`check_hu`.
    """
    try:
        return values, check_hu(values)
    except InputError:
        if not offset:
            raise
    shifted = shift(values, offset)
    return shifted, (f"hu_offset: {offset:+g} added", *check_hu(shifted))


def shift(values: _Values, offset: float) -> _Values:
    """Return ``values + offset``: int16 if that is exact, else float32."""
    bounds = np.iinfo(np.int16)
    low, high = float(values.min()) + offset, float(values.max()) + offset
    if (
        values.dtype == np.int16
        and offset == int(offset)
        and bounds.min <= low <= high <= bounds.max
    ):
        return (values + np.int32(offset)).astype(np.int16)
    return values.astype(np.float32) + np.float32(offset)


def _check_normalized(values: _Values, low: float, high: float) -> None:
    """Refuse [0, 1], [-1, 1] and z-scores; noise in a real scan is wider."""
    if max(-low, high) > 50:
        return
    if (high - low <= 2 and low >= -1.01) or float(values.std(dtype=np.float64)) < 2.5:
        raise _not_hu(
            f"the values reach only from {low:.4g} to {high:.4g}: a label map, or an image that "
            "was already normalized"
        )


def _small_range(values: _Values, high: float) -> InputError:
    counts: npt.NDArray[Any] = np.unique(values)
    if counts.size <= 32 and (counts == np.round(counts)).all():
        return _not_hu(
            f"there are only {counts.size} values, all whole numbers from 0 to {high:g}: this "
            "looks like a label map"
        )
    return _not_hu(f"the values reach from 0 to {high:g}: an image with a window applied")


def _check_intercept(values: _Values, high: float) -> None:
    """Refuse a scan without air and fat, where the padding around the field of view aside."""
    inside = values >= PADDING_HU
    count = int(np.count_nonzero(inside))
    lowest = float(values.min(where=inside, initial=np.iinfo(np.int16).max))
    if count == 0 or high - lowest < 300:
        return
    if np.count_nonzero(inside & (values < FAT_HU)) >= 1e-3 * count:
        return
    tissue = np.count_nonzero((values >= WATER_RAW[0]) & (values <= WATER_RAW[1])) / count
    cause = f"hardly a voxel lies below {FAT_HU} HU, so there is neither air nor fat"
    if tissue >= 0.02:
        raise InputError(
            f"the image is not in Hounsfield units: {cause}, and {tissue:.0%} lie between "
            f"{WATER_RAW[0]} and {WATER_RAW[1]}; the rescale intercept seems lost: add it, "
            f"usually with --hu-offset {AIR_HU}",
            code="E_NOT_HU",
        )
    raise _not_hu(f"{cause} (values up to {high:g}); an MR image?")


def _range_notes(values: _Values, low: float, high: float) -> tuple[str, ...]:
    notes = []
    if low < AIR_HU:
        count = int(np.count_nonzero(values < AIR_HU))
        notes.append(f"padding_clamped: {count} voxels below {AIR_HU} HU, the lowest {low:g}")
    if high > METAL_HU:
        share = np.count_nonzero(values > METAL_HU) / values.size
        if share > 0.01:
            notes.append(f"metal_clamped: {share:.1%} of the voxels above {METAL_HU} HU")
    return tuple(notes)


def _not_hu(cause: str) -> InputError:
    return InputError(
        f"the image is not in Hounsfield units: {cause}; give the CT as the scanner made it",
        code="E_NOT_HU",
    )


def check_label_values(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return label values as uint8.

    Raises:
        InputError: ``E_NOT_LABELS`` if a value is not a whole number from 0 to 255.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        raise InputError(
            f"this is not a label map: its values reach from {low:g} to {high:g}, allowed are "
            "whole numbers from 0 to 255",
            code="E_NOT_LABELS",
        )
    ids = values.astype(np.uint8)
    if values.dtype.kind == "f" and (ids != values).any():
        raise InputError(
            f"this is not a label map: {int((ids != values).sum())} values are not whole numbers; "
            "was it resampled with interpolation?",
            code="E_NOT_LABELS",
        )
    return ids
