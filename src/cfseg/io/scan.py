"""One CT, read and checked, with the way back to its own grid."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.io.found import Input
from cfseg.io.hounsfield import in_hu
from cfseg.io.itk import is_itk, itk_bytes, read_itk
from cfseg.io.label_values import label_ids
from cfseg.io.listing import the_input
from cfseg.io.names import case_names
from cfseg.io.nifti import StoredImage, nifti_bytes, read_nifti, stored_from_image
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.segments import to_flare
from cfseg.io.source import SourceGrid
from cfseg.volume import LabelMap, Volume


@dataclass(frozen=True)
class Scan:
    """A CT on the canonical axes, and where it came from.

    Attributes:
        case: identifier, safe as a file name.
        volume: (Z, Y, X) in HU, int16 or float32.
        source: the grid of the input, for the way back.
        notes: decisions made while reading, each ``word: detail``.
        sha256: digest of the input.
    """

    case: str
    volume: Volume
    source: SourceGrid
    notes: tuple[str, ...]
    sha256: str


def read_scan(
    source: Path | Input, *, case: str | None = None, options: ReadingOptions = AS_IS
) -> Scan:
    """Read a CT: a file, or a folder or archive that holds one.

    Args:
        source: the path, or what :func:`cfseg.io.list_inputs` found.
        case: identifier; by default made from the name.
        options: what to do where it would be refused.

    Raises:
        InputError: the input is refused; the code says why.
        UsageError: a DICOM series without the extra ``cfseg[dicom]``.
    """
    found = source if isinstance(source, Input) else the_input(Path(source), options)
    if found.refusal is not None:
        raise found.refusal
    with _naming(found.shown):
        stored = _stored(found, options)
        return _scan(stored, case or found.case or case_names([found])[found])


def _stored(found: Input, options: ReadingOptions) -> StoredImage:
    """Read an input as it is stored."""
    if not found.files:
        return read_stored(found.path, options)
    from cfseg.io.dicom import read_series

    stored = read_series(found.files, options, found.acquisition)
    return replace(stored, notes=(*found.notes, *stored.notes))


def read_stored(path: Path, options: ReadingOptions = AS_IS) -> StoredImage:
    """Read a file as it is stored: MetaImage or NRRD by its first bytes, else NIfTI.

    Raises:
        InputError: it is refused.
    """
    return read_itk(path, options) if is_itk(path) else read_nifti(path, options)


def reading_bytes_of(path: Path, options: ReadingOptions = AS_IS) -> float:
    """Return the memory that reading a file takes by its header; infinite if that says nothing."""
    try:
        return itk_bytes(path, options) if is_itk(path) else nifti_bytes(path, options)
    except InputError:
        return math.inf


def scan_from_image(
    image: nib.Nifti1Image, *, case: str = "image", options: ReadingOptions = AS_IS
) -> Scan:
    """Take a nibabel image in memory for a CT.

    Raises:
        InputError: as :func:`read_scan`.
    """
    return _scan(stored_from_image(image, options), case)


def read_label_map(path: Path, options: ReadingOptions = AS_IS) -> tuple[LabelMap, SourceGrid]:
    """Read a label map from a file onto the canonical axes.

    Args:
        path: the file; the segments of a ``.seg.nrrd`` are told by their names.
        options: those with which its scan was read.

    Returns:
        The label map, and its grid, whose notes say all that had to be decided.

    Raises:
        InputError: the file or its geometry is refused, or a value is not a whole number in 0..255.
    """
    path = Path(path)
    with _naming(path):
        stored = read_stored(path, options.for_labels())
        ids, notes = label_ids(stored.values, stored.slope, stored.inter)
        if stored.segments is not None:
            ids, named = to_flare(ids, stored.segments)
            notes += named
    source = replace(stored.source, notes=(*stored.notes, *notes))
    return LabelMap(source.to_canonical(ids), source.geometry), source


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the input's name in front of a refusal that does not say it."""
    try:
        yield
    except InputError as error:
        if path.name in error.message:
            raise
        raise InputError(f"{path}: {error.message}", code=error.code) from error


def _scan(stored: StoredImage, case: str) -> Scan:
    source = stored.source
    values, about = in_hu(stored.values, source.options.hu_offset)
    hu: npt.NDArray[Any] = source.hu_to_canonical(values)
    return Scan(case, Volume(hu, source.geometry), source, (*stored.notes, *about), stored.sha256)
