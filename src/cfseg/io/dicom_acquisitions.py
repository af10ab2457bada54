"""Several volumes in one series: phases of contrast, gates, two reconstructions.

A scanner may send them as one series, each position several times. Mixed they are no volume; what
tells them apart is tried in the order of :data:`KEYS`.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.io.dicom_stack import Slice, build_stack, by_place
from cfseg.io.dicom_tags import number, text

KEYS = (
    "StackID",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
)


def split_acquisitions(
    slices: list[Slice], pixels: Callable[[Slice], npt.NDArray[Any]]
) -> list[list[Slice]]:
    """Return the slices of each acquisition, in order; all in one if they cannot be told apart.

    Args:
        slices: of one series, in any order.
        pixels: reads the stored values of a slice.
    """
    places = by_place(slices)
    count = max(map(len, places))
    if count == 1:
        return _stacks(slices)
    # Copies are no acquisitions. Slices at the ends may be equal for another reason: padding.
    doubled = [place for place in places if len(place) > 1]
    first, second, *_ = doubled[len(doubled) // 2]
    if np.array_equal(pixels(first), pixels(second)):
        return [slices]
    if any(len(place) != count for place in places):
        return [slices]
    for key in KEYS:
        parts = _by_key(slices, key)
        if len(parts) == count and all(len(by_place(part)) == len(places) for part in parts):
            return parts
    return _by_number(places) or [slices]


def _stacks(slices: list[Slice]) -> list[list[Slice]]:
    """Return the stacks of an enhanced file apart, unless they are parts of one volume."""
    stacks = _by_key(slices, "StackID")
    if len(stacks) == 1:
        return stacks
    try:
        build_stack(slices)
    except InputError:
        return stacks
    return [slices]


def _by_key(slices: list[Slice], key: str) -> list[list[Slice]]:
    parts: dict[tuple[float, str], list[Slice]] = defaultdict(list)
    for item in slices:
        header = item.image.header
        parts[number(header, key) or 0.0, text(header, key)].append(item)
    return [parts[value] for value in sorted(parts)]


def _by_number(places: list[list[Slice]]) -> list[list[Slice]] | None:
    """Return the slices by their rank in each place, None if that is not clear."""
    ranked = []
    for place in places:
        numbered = {_number(item): item for item in place}
        if len(numbered) < len(place):
            return None
        ranked.append([numbered[value] for value in sorted(numbered)])
    return [list(part) for part in zip(*ranked, strict=True)]


def _number(item: Slice) -> tuple[float, int]:
    return number(item.image.header, "InstanceNumber") or 0.0, item.image.frame or 0
