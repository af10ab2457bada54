"""Stored numbers to label ids: whole ones, or so close to them that rounding is safe."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError

ROUNDING = 1e-3
"""A label map in 16 bits with a slope is off by a ten-thousandth; interpolation by far more."""
_HINT = "save the label map again as whole numbers, as uint8 without a slope"


def label_ids(
    values: npt.NDArray[Any], slope: float = 1.0, inter: float = 0.0
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Return label values as uint8, and a note if they had to be rounded.

    Args:
        values: of any shape, scaled already, finite.
        slope: with which they were, for messages.
        inter: with which they were.

    Raises:
        InputError: ``E_NOT_LABELS`` if a value is not a whole number from 0 to 255.
    """
    scaling = f" (slope {slope:g}, intercept {inter:g})" if (slope, inter) != (1, 0) else ""
    low, high = float(values.min()), float(values.max())
    if low < -ROUNDING or high > 255 + ROUNDING:
        raise InputError(
            f"this is not a label map: its values reach from {low:g} to {high:g}{scaling}, allowed "
            "are whole numbers from 0 to 255",
            code="E_NOT_LABELS",
        )
    if values.dtype.kind in "iub":
        return values.astype(np.uint8), []
    rounded = np.rint(values)
    off = np.abs(values - rounded)
    most = float(off.max())
    if most > ROUNDING:
        cause = "the scaling is too coarse for them" if scaling else "was it interpolated?"
        raise InputError(
            f"this is not a label map: {int(np.count_nonzero(off > ROUNDING))} values are up to "
            f"{most:.2g} off whole numbers{scaling} ({cause}); {_HINT}",
            code="E_NOT_LABELS",
        )
    notes = [f"labels_rounded: values were up to {most:.1g} off whole numbers{scaling}"]
    return rounded.astype(np.uint8), notes if most > 0 else []
