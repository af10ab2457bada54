"""Headers of MetaImage files, ``.mha`` and ``.mhd``."""

import re
from pathlib import Path

import numpy as np

from cfseg.errors import InputError
from cfseg.io.image_header import ImageHeader, beside, numbers, sizes, unsupported, whole_numbers

_MARK = re.compile(rb"[=:]")
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_TRUE = ("true", "t", "yes", "1")


def is_metaimage(head: bytes) -> bool:
    """Say whether a file begins like a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", head) is not None and b"NDims" in head


def parse_metaimage(head: bytes, path: Path) -> ImageHeader:
    """Return what a header says.

    Args:
        head: the beginning of the file.
        path: the file.

    Raises:
        InputError: it is broken, or of a kind that is not read.
    """
    fields, end = _fields(head)
    count = whole_numbers(fields.get("NDims", ""), "NDims", 1)[0]
    shape = sizes(fields.get("DimSize", ""), "DimSize", count)
    channels = fields.get("ElementNumberOfChannels", "1")
    kind = fields.get("ElementType", "")
    if channels != "1" or kind not in _TYPES:
        raise InputError(
            f"the voxels are of type {kind[:60] or 'unknown'} with {channels[:60]} channel(s); a "
            "CT has one real number per voxel: convert the scan again from its source",
            code="E_DTYPE",
        )
    if fields.get("BinaryData", "False").lower() not in _TRUE:
        raise unsupported(f"{path} holds its values as text")
    spacing = numbers(
        _first(fields, "ElementSpacing", "ElementSize"), "ElementSpacing or ElementSize", 3
    )
    turn = _first(fields, "TransformMatrix", "Rotation", "Orientation")
    # The file lists the axes one after the other: they are the columns of the direction.
    axes = numbers(turn, "TransformMatrix", 9).reshape(3, 3).T * spacing if turn else None
    name = fields["ElementDataFile"]
    if name.upper().startswith("LIST") or "%" in name:
        raise unsupported(f"{path} is spread over several files")
    is_local = name.upper() == "LOCAL"
    (skip,) = whole_numbers(fields.get("HeaderSize", "0"), "HeaderSize", 1)
    order = _first(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    return ImageHeader(
        format="MetaImage",
        shape=shape,
        dtype=np.dtype(_TYPES[kind]).newbyteorder(">" if order.lower() in _TRUE else "<"),
        axes=axes,
        origin=numbers(_first(fields, "Offset", "Position", "Origin") or "0 0 0", "Offset", 3),
        spacing_mm=spacing,
        units=tuple(fields[key] for key in ("DistanceUnits",) if key in fields),
        encoding="zlib" if fields.get("CompressedData", "").lower() in _TRUE else "raw",
        data_file=None if is_local else beside(path, name),
        start=end if is_local else skip,
    )


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """Return the fields and where the data begins."""
    fields: dict[str, str] = {}
    end = 0
    while end < len(head):
        stop = head.find(b"\n", end)
        line = head[end : stop if stop >= 0 else len(head)]
        end += len(line) + (stop >= 0)
        mark = _MARK.search(line)
        if mark is None:
            break
        name, value = (
            part.strip().decode("utf-8", errors="replace")
            for part in (line[: mark.start()], line[mark.end() :])
        )
        fields[name] = value
        if name == "ElementDataFile":
            return fields, end
    raise InputError(
        "the MetaImage header is damaged: it does not say where the data is", code="E_CORRUPT"
    )


def _first(fields: dict[str, str], *names: str) -> str:
    return next((fields[name] for name in names if name in fields), "")
