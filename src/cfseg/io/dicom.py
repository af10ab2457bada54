"""A DICOM CT series, given its files, as one image.

pydicom reads, highdicom gives the affine; the geometry is judged in :mod:`cfseg.io.dicom_stack`.
Readers that take what they find turn a missing slice, a tilt or a localizer into a wrong spacing.
"""

import cfseg.io.dicom_tags  # noqa: F401 - first: it says what is missing, if the extra is

# isort: split
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.io.affine import LPS_TO_RAS
from cfseg.io.dicom_acquisitions import split_acquisitions
from cfseg.io.dicom_frames import Image, images_of, is_localizer
from cfseg.io.dicom_pixels import offset_note, read_values
from cfseg.io.dicom_stack import Slice, Stack, build_stack, drop_duplicates, make_slice
from cfseg.io.dicom_stored import stored_values
from cfseg.io.dicom_tags import number, quiet
from cfseg.io.nifti import StoredImage
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.source import SourceGrid
from cfseg.io.stream import file_digest
from cfseg.tables import listed


def read_series(
    files: Sequence[Path], options: ReadingOptions = AS_IS, acquisition: int | None = None
) -> StoredImage:
    """Read a CT series.

    Args:
        files: of one series, in any order.
        options: what to do where it would be refused.
        acquisition: which one of several, counted from 1; see :func:`count_acquisitions`.

    Returns:
        The image with stored axes (column, row, slice), slices along the normal of the rows and
        columns.

    Raises:
        InputError: it is not a single, complete, regular CT volume in Hounsfield units.
    """
    with quiet():
        slices, localizers = _slices(files)
        slices, chosen = _one_acquisition(slices, acquisition)
        slices, duplicates = drop_duplicates(slices, _pixels)
        stack, dropped = build_stack(slices, allow_gaps=options.allow_gaps)
        source = SourceGrid.from_affine(LPS_TO_RAS @ stack.affine_lps, stack.shape, options)
        values = read_values(stack, options)
        about = [*offset_note(stack, options), *_announced(stack)]
    notes = [*localizers, *chosen, *duplicates, *dropped, *about]
    return StoredImage(values, source, (*notes, *source.notes), _digest(stack))


def count_acquisitions(files: Sequence[Path]) -> int:
    """Return how many volumes a series holds: each position so often, with other pixels.

    It is 1 where they cannot be told apart, too; :func:`read_series` says why then.

    Args:
        files: of one series, in any order.

    Raises:
        InputError: a file is damaged, or no CT image.
    """
    with quiet():
        return len(split_acquisitions(_slices(files)[0], _pixels))


def _slices(files: Sequence[Path]) -> tuple[list[Slice], list[str]]:
    """Return the slices of a series, and a note about frames that are localizers."""
    localizers: list[Image] = []
    images: list[Image] = []
    for image in (image for path in files for image in images_of(path)):
        is_aside = image.frame is not None and is_localizer(image)
        (localizers if is_aside else images).append(image)
    if not images:
        raise InputError(
            f"{files[0].parent} holds localizers only, no CT volume; pass the folder of the scan",
            code="E_FORMAT",
        )
    slices = [make_slice(image) for image in images]
    if not localizers:
        return slices, []
    names = listed([image.name for image in localizers])
    return slices, [f"localizer_skipped: {len(localizers)} frames are localizers: {names}"]


def _one_acquisition(slices: list[Slice], acquisition: int | None) -> tuple[list[Slice], list[str]]:
    parts = split_acquisitions(slices, _pixels)
    if acquisition is not None:
        if not 1 <= acquisition <= len(parts):
            raise InputError(
                f"there is no acquisition {acquisition}: the series holds {len(parts)}; give a "
                f"number from 1 to {len(parts)}"
            )
        return parts[acquisition - 1], [f"acquisition: {acquisition} of {len(parts)}"]
    if len(parts) > 1:
        first, second = (part[0].image.name for part in parts[:2])
        raise InputError(
            f"the series holds {len(parts)} acquisitions of the same place ({first} and {second} "
            "are of two); pass --all-series to make a case of each",
            code="E_DUPLICATE_SLICES",
        )
    return slices, []


def _pixels(item: Slice) -> npt.NDArray[Any]:
    return next(stored_values([item.image]))


def _announced(stack: Stack) -> list[str]:
    """Return a note if the headers count more images than there are; missing ends show so alone."""
    announced = max(number(i.image.header, "ImagesInAcquisition") or 0 for i in stack.slices)
    if announced <= len(stack.slices):
        return []
    return [
        f"slices_announced: {len(stack.slices)} of {announced:.0f} images of the acquisition are "
        "here"
    ]


def _digest(stack: Stack) -> str:
    """Return one digest of the files of the series and of its frames, whatever they are called."""
    paths = {item.image.path for item in stack.slices}
    digests = {path: bytes.fromhex(file_digest(path)) for path in paths}
    parts = [
        digests[item.image.path] + (b"" if item.image.frame is None else b"%d" % item.image.frame)
        for item in stack.slices
    ]
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()
