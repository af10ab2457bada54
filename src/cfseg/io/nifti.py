"""NIfTI files in: the header is judged before memory is asked for, the data to its last byte."""

import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError

from cfseg.errors import InputError
from cfseg.io.memory import check_memory, check_voxels
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.source import SourceGrid
from cfseg.io.stream import CHUNK, CheckedStream, describe, open_regular
from cfseg.io.values import scaled

MAX_EXTENSION_BYTES = 64 << 20
_NIFTI1_SIZE, _NIFTI2_SIZE = 348, 540
_ANALYZE = _NIFTI1_SIZE.to_bytes(4, "little")


@dataclass(frozen=True)
class StoredImage:
    """An image as it lies in a file, on the file's own axes.

    Attributes:
        values: (I, J, K), scaled: int16 where the values allow it, else float32.
        source: the grid of ``values``.
        notes: what had to be decided while reading.
        sha256: digest of the input.
        slope: with which ``values`` were scaled.
        inter: with which they were.
        segments: {value: name} of a file that names its labels itself.
    """

    values: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    source: SourceGrid
    notes: tuple[str, ...]
    sha256: str
    slope: float = 1.0
    inter: float = 0.0
    segments: Mapping[int, str] | None = None


@dataclass(frozen=True)
class _Announced:
    """What a header says about the data, judged already.

    Attributes:
        source: the grid.
        dims: of all that is stored.
        part: which of the stored volumes is read.
        dtype: of the voxels as stored.
        offset: of the data, in bytes.
        slope: of the values.
        inter: intercept of the values.
        notes: what had to be decided.
    """

    source: SourceGrid
    dims: list[int]
    part: int
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    notes: tuple[str, ...]


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
        said = _announced(stream, options)
        needed = said.source.reading_bytes(said.dtype)
        check_memory(f"reading {path}, {said.source.shape} voxels,", needed)
        raw = _read_data(stream, said)
        values, replaced = scaled(raw, said.slope, said.inter, options)
        notes = (*_name_note(path, stream.layers), *said.notes, *replaced, *said.source.notes)
        return StoredImage(
            values, said.source, notes, stream.sha256, slope=said.slope, inter=said.inter
        )


def nifti_bytes(path: Path, options: ReadingOptions = AS_IS) -> int:
    """Return the memory that reading a file takes, by its header.

    Raises:
        InputError: the header is refused.
    """
    with open_regular(path) as handle:
        said = _announced(CheckedStream(handle, path), options)
        return said.source.reading_bytes(said.dtype)


def stored_pieces(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Yield the scaled voxels of a file in pieces, in the order in which they are stored.

    What is stored in bytes is yielded as bytes, if it is not scaled. A reader may stop any time; no
    length is compared.

    Raises:
        InputError: the header is refused, or the stream is damaged.
    """
    with open_regular(path) as handle:
        stream = CheckedStream(handle, path)
        said = _announced(stream, AS_IS.for_labels())
        stream.skip(said.offset)
        piece = bytearray(CHUNK)
        while count := stream.read_into(memoryview(piece)):
            raw = np.frombuffer(piece, said.dtype, count // said.dtype.itemsize)
            if (said.slope, said.inter) != (1, 0):
                with np.errstate(over="ignore", invalid="ignore"):
                    raw = raw * said.slope + said.inter
            yield raw


def _announced(stream: CheckedStream, options: ReadingOptions) -> _Announced:
    """Return what the header says, after refusing whatever it shows to be no scan."""
    header = _read_header(stream)
    dims = _dims(header)
    part, chosen = _one_volume(dims, options)
    shape = (dims[0], dims[1], dims[2])
    dtype, offset = _dtype(header), _offset(stream, header)
    slope, inter, scaling = _scaling(header)
    source = SourceGrid.from_header(header, shape, options)
    check_voxels(f"{stream.path}: the image that the header announces", shape)
    end = offset + math.prod(dims) * dtype.itemsize
    if end > stream.most_bytes:
        raise _corrupt(
            stream,
            f"the file is truncated: {stream.size} bytes cannot hold the {end} that the header "
            "announces",
        )
    notes = (*chosen, *scaling)
    return _Announced(source, dims, part, dtype, offset, slope, inter, notes)


def stored_from_image(image: nib.Nifti1Image, options: ReadingOptions = AS_IS) -> StoredImage:
    """Take a nibabel image as it is in memory; its affine counts, whatever its header says.

    Raises:
        InputError: as :func:`read_nifti`.
    """
    header = _image_header(image)
    dims = _dims(header)
    part, notes = _one_volume(dims, options)
    shape = (dims[0], dims[1], dims[2])
    source = SourceGrid.from_header(header, shape, options)
    check_memory(f"reading an image of {shape} voxels", source.reading_bytes(_dtype(header)))
    try:
        raw = np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the image's data cannot be read: {error}", code="E_CORRUPT") from error
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
    if head[:4] in (_ANALYZE, _ANALYZE[::-1]) and head[344:347] != b"n+1":
        raise InputError(
            f"{stream.path} is an Analyze 7.5 header, which does not say where left and right are; "
            "convert the scan again from its source, to one .nii.gz file",
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
        advice = options.advice(
            f"say which one with --volume-index 0..{count - 1}, or save it as an image with three "
            "dimensions"
        )
        raise InputError(
            f"the image has shape {dims}: more than one volume; {advice}", code="E_NDIM"
        )
    if index >= count:
        raise InputError(
            f"there is no volume {index}: the image has {count} of shape {dims[:3]}; give "
            f"--volume-index 0..{count - 1}",
            code="E_NDIM",
        )
    return index, [f"volume_index: volume {index} of {count}, counted from 0"]


def _read_data(stream: CheckedStream, said: _Announced) -> npt.NDArray[Any]:
    """Return the raw values (I, J, K) of one volume, having compared every length."""
    size = math.prod(said.source.shape) * said.dtype.itemsize
    whole = size * math.prod(said.dims[3:])
    before = stream.skip(said.offset + said.part * size) - said.offset
    values = np.empty(size, dtype=np.uint8)
    filled = stream.read_into(values.data)
    after = stream.skip(whole - (said.part + 1) * size)
    if before + filled + after < whole:
        raise _corrupt(
            stream, f"the file is truncated: {before + filled + after} of {whole} bytes of data"
        )
    if not stream.at_end():
        raise _corrupt(stream, "the file is longer than its header announces")
    return values.view(said.dtype).reshape(said.source.shape, order="F")


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
