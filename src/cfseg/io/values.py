"""Stored numbers to HU: scaled without a copy in double precision, and without NaN."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.io.hounsfield import AIR_HU
from cfseg.io.options import AS_IS, ReadingOptions


def scaled(
    raw: npt.NDArray[Any], slope: float, inter: float, options: ReadingOptions = AS_IS
) -> tuple[npt.NDArray[np.int16] | npt.NDArray[np.float32], list[str]]:
    """Return ``raw * slope + inter``, int16 if that is exact, else float32; and notes.

    Works slab by slab, so no copy in double precision of the whole image ever exists.

    Args:
        raw: (I, J, K) as stored.
        slope: of the header.
        inter: of the header.
        options: what becomes of NaN and infinity.

    Raises:
        InputError: ``E_DTYPE`` for anything but real numbers, ``E_NONFINITE`` for NaN or infinity.
    """
    if raw.dtype.kind not in "iufb":
        raise InputError(f"the voxels are of type {raw.dtype}, not real numbers", code="E_DTYPE")
    notes = check_finite(raw, options) if raw.dtype.kind == "f" else []
    if raw.dtype == np.int16 and slope == 1 and inter == 0:
        return raw.astype(raw.dtype.newbyteorder("="), copy=False), notes
    if raw.dtype.kind in "iub" and slope == 1 and inter.is_integer() and raw.size:
        bounds = np.iinfo(np.int16)
        if bounds.min <= int(raw.min()) + inter and int(raw.max()) + inter <= bounds.max:
            return _by_slab(raw, np.int16, lambda slab: slab.astype(np.int64) + int(inter)), notes
    limit = float(np.finfo(np.float32).max)

    def convert(slab: npt.NDArray[Any]) -> npt.NDArray[Any]:
        finite = np.isfinite(slab)
        values = np.where(finite, slab, 0).astype(np.float64) * slope + inter
        return np.where(finite, np.clip(values, -limit, limit), AIR_HU)

    return _by_slab(raw, np.float32, convert), notes


def _by_slab(
    raw: npt.NDArray[Any],
    dtype: type[Any],
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    out = np.empty(raw.shape, dtype=dtype, order="F")
    for k in range(raw.shape[-1]):
        out[..., k] = convert(raw[..., k])
    return out


def check_finite(values: npt.NDArray[Any], options: ReadingOptions) -> list[str]:
    """Refuse NaN and infinity, or note how many of them are taken for air.

    Raises:
        InputError: ``E_NONFINITE`` with the count and the first index.
    """
    count, first = 0, None
    for k in range(values.shape[-1]):
        bad = ~np.isfinite(values[..., k])
        if bad.any():
            count += int(bad.sum())
            first = first or (*(int(i) for i in np.argwhere(bad)[0]), k)
    if first is None:
        return []
    found = f"{count} voxels are NaN or infinite, the first at index {first}"
    if options.nonfinite == "air" and not options.labels:
        return [f"nonfinite_as_air: {found}"]
    advice = options.advice(
        f"repair the scan, or pass --nonfinite air to take them for {AIR_HU} HU"
    )
    raise InputError(f"{found}; {advice}", code="E_NONFINITE")
