"""Headers of NRRD files, ``.nrrd`` and ``.nhdr``."""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.foreign import brief
from cfseg.io.image_header import (
    Encoding,
    ImageHeader,
    beside,
    damaged,
    numbers,
    sizes,
    unsupported,
    whole_numbers,
)

_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_SPACES = {
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
}
"""Signs that turn a space's axes to left, posterior, superior."""
_ENCODINGS: dict[str, Encoding] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
_VECTOR = re.compile(r"\(([^()]*)\)|none", re.IGNORECASE)


def is_nrrd(head: bytes) -> bool:
    """Say whether a file begins like NRRD."""
    return head.startswith(b"NRRD000")


def parse_nrrd(head: bytes, path: Path) -> ImageHeader:
    """Return what a header says.

    Args:
        head: the beginning of the file.
        path: the file.

    Raises:
        InputError: it is broken, or of a kind that is not read.
    """
    fields, end = _fields(head)
    count = whole_numbers(fields.get("dimension", ""), "dimension", 1)[0]
    shape = sizes(fields.get("sizes", ""), "sizes", count)
    axes, spacing = _axes(fields)
    encoding = fields.get("encoding", "")
    if encoding.lower() not in _ENCODINGS:
        raise unsupported(f"{path} holds its values encoded as {brief(encoding)}")
    data_file, start = _place(fields, path, end, _ENCODINGS[encoding.lower()])
    return ImageHeader(
        format="NRRD",
        shape=shape,
        dtype=_dtype(fields),
        axes=axes,
        origin=_origin(fields) if axes is not None else np.zeros(3),
        spacing_mm=spacing,
        units=tuple(re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))),
        encoding=_ENCODINGS[encoding.lower()],
        data_file=data_file,
        start=start,
    )


def nrrd_fields(head: bytes) -> dict[str, str]:
    """Return the fields and key-value pairs of a header, names of fields in lower case."""
    return _fields(head)[0]


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """Return fields, key-value pairs, and where the data begins: behind an empty line."""
    fields: dict[str, str] = {}
    end = head.find(b"\n") + 1
    while 0 < end < len(head):
        stop = head.find(b"\n", end)
        stop = len(head) if stop < 0 else stop
        line = head[end:stop].rstrip(b"\r").decode("utf-8", errors="replace")
        end = stop + 1
        if not line:
            break
        if line.startswith("#"):
            continue
        name, mark, value = line.partition(":=")
        if not mark:
            name, mark, value = line.partition(":")
            name = name.strip().lower()
        if not mark:
            raise damaged(line, "line")
        fields[name] = value.strip()
    return fields, min(end, len(head))


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    kind = fields.get("type", "")
    if kind.lower() not in _DTYPES:
        raise InputError(
            f"the voxels are of type {brief(kind) if kind else 'unknown'}; a CT has one real "
            "number per voxel: convert the scan again from its source",
            code="E_DTYPE",
        )
    dtype, endian = np.dtype(_DTYPES[kind.lower()]), fields.get("endian", "")
    if dtype.itemsize == 1:
        return dtype
    if endian.lower() not in _ORDERS:
        raise damaged(endian, "endian")
    return dtype.newbyteorder(_ORDERS[endian.lower()])


def _axes(
    fields: dict[str, str],
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]:
    """Return the axes in LPS, None if the header names no anatomical space, and the spacing."""
    directions = fields.get("space directions")
    if directions is None:
        spacings = fields.get("spacings")
        return None, np.full(3, np.nan) if spacings is None else numbers(spacings, "spacings", 3)
    vectors = [found[1] for found in _VECTOR.finditer(directions)]
    if len(vectors) != 3 or None in vectors:
        raise InputError(
            f"the header's space directions are {brief(directions)}: a CT volume has three axes in "
            "space",
            code="E_NDIM",
        )
    axes = np.stack([numbers(text, "space directions", 3) for text in vectors], axis=1)
    signs = _SPACES.get(fields.get("space", "").lower())
    spacing: npt.NDArray[np.float64] = np.linalg.norm(axes, axis=0)
    return None if signs is None else np.diag(signs) @ axes, spacing


def _origin(fields: dict[str, str]) -> npt.NDArray[np.float64]:
    text = fields.get("space origin", "(0,0,0)").strip("() ")
    return np.asarray(_SPACES[fields["space"].lower()]) * numbers(text, "space origin", 3)


def _place(
    fields: dict[str, str], path: Path, end: int, encoding: Encoding
) -> tuple[Path | None, int]:
    """Return the file that holds the data, None if it is this one, and where that begins."""
    name = fields.get("data file", fields.get("datafile"))
    (skip,) = whole_numbers(fields.get("byte skip", fields.get("byteskip", "0")), "byte skip", 1)
    lines = fields.get("line skip", fields.get("lineskip", "0"))
    if lines != "0" or (skip and encoding != "raw"):
        raise unsupported(f"{path} has something in front of its data")
    if name is None:
        return None, end + skip if skip >= 0 else -1
    if name.upper().startswith("LIST") or "%" in name:
        raise unsupported(f"{path} is spread over several files")
    return beside(path, name), skip
