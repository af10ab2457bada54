"""NIfTI files in: the header is judged before memory is asked for, the data to its last byte."""

import hashlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError

from cfseg.errors import InputError
from cfseg.geometry import Triple
from cfseg.io.source import SourceGrid
from cfseg.io.stream import CheckedStream, describe, open_regular

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


def read_nifti(path: Path) -> StoredImage:
    """Read a NIfTI file, compressed or not, whatever its name says.

    Raises:
        InputError: the file is not NIfTI, is damaged, or cannot be a three-dimensional scan.
    """
    with open_regular(path) as handle:
        stream = CheckedStream(handle, path)
        header = _read_header(stream)
        shape, notes = _shape(header)
        raw = _read_data(stream, header, shape)
        source = SourceGrid.from_header(header, shape)
        slope, inter, scaling = _scaling(header)
        values = scaled(raw, slope, inter)
        notes = [*_name_note(path, stream.layers), *notes, *scaling, *source.notes]
        return StoredImage(values, source, tuple(notes), stream.sha256)


def stored_from_image(image: nib.Nifti1Image) -> StoredImage:
    """Take a nibabel image as it is in memory; its affine counts, whatever its header says.

    Raises:
        InputError: as :func:`read_nifti`.
    """
    header = _image_header(image)
    shape, notes = _shape(header)
    try:
        raw = np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the image's data cannot be read: {error}", code="E_CORRUPT") from error
    source = SourceGrid.from_header(header, shape)
    values = scaled(raw.reshape(shape, order="A"), 1.0, 0.0)
    digest = hashlib.sha256(np.ascontiguousarray(values.T).data)
    digest.update(source.affine.tobytes())
    return StoredImage(values, source, (*notes, *source.notes), digest.hexdigest())


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


def _shape(header: nib.Nifti1Header) -> tuple[Triple, list[str]]:
    """Return the three dimensions, without trailing ones, after refusing all that has others."""
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
    if max(dims[3:], default=1) > 1:
        raise InputError(
            f"the image has shape {dims}: more than one volume; save the one you want as an image "
            "with three dimensions",
            code="E_NDIM",
        )
    notes = [f"squeezed: the stored shape is {dims}"] if count > 3 else []
    return (dims[0], dims[1], dims[2]), notes


def _read_data(stream: CheckedStream, header: nib.Nifti1Header, shape: Triple) -> npt.NDArray[Any]:
    """Return the raw values (I, J, K), having compared every length with the header's."""
    dtype = _dtype(header)
    voxels = math.prod(shape)
    if voxels > MAX_VOXELS:
        raise InputError(
            f"{stream.path}: the header announces {voxels / 1e9:.1f}e9 voxels {shape}; at most "
            f"{MAX_VOXELS / 1e9:.1f}e9 are read; crop or resample the scan",
            code="E_TOO_LARGE",
        )
    offset, data_bytes = _offset(stream, header), voxels * dtype.itemsize
    if offset + data_bytes > stream.most_bytes:
        raise _corrupt(
            stream,
            f"the file is truncated: {stream.size} bytes cannot hold the {offset + data_bytes} "
            "that the header announces",
        )
    stream.read_into(memoryview(bytearray(offset)))
    values = np.empty(data_bytes, dtype=np.uint8)
    filled = stream.read_into(values.data)
    if filled < data_bytes:
        raise _corrupt(stream, f"the file is truncated: {filled} of {data_bytes} bytes of data")
    if not stream.at_end():
        raise _corrupt(stream, "the file is longer than its header announces")
    return values.view(dtype).reshape(shape, order="F")


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


def scaled(
    raw: npt.NDArray[Any], slope: float, inter: float
) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    """Return ``raw * slope + inter``: int16 if that is exact, else float32.

    Works slab by slab, so no copy in double precision of the whole image ever exists.

    Raises:
        InputError: ``E_DTYPE`` for anything but real numbers, ``E_NONFINITE`` for NaN or infinity.
    """
    if raw.dtype.kind not in "iufb":
        raise InputError(f"the voxels are of type {raw.dtype}, not real numbers", code="E_DTYPE")
    if raw.dtype.kind == "f":
        check_finite(raw)
    if raw.dtype == np.int16 and slope == 1 and inter == 0:
        return raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if raw.dtype.kind in "iub" and slope == 1 and inter.is_integer() and raw.size:
        bounds = np.iinfo(np.int16)
        if bounds.min <= int(raw.min()) + inter and int(raw.max()) + inter <= bounds.max:
            return _by_slab(raw, np.int16, lambda slab: slab.astype(np.int64) + int(inter))
    limit = float(np.finfo(np.float32).max)
    return _by_slab(
        raw,
        np.float32,
        lambda slab: np.clip(slab.astype(np.float64) * slope + inter, -limit, limit),
    )


def _by_slab(
    raw: npt.NDArray[Any],
    dtype: type[Any],
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    out = np.empty(raw.shape, dtype=dtype, order="F")
    for k in range(raw.shape[-1]):
        out[..., k] = convert(raw[..., k])
    return out


def check_finite(values: npt.NDArray[Any]) -> None:
    """Refuse NaN and infinity.

    Raises:
        InputError: ``E_NONFINITE`` with the count and the first index.
    """
    count, first = 0, None
    for k in range(values.shape[-1]):
        bad = ~np.isfinite(values[..., k])
        if bad.any():
            count += int(bad.sum())
            first = first or (*(int(i) for i in np.argwhere(bad)[0]), k)
    if first is not None:
        raise InputError(
            f"{count} voxels are NaN or infinite, the first at index {first}; replace them, by "
            "-1024 where they stand for air",
            code="E_NONFINITE",
        )


def _name_note(path: Path, layers: int) -> list[str]:
    expected = path.name.lower().count(".gz")
    if layers == expected:
        return []
    return [f"name_mismatch: the data is {'' if layers else 'not '}compressed, unlike the name"]


def _corrupt(stream: CheckedStream, what: str) -> InputError:
    return InputError(f"{stream.path}: {what}; copy or download it again", code="E_CORRUPT")
