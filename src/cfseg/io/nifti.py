"""NIfTI files in: the header is judged before memory is asked for, the data to its last byte."""

import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError

from cfseg.errors import InputError
from cfseg.io.memory import check_memory
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.source import SourceGrid
from cfseg.io.stream import CheckedStream, describe, open_regular
from cfseg.io.values import scaled

MAX_VOXELS = 1_500_000_000
MAX_EXTENSION_BYTES = 64 << 20
_NIFTI1_SIZE, _NIFTI2_SIZE = 348, 540


@dataclass(frozen=True)
class StoredImage:
    """An image as it lies in a file, on the file's own axes.

    Attributes:
        values: (I, J, K), scaled: int16 where the values allow it, else float32.
        source: the grid of ``values``.
        notes: what had to be decided while reading.
        sha256: digest of the input.
    """

    values: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    source: SourceGrid
    notes: tuple[str, ...]
    sha256: str


def read_nifti(path: Path, options: ReadingOptions = AS_IS) -> StoredImage:
    """Read a NIfTI file, compressed or not, whatever its name says.

    Args:
        path: the file.
        options: what to do where it would be refused.

    Raises:
        InputError: the file is not NIfTI, is damaged, or cannot be a three-dimensional scan.
    """
    with open_regular(path) as handle:
        stream = CheckedStream(handle, path)
        header = _read_header(stream)
        dims = _dims(header)
        part, notes = _one_volume(dims, options)
        shape = (dims[0], dims[1], dims[2])
        source = SourceGrid.from_header(header, shape, options)
        raw = _read_data(stream, header, dims, part)
        slope, inter, scaling = _scaling(header)
        values, replaced = scaled(raw, slope, inter, options)
        notes = [*_name_note(path, stream.layers), *notes, *scaling, *replaced, *source.notes]
        return StoredImage(values, source, tuple(notes), stream.sha256)


def stored_from_image(image: nib.Nifti1Image, options: ReadingOptions = AS_IS) -> StoredImage:
    """Take a nibabel image as it is in memory; its affine counts, whatever its header says.

    Raises:
        InputError: as :func:`read_nifti`.
    """
    header = _image_header(image)
    dims = _dims(header)
    part, notes = _one_volume(dims, options)
    shape = (dims[0], dims[1], dims[2])
    try:
        raw = np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the image's data cannot be read: {error}", code="E_CORRUPT") from error
    source = SourceGrid.from_header(header, shape, options)
    volume = raw.reshape((*shape, -1), order="F")[..., part]
    values, replaced = scaled(volume, 1.0, 0.0, options)
    digest = hashlib.sha256(np.ascontiguousarray(values.T).data)
    digest.update(source.affine.tobytes())
    return StoredImage(values, source, (*notes, *replaced, *source.notes), digest.hexdigest())


def _image_header(image: nib.Nifti1Image) -> nib.Nifti1Header:
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(
            f"a {type(image).__name__} is not a NIfTI image; make one with "
            "nibabel.Nifti1Image(image.dataobj, image.affine)",
            code="E_FORMAT",
        )
    header: nib.Nifti1Header = image.header.copy()
    header.set_data_shape(image.shape)
    affine = image.affine
    if affine is not None and not np.allclose(header.get_best_affine(), affine, equal_nan=True):
        header.set_sform(affine, code=max(1, int(header["sform_code"])))
        header.set_qform(None, code=0)
    return header


def _read_header(stream: CheckedStream) -> nib.Nifti1Header:
    head = stream.peek(_NIFTI2_SIZE)
    if head[344:348] == b"ni1\0":
        raise InputError(
            f"{stream.path} is one half of a .hdr/.img pair; convert it to one .nii.gz file",
            code="E_FORMAT",
        )
    is_nifti2 = head[4:12] == b"n+2\0\r\n\x1a\n"
    if head[344:348] != b"n+1\0" and not is_nifti2:
        raise InputError(
            f"{stream.path} is not a NIfTI file: it is {describe(head)}", code="E_FORMAT"
        )
    kind: type[nib.Nifti1Header] = nib.Nifti2Header if is_nifti2 else nib.Nifti1Header
    size = _NIFTI2_SIZE if is_nifti2 else _NIFTI1_SIZE
    if len(head) < size:
        raise _corrupt(stream, f"the header ends after {len(head)} bytes")
    try:
        header = kind(binaryblock=head[:size], check=False)
    except (HeaderDataError, ValueError) as error:
        raise _corrupt(stream, f"the header is damaged ({error})") from error
    if int(header["sizeof_hdr"]) != size:
        raise _corrupt(stream, f"the header says it is {int(header['sizeof_hdr'])} bytes long")
    return header


def _dims(header: nib.Nifti1Header) -> list[int]:
    """Return the dimensions, three at least, after refusing all that is no volume."""
    count = int(header["dim"][0])
    dims = [int(n) for n in header["dim"][1 : count + 1]]
    if not 1 <= count <= 7 or min(dims) < 0:
        raise InputError(f"the header's dimensions are {header['dim'].tolist()}", code="E_CORRUPT")
    if 0 in dims:
        raise InputError(f"the image has no voxels: its shape is {dims}", code="E_TOO_FEW_SLICES")
    if count < 3:
        raise InputError(
            f"the image has {count} dimension(s), {dims}; a CT volume has three", code="E_NDIM"
        )
    return dims


