"""Is this a CT in Hounsfield units? What is not would give a silent, plausible wrong answer.

A CT has landmarks: air near -1000, fat near -100, soft tissue from 20 to 200. A rescaled one has
them elsewhere, too close together, or noise that no scanner reaches. The thresholds are ours. They
let through real CT, crops of it, water and air phantoms and constant volumes; they stop label maps,
windowed or normalized images and scans that lost their rescale intercept.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError

AIR_HU = -1024
METAL_HU = 3071
"""The greatest value of 12 bits: many scanners store all metal as this."""
PADDING_HU = -1100
"""Scanners fill the outside of the field of view with values below this."""
LIMITS_HU = (-70_000, 70_000)
GAS_HU = -700
"""Below lies air or lung."""
FAT_HU = (-140, -60)
NO_FAT_HU = -50
"""An image without anything below this shows neither air nor fat."""
BETWEEN_HU = (-40, 20)
"""Between fat and soft tissue: fluid, and voxels that hold some of both."""
SOFT_TISSUE_HU = (20, 200)
BODY_HU = (-150, 250)
APART_HU = 42
"""Fat and soft tissue lie so far apart that no shorter interval holds half of a body's voxels."""
WATER_RAW = (850, 1300)
"""Where soft tissue lies when the usual intercept of -1024 is missing."""
NOISE_HU = 3.4
"""Half of the values of a Gaussian of 2.5 HU lie this close; real noise is wider."""
BYTES = ((0, 255), (-128, 127))
"""What eight bits hold, without and with a sign."""
CLIPPED = 0.004
"""Share of the voxels that have the least value if a window cut the rest off."""
_SAMPLE = 1_000_000

_Values = npt.NDArray[np.int16] | npt.NDArray[np.float32]


