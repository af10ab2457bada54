"""A DICOM CT series, given its files, as one image.

pydicom reads, highdicom gives the affine; the geometry is judged in :mod:`cfseg.io.dicom_stack`.
Readers that take what they find turn a missing slice, a tilt or a localizer into a wrong spacing.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from cfseg.io.affine import SNAP_LIMIT
from cfseg.io.dicom_pixels import offset_note, read_values, stored_pixels
from cfseg.io.dicom_stack import Stack, build_stack, drop_duplicates, make_slice
from cfseg.io.dicom_tags import corrupt, header_of, quiet
from cfseg.io.nifti import StoredImage
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.shear import angle_error
from cfseg.io.source import SourceGrid
from cfseg.io.stream import CHUNK


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
        slices = []
        for path in files:
            header = header_of(path)
            if header is None:
                raise corrupt(path, "it holds no image")
            slices.append(make_slice(path, header))
        slices, duplicates = drop_duplicates(slices, stored_pixels)
        stack, dropped = build_stack(slices, allow_gaps=options.allow_gaps)
        source = SourceGrid.from_header(_header(stack), stack.shape, options)
        values = read_values(stack, options)
    notes = [*duplicates, *dropped, *offset_note(stack, options), *_announced(stack)]
    return StoredImage(values, source, (*notes, *source.notes), _digest(stack))


def count_acquisitions(files: Sequence[Path]) -> int:
    """Return how many volumes a series holds: each position as often, with other pixels."""
    raise NotImplementedError


def _header(stack: Stack) -> nib.Nifti1Header:
    """Return the NIfTI header of the stack's grid, coded as scanner coordinates.

    A qform cannot say that a gantry was tilted, so the sform alone does.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(stack.shape)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ stack.affine_lps
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code=1)
    if angle_error(affine) <= SNAP_LIMIT:
        header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return header


def _announced(stack: Stack) -> list[str]:
    """Return a note if the headers count more images than there are; missing ends show so alone."""
    announced = max(_count(item.header.get("ImagesInAcquisition")) for item in stack.slices)
    if announced <= len(stack.slices):
        return []
    return [
        f"slices_announced: {len(stack.slices)} of {announced} images of the acquisition are here"
    ]


def _count(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


def _digest(stack: Stack) -> str:
    """Return one digest of the files of the series, whatever they are called."""
    parts = []
    for item in stack.slices:
        digest = hashlib.sha256()
        with item.path.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                digest.update(chunk)
        parts.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()