def _one_volume(dims: list[int], options: ReadingOptions) -> tuple[int, list[str]]:
    """Return which of the stored volumes is read, and a note where there was a choice."""
    count, index = math.prod(dims[3:]), options.volume_index
    if count == 1:
        return 0, [f"squeezed: the stored shape is {dims}"] if len(dims) > 3 else []
    if index is None:
        raise InputError(
            f"the image has shape {dims}: more than one volume; say which one with --volume-index "
            f"0..{count - 1}, or save it as an image with three dimensions",
            code="E_NDIM",
        )
    if index >= count:
        raise InputError(
            f"there is no volume {index}: the image has {count} of shape {dims[:3]}; give "
            f"--volume-index 0..{count - 1}",
            code="E_NDIM",
        )
    return index, [f"volume_index: volume {index} of {count}, counted from 0"]


def _read_data(
    stream: CheckedStream, header: nib.Nifti1Header, dims: list[int], part: int
) -> npt.NDArray[Any]:
    """Return the raw values (I, J, K) of one volume, having compared every length."""
    dtype = _dtype(header)
    shape = (dims[0], dims[1], dims[2])
    voxels = math.prod(shape)
    if voxels > MAX_VOXELS:
        raise InputError(
            f"{stream.path}: the header announces {voxels / 1e9:.1f}e9 voxels {shape}; at most "
            f"{MAX_VOXELS / 1e9:.1f}e9 are read; crop or resample the scan",
            code="E_TOO_LARGE",
        )
    offset, data_bytes = _offset(stream, header), voxels * dtype.itemsize
    whole = data_bytes * math.prod(dims[3:])
    if offset + whole > stream.most_bytes:
        raise _corrupt(
            stream,
            f"the file is truncated: {stream.size} bytes cannot hold the {offset + whole} "
            "that the header announces",
        )
    check_memory(f"reading {stream.path}, {shape} voxels,", reading_bytes(voxels, dtype))
    before = stream.skip(offset + part * data_bytes) - offset
    values = np.empty(data_bytes, dtype=np.uint8)
    filled = stream.read_into(values.data)
    after = stream.skip(whole - (part + 1) * data_bytes)
    if before + filled + after < whole:
        raise _corrupt(
            stream, f"the file is truncated: {before + filled + after} of {whole} bytes of data"
        )
    if not stream.at_end():
        raise _corrupt(stream, "the file is longer than its header announces")
    return values.view(dtype).reshape(shape, order="F")


def reading_bytes(voxels: int, dtype: np.dtype[Any]) -> int:
    """Return the memory that reading takes at its peak: as stored, in HU, on the canonical axes."""
    return voxels * (dtype.itemsize + 2 * min(4, max(2, dtype.itemsize)))


def reading_bytes_of(path: Path) -> float:
    """Return the memory that reading a file takes by its header; infinite if that says nothing."""
    try:
        with open_regular(path) as handle:
            header = _read_header(CheckedStream(handle, path))
        return reading_bytes(math.prod(_dims(header)[:3]), _dtype(header))
    except (InputError, OSError):
        return math.inf


def _dtype(header: nib.Nifti1Header) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError) as error:
        raise InputError(f"the header's data type is {code}: unknown", code="E_DTYPE") from error
    if dtype.names is not None or dtype.kind not in "iuf":
        raise InputError(
            f"the voxels are of type {data_type_codes.label[code]}; a CT has one real number per "
            "voxel: convert the scan again from its source",
            code="E_DTYPE",
        )
    if int(header["bitpix"]) != dtype.itemsize * 8:
        raise InputError(
            f"the header says {int(header['bitpix'])} bits per voxel for type {dtype}",
            code="E_CORRUPT",
        )
    return dtype


def _offset(stream: CheckedStream, header: nib.Nifti1Header) -> int:
    offset = float(header["vox_offset"])
    least = int(header.single_vox_offset)
    if not math.isfinite(offset) or not least <= offset <= MAX_EXTENSION_BYTES:
        raise _corrupt(stream, f"the header puts the data at byte {offset:g}")
    return int(offset)


def _scaling(header: nib.Nifti1Header) -> tuple[float, float, list[str]]:
    """Return slope and intercept; a slope of 0 or NaN means none, as in nibabel."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        return 1.0, 0.0, [f"scaling_ignored: the header's slope is {slope:g}"]
    if not math.isfinite(inter):
        raise InputError(f"the header's intercept is {inter:g}; repair it", code="E_CORRUPT")
    return slope, inter, []


def _name_note(path: Path, layers: int) -> list[str]:
    expected = path.name.lower().count(".gz")
    if layers == expected:
        return []
    return [f"name_mismatch: the data is {'' if layers else 'not '}compressed, unlike the name"]


def _corrupt(stream: CheckedStream, what: str) -> InputError:
    return InputError(f"{stream.path}: {what}; copy or download it again", code="E_CORRUPT")
