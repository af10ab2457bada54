"""One CT, read and checked, with the way back to its own grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.geometry import Geometry
from cfseg.io.found import Input
from cfseg.io.hounsfield import check_label_values, in_hu
from cfseg.io.listing import the_input
from cfseg.io.names import case_names
from cfseg.io.nifti import StoredImage, read_nifti, stored_from_image
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.source import SourceGrid
from cfseg.volume import LabelMap, Volume

IN_PLANE_MM = (0.1, 5.0)
SLICE_MM = (0.1, 20.0)
THIN_SLICES = 15
THIN_MM = 40.0
ANISOTROPY_NOTED = 8.0


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
        return read_nifti(found.path, options)
    from cfseg.io.dicom import read_series

    stored = read_series(found.files, options, found.acquisition)
    return replace(stored, notes=(*found.notes, *stored.notes))


def scan_from_image(
    image: nib.Nifti1Image, *, case: str = "image", options: ReadingOptions = AS_IS
) -> Scan:
    """Take a nibabel image in memory for a CT.

    Raises:
        InputError: as :func:`read_scan`.
    """
    return _scan(stored_from_image(image, options), case)


def read_label_map(path: Path, options: ReadingOptions = AS_IS) -> tuple[LabelMap, SourceGrid]:
    """Read a label map from a NIfTI file onto the canonical axes.

    Args:
        path: the file.
        options: those with which its scan was read.

    Raises:
        InputError: the file or its geometry is refused, or a value is not a whole number in 0..255.
    """
    path = Path(path)
    with _naming(path):
        stored = read_nifti(path, options)
        ids = check_label_values(stored.values)
    source = stored.source
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
    geometry = stored.source.geometry
    options = stored.source.options
    _check_slices(geometry)
    forced = _check_spacing(geometry, options)
    values, about = in_hu(stored.values, options.hu_offset)
    notes = (*stored.notes, *forced, *_grid_notes(geometry), *about)
    hu: npt.NDArray[Any] = stored.source.hu_to_canonical(values)
    volume = Volume(hu, geometry)
    return Scan(case, volume, stored.source, notes, stored.sha256)


def _check_slices(geometry: Geometry) -> None:
    if min(geometry.shape) < 2:
        raise InputError(
            f"the volume has {geometry.shape} voxels along (z, y, x); at least two slices are "
            "needed along each axis",
            code="E_TOO_FEW_SLICES",
        )


def _check_spacing(geometry: Geometry, options: ReadingOptions) -> list[str]:
    allowed = (SLICE_MM, IN_PLANE_MM, IN_PLANE_MM)
    for axis, mm, (least, most) in zip("zyx", geometry.spacing_mm, allowed, strict=True):
        if least <= mm <= most:
            continue
        found = f"the spacing along {axis} is {mm:.4g} mm, outside {least} to {most} mm"
        if options.force_spacing:
            return [f"spacing_forced: {found}"]
        raise InputError(
            f"{found}; is the header in another unit than mm? Repair it, or pass --force-spacing "
            "if it is right",
            code="E_SPACING",
        )
    return []


def _grid_notes(geometry: Geometry) -> list[str]:
    notes = []
    slices, spacing_mm = geometry.shape[0], geometry.spacing_mm
    extent_mm = slices * spacing_mm[0]
    if slices <= THIN_SLICES or extent_mm < THIN_MM:
        notes.append(f"thin_volume: {slices} slices over {extent_mm:.0f} mm")
    ratio = max(spacing_mm) / min(spacing_mm)
    if ratio > ANISOTROPY_NOTED:
        notes.append(f"anisotropic: the longest spacing is {ratio:.1f} times the shortest")
    return notes
