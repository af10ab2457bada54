"""The voxels of a DICOM series in HU."""

from itertools import groupby
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.io.dicom_frames import Image
from cfseg.io.dicom_stack import Slice, Stack
from cfseg.io.dicom_stored import stored_values
from cfseg.io.dicom_tags import as_shown, given, number, text, whole
from cfseg.io.hounsfield import AIR_HU
from cfseg.io.memory import check_memory, check_voxels, reading_bytes
from cfseg.io.options import ReadingOptions

MAX_RESCALE = 1e6
"""A slope or intercept beyond is no rescale to HU, and would overflow."""
_Pixels = npt.NDArray[np.int16] | npt.NDArray[np.float32]


def read_values(stack: Stack, options: ReadingOptions) -> _Pixels:
    """Return (column, row, slice) in HU: int16 if every slice allows it, else float32."""
    columns, rows, _ = shape = stack.shape
    check_voxels("the series", shape)
    needed = reading_bytes(prod(shape), np.dtype("f4"))
    check_memory(f"reading a series of {shape} voxels", needed)
    rescales = [_rescale(item.image, options.hu_offset) for item in stack.slices]
    volume: npt.NDArray[Any] = np.empty((len(stack.slices), rows, columns), dtype=np.int16)
    for indices in _by_file(stack.slices):
        images = [stack.slices[index].image for index in indices]
        for index, image, stored in zip(indices, images, stored_values(images), strict=True):
            plane = _hu(image, stored, *rescales[index])
            if volume.dtype == np.int16 and not _fits_int16(plane):
                volume = volume.astype(np.float32)
            volume[index] = plane
    if stack.filling is not None:
        volume = stack.filling.fill(volume)
    return volume.transpose(2, 1, 0)


def _by_file(slices: tuple[Slice, ...]) -> list[list[int]]:
    """Return the indices of the slices of each file, in the order in which they lie there."""
    images = [item.image for item in slices]
    order = sorted(range(len(slices)), key=lambda i: (images[i].path, images[i].frame or 0))
    return [list(group) for _, group in groupby(order, key=lambda i: images[i].path)]


def _fits_int16(plane: npt.NDArray[np.float64]) -> bool:
    bounds = np.iinfo(np.int16)
    inside = bounds.min <= plane.min() and plane.max() <= bounds.max
    return bool(inside and (plane == np.rint(plane)).all())


def _rescale(image: Image, offset: float | None) -> tuple[float, float]:
    """Return slope and intercept of one image.

    Args:
        image: any one.
        offset: takes the place of an intercept where the image has no rescale at all.

    Raises:
        InputError: ``E_NOT_HU``, they do not give HU.
    """
    header = image.header
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if offset is not None and _lacks_rescale(image):
        slope, intercept = 1.0, offset
    if (
        slope is not None
        and intercept is not None
        and 0 < abs(slope) <= MAX_RESCALE
        and abs(intercept) <= MAX_RESCALE
        and (text(header, "RescaleType") or "HU") in ("HU", "US")
    ):
        return slope, intercept
    advice = "export the original series"
    if _lacks_rescale(image):
        advice += f", or pass the intercept, as in --hu-offset {AIR_HU}"
    raise InputError(
        f"{image.name} gives no way to Hounsfield units (RescaleSlope "
        f"{as_shown(header, 'RescaleSlope')}, RescaleIntercept "
        f"{as_shown(header, 'RescaleIntercept')}, RescaleType {as_shown(header, 'RescaleType')}); "
        f"{advice}",
        code="E_NOT_HU",
    )


def _lacks_rescale(image: Image) -> bool:
    names = ("RescaleSlope", "RescaleIntercept")
    return all(given(image.header, name) is None for name in names)


def _hu(
    image: Image, stored: npt.NDArray[Any], slope: float, intercept: float
) -> npt.NDArray[np.float64]:
    """Return one image in HU, its padding as air.

    Args:
        image: that was read.
        stored: (row, column) its values as they lie in the file.
        slope: of the image.
        intercept: of the image.
    """
    values = image.layout.without_unused_bits(stored)
    hu = values.astype(np.float64) * slope + intercept
    padding = _padding(image)
    if padding is not None:
        # Compared before the unused bits are gone: padding may lie outside of those stored.
        hu[(stored >= padding[0]) & (stored <= padding[1])] = AIR_HU
    return hu


def _padding(image: Image) -> tuple[int, int] | None:
    """Return the least and the greatest stored value that is padding, None without any."""
    if given(image.header, "PixelPaddingValue") is None:
        return None
    first = _stored_number(image, "PixelPaddingValue")
    limit = given(image.header, "PixelPaddingRangeLimit")
    last = first if limit is None else _stored_number(image, "PixelPaddingRangeLimit")
    return min(first, last), max(first, last)


def _stored_number(image: Image, name: str) -> int:
    """Return an element as a stored value; often it is written with the other sign."""
    bits = image.layout.bits_allocated
    found = whole(image.header, name, -(1 << (bits - 1)), (1 << bits) - 1)
    return int(np.array(found).astype(image.layout.dtype))


def offset_note(stack: Stack, options: ReadingOptions) -> list[str]:
    """Return a note if slices without any rescale were given an intercept."""
    count = sum(_lacks_rescale(item.image) for item in stack.slices)
    if not count or options.hu_offset is None:
        return []
    return [f"hu_offset: {options.hu_offset:+g} as the intercept of {count} slices without any"]