class _Sample:
    """Sorted values of an image, thinned out where there are many, to ask for shares of them.

    Attributes:
        low: the least value.
        high: the greatest.
        size: how many values there are.
    """

    def __init__(self, ordered: npt.NDArray[Any], low: float, high: float) -> None:
        self._ordered, self.size = ordered, ordered.size
        self.low, self.high = low, high

    @classmethod
    def of(cls, values: _Values) -> Self:
        """Return a sample of the values of an image; its ends are those of all of them."""
        step = max(1, round((values.size / _SAMPLE) ** (1 / values.ndim)))
        thinned = values[(slice(None, None, step),) * values.ndim]
        return cls(np.sort(thinned, axis=None), float(values.min()), float(values.max()))

    def part(self, low: float, high: float) -> Self:
        """Return the values in ``low <= value <= high``."""
        first = np.searchsorted(self._ordered, low)
        inside = self._ordered[first : np.searchsorted(self._ordered, high, side="right")]
        return type(self)(inside, max(low, self.low), min(high, self.high))

    def share(self, low: float, high: float) -> float:
        """Return the share of the values in ``low <= value <= high``, 0 of none."""
        return self.part(low, high).size / max(1, self.size)

    def counts(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
        """Return the different values and how often each occurs."""
        return np.unique(self._ordered, return_counts=True)

    def shortest_half(self) -> float:
        """Return the length of the shortest interval that holds half of the values, 0 of none."""
        half = self.size // 2
        spans = self._ordered[half:].astype(np.float64) - self._ordered[: self.size - half]
        return float(spans.min()) if self.size else 0.0

    @property
    def is_clipped(self) -> bool:
        """Whether many of the values are exactly the least, as where a window cut; noise is not."""
        return self.share(self.low, self.low) >= CLIPPED


def check_hu(values: _Values) -> tuple[str, ...]:
    """Refuse a volume that cannot be in HU and return notes about one that can.

    Args:
        values: voxels of any shape, finite.

    Raises:
        InputError: ``E_NOT_HU`` with what was measured and what to do.
    """
    sample = _Sample.of(values)
    if sample.low < LIMITS_HU[0] or sample.high > LIMITS_HU[1]:
        raise _not_hu(f"the values reach from {sample.low:g} to {sample.high:g}")
    notes: tuple[str, ...] = ()
    if sample.low < sample.high:
        _check_labels(values, sample)
        _check_normalized(sample)
        scanned = _without_padding(sample)
        _check_intercept(scanned)
        if scanned.share(PADDING_HU, GAS_HU) > 0:
            _check_body(scanned)
        else:
            notes = _window_notes(scanned)
    return notes + _range_notes(values, sample)


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


def _check_labels(values: _Values, sample: _Sample) -> None:
    """Refuse a label map."""
    if not (-1 < sample.low < 1 and sample.high <= BYTES[0][1]):
        return
    found = sample.counts()[0]
    if found.size <= 32 and (found == np.round(found)).all():
        count = np.unique(values).size  # the sample may have missed some
        raise _not_hu(
            f"there are only {count} values, all whole numbers from 0 to {sample.high:g}: this "
            "looks like a label map"
        )


def _check_normalized(sample: _Sample) -> None:
    """Refuse [0, 1], [-1, 1] and z-scores, of air or of the body; noise in a real scan is wider."""
    low, high = sample.low, sample.high
    if max(-low, high) > 100:
        return
    if (high - low <= 2 and low >= -1.01) or sample.shortest_half() < NOISE_HU:
        raise _not_hu(
            f"the values reach only from {low:.4g} to {high:.4g}: a label map, or an image that "
            "was already normalized"
        )


def _without_padding(sample: _Sample) -> _Sample:
    """Return what is no padding; refuse much below air, unless it is one value or two."""
    below = sample.part(sample.low, np.nextafter(PADDING_HU, -np.inf))
    scanned = sample.part(PADDING_HU, sample.high)
    spread = (below.size - int(np.sort(below.counts()[1])[-2:].sum())) / sample.size
    if spread > 0.2 or not scanned.size:
        raise _not_hu(
            f"the values reach from {sample.low:g} to {sample.high:g}, "
            f"{below.size / sample.size:.0%} of them below {PADDING_HU}"
        )
    return scanned


def _check_intercept(scanned: _Sample) -> None:
    """Refuse a scan without air and fat."""
    if scanned.high - scanned.low < 300 or scanned.share(scanned.low, NO_FAT_HU) >= 1e-3:
        return
    tissue = scanned.share(*WATER_RAW)
    cause = f"hardly a voxel lies below {NO_FAT_HU} HU, so there is neither air nor fat"
    if tissue >= 0.02:
        raise InputError(
            f"the image is not in Hounsfield units: {cause}, and {tissue:.0%} lie between "
            f"{WATER_RAW[0]} and {WATER_RAW[1]}; the rescale intercept seems lost: add it, "
            f"usually with --hu-offset {AIR_HU}",
            code="E_NOT_HU",
        )
    raise _not_hu(f"{cause} (values up to {scanned.high:g}); an MR image?")


def _check_body(scanned: _Sample) -> None:
    """Refuse a scan with air in which nothing is where fat and soft tissue are."""
    body = scanned.share(GAS_HU, scanned.high)
    if body >= 0.05 and scanned.share(*BODY_HU) < 0.02 * body:
        raise _not_hu(
            f"hardly a voxel lies between {BODY_HU[0]} and {BODY_HU[1]} HU, where fat and soft "
            "tissue are"
        )


def _window_notes(scanned: _Sample) -> tuple[str, ...]:
    """Refuse an image without air that was rescaled; note one that can be a CT with a window.

    What is neither clipped nor begins where a byte does is a crop of the body, or water. A crop
    without any fat that begins at 0 by chance is refused with the rest: no whole scan looks so.
    """
    low, high = scanned.low, scanned.high
    signed, unsigned = (abs(low - b[0]) <= 1 and high <= b[1] + 1 for b in reversed(BYTES))
    if not (signed or unsigned or scanned.is_clipped):
        return ()
    reach = f"the values reach from {low:g} to {high:g}"
    if unsigned or low > NO_FAT_HU:
        raise _not_hu(f"{reach}: an image with a window applied")
    if not _has_fat_and_tissue(scanned):
        raise _not_hu(
            f"{reach}, with fat and soft tissue not where they are in a CT: an image with a window "
            "applied, and rescaled"
        )
    return (f"narrow_window: the values reach only from {low:g} to {high:g} HU",)


def _has_fat_and_tissue(scanned: _Sample) -> bool:
    margin = 0.02 * (scanned.high - scanned.low)
    inside = scanned.part(scanned.low + margin, scanned.high - margin)
    return (
        inside.shortest_half() >= APART_HU
        and inside.share(*FAT_HU) >= 0.05
        and inside.share(*SOFT_TISSUE_HU) >= 0.6 * inside.share(*BETWEEN_HU)
    )


def _range_notes(values: _Values, sample: _Sample) -> tuple[str, ...]:
    notes = []
    if sample.low < AIR_HU:
        count = int(np.count_nonzero(values < AIR_HU))
        notes.append(
            f"padding_clamped: {count} voxels below {AIR_HU} HU, the lowest {sample.low:g}"
        )
    if sample.high >= METAL_HU:
        # Of what was scanned: padding and clipped air would hide a large implant in a wide field.
        share = np.count_nonzero(values >= METAL_HU) / np.count_nonzero(values > AIR_HU)
        if share > 0.01:
            notes.append(f"metal_clamped: {share:.1%} of the voxels at {METAL_HU} HU or above")
    return tuple(notes)


def _not_hu(cause: str) -> InputError:
    return InputError(
        f"the image is not in Hounsfield units: {cause}; give the CT as the scanner made it",
        code="E_NOT_HU",
    )
