"""MetaImage and NRRD: read here, written by ITK.

ITK fills what is missing of a file with zeros and says nothing, and a field of a header that is too
long ends the process. So no file of others gets to it. Both formats count millimetres in LPS (left,
posterior, superior), NIfTI in RAS.
"""

import hashlib
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError, ResourceError, UsageError, is_out_of_memory
from cfseg.foreign import brief
from cfseg.io.affine import LPS_TO_RAS, assumed_affine, no_orientation, unit_notes
from cfseg.io.image_header import MOST_BYTES, ImageHeader
from cfseg.io.memory import check_memory, check_voxels
from cfseg.io.metaimage import is_metaimage, parse_metaimage
from cfseg.io.nifti import StoredImage
from cfseg.io.nrrd import is_nrrd, nrrd_fields, parse_nrrd
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.segments import segments_of
from cfseg.io.source import SourceGrid
from cfseg.io.stream import DEFLATE_LIMIT, GZIP, ZLIB, CheckedStream, file_digest, open_regular
from cfseg.io.values import scaled

_MM = ("mm", "millimeter", "millimeters", "millimetre", "?", "")
_WRITERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}
_SUFFIXES = {"NRRD": (".nrrd", ".nhdr"), "MetaImage": (".mha", ".mhd")}


def is_itk(path: Path) -> bool:
    """Say whether a file is MetaImage or NRRD by its first bytes.

    Raises:
        InputError: it cannot be read.
    """
    with open_regular(path) as handle:
        head = CheckedStream(handle, path, unpack=False).peek(4096)
    return is_nrrd(head) or is_metaimage(head)


def read_itk(path: Path, options: ReadingOptions = AS_IS) -> StoredImage:
    """Read a MetaImage or NRRD file.

    Args:
        path: the file with the header.
        options: what to do where it would be refused.

    Raises:
        InputError: it is damaged, or cannot be a three-dimensional scan.
    """
    header, source, segments = _announced(path, options)
    check_memory(f"reading {path}, {source.shape} voxels,", source.reading_bytes(header.dtype))
    stored, digest = _read_voxels(path, header)
    values, replaced = scaled(stored, 1.0, 0.0, options)
    notes = (*_name_note(path, header), *replaced, *source.notes)
    return StoredImage(values, source, notes, digest, segments=segments)


def itk_bytes(path: Path, options: ReadingOptions = AS_IS) -> int:
    """Return the memory that reading a file takes, by its header.

    Raises:
        InputError: the header is refused.
    """
    header, source, _ = _announced(path, options)
    return source.reading_bytes(header.dtype)


def save_itk(
    path: Path,
    values: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
    fields: Mapping[str, str],
) -> None:
    """Write labels, compressed.

    Args:
        path: ends in ``.nrrd`` or ``.mha``.
        values: (I, J, K).
        affine: (4, 4), index to millimetres in RAS.
        fields: further fields of the header.

    Raises:
        ResourceError: ``E_DISK``, ITK cannot write it.
        UsageError: ``E_EXTRA``, SimpleITK is not there.
    """
    sitk = _sitk()
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    for key, value in fields.items():
        image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(_WRITERS[path.suffix.lower()])
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    try:
        writer.Execute(image)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ResourceError(
            f"{path.name} cannot be written: {_last_line(error)}", code="E_DISK"
        ) from error


def _sitk() -> Any:  # noqa: ANN401 - a module without types
    try:
        sitk: Any = import_module("SimpleITK")
    except ImportError as missing:
        if is_out_of_memory(missing):
            raise
        raise UsageError(
            "to write MetaImage or NRRD takes SimpleITK: pip install 'cfseg[itk]'", code="E_EXTRA"
        ) from missing
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def itk_dtype(path: Path) -> np.dtype[Any]:
    """Return the type of a file's voxels, by its header.

    Raises:
        InputError: the header is refused.
    """
    return _announced(path, AS_IS.for_labels())[0].dtype


def _announced(
    path: Path, options: ReadingOptions
) -> tuple[ImageHeader, SourceGrid, dict[int, str] | None]:
    """Return header, grid and segments, after refusing whatever they show to be no scan."""
    with open_regular(path) as handle:
        head = CheckedStream(handle, path, unpack=False).peek(MOST_BYTES)
    segments = None
    if is_nrrd(head):
        segments = segments_of(nrrd_fields(head)) or None
        header = parse_nrrd(head, path)
    else:
        header = parse_metaimage(head, path)
    check_voxels(f"{path}: the image that the header announces", header.shape)
    affine, notes = _affine(header, options)
    source = SourceGrid.from_affine(affine, header.shape, options, notes)
    return header, source, segments


def _affine(
    header: ImageHeader, options: ReadingOptions
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the affine to RAS, and notes about what had to be decided for it."""
    notes = []
    if unknown := [unit for unit in header.units if unit.lower() not in _MM]:
        notes += unit_notes(brief(unknown[0]), options)
    if header.axes is not None:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = header.axes, header.origin
        return LPS_TO_RAS @ affine, notes
    if options.assume_orientation is None:
        raise no_orientation("the header does not name the space that its axes lie in", options)
    notes.append(f"orientation_assumed: {options.assume_orientation}, as the header has none")
    return assumed_affine(header.spacing_mm, options.assume_orientation), notes


def _read_voxels(path: Path, header: ImageHeader) -> tuple[npt.NDArray[Any], str]:
    """Return the values (I, J, K) as stored and the digest of all bytes.

    Raises:
        InputError: ``E_CORRUPT``, there are more or fewer of them than the header announces.
    """
    if header.data_file is None:
        return _data_of(path, header)
    try:
        values, data = _data_of(header.data_file, header)
    except InputError as error:
        if error.code != "E_MISSING":
            raise
        raise _corrupt(path, f"its data, {header.data_file.name}, is not there") from error
    both = bytes.fromhex(file_digest(path) + data)
    return values, hashlib.sha256(both).hexdigest()


def _data_of(path: Path, header: ImageHeader) -> tuple[npt.NDArray[Any], str]:
    """Return the values that lie in a file and its digest."""
    expected = math.prod(header.shape) * header.dtype.itemsize
    with open_regular(path) as handle:
        stream = CheckedStream(handle, path, unpack=False)
        start = header.start if header.start >= 0 else max(0, stream.size - expected)
        there = stream.size - start
        if (there if header.encoding == "raw" else there * DEFLATE_LIMIT) < expected:
            raise _corrupt(
                path,
                f"the file is truncated: {stream.size} bytes cannot hold the {expected} of data "
                "that the header announces",
            )
        if header.encoding == "raw" and there > expected:
            raise _corrupt(path, "the file is longer than its header announces")
        stream.skip(start)
        if header.encoding != "raw":
            stream.inflate(GZIP if header.encoding == "gzip" else ZLIB)
        values = np.empty(expected, dtype=np.uint8)
        found = stream.read_into(values.data)
        if found < expected:
            raise _corrupt(path, f"the file is truncated: {found} of {expected} bytes of data")
        if not stream.at_end():
            raise _corrupt(path, "the file is longer than its header announces")
        return values.view(header.dtype).reshape(header.shape, order="F"), stream.sha256


def _name_note(path: Path, header: ImageHeader) -> list[str]:
    if path.name.lower().endswith(_SUFFIXES[header.format]):
        return []
    return [f"name_mismatch: the file is {header.format}, unlike its name"]


def _corrupt(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; copy or download it again", code="E_CORRUPT")


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
