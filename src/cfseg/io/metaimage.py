"""Headers of MetaImage files, ``.mha`` and ``.mhd``."""

import re
from pathlib import Path

import numpy as np

from cfseg.errors import InputError
from cfseg.io.image_header import ImageHeader, beside, numbers, sizes, unsupported, whole

_LINE = re.compile(rb"[ \t]*([^=:\r\n]+?)[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*(?:\r?\n|\Z)")
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
    count = whole(fields.get("NDims", ""), "NDims")
    shape = sizes(fields.get("DimSize", ""), "DimSize", count)
    channels = fields.get("ElementNumberOfChannels", "1")
    kind = fields.get("ElementType", "")
    if channels != "1" or kind not in _TYPES:
        raise InputError(
            f"the voxels are of type {kind or 'unknown'} with {channels} channel(s); a CT has one "
            "real number per voxel: convert the scan again from its source",
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
    skip = whole(fields.get("HeaderSize", "0"), "HeaderSize")
    return ImageHeader(
        image_io="MetaImageIO",
        shape=shape,
        dtype=np.dtype(_TYPES[kind]),
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
    while (line := _LINE.match(head, end)) and line.end() > end:
        end = line.end()
        name, value = (part.decode("utf-8", errors="replace") for part in line.groups())
        fields[name] = value
        if name == "ElementDataFile":
            return fields, end
    raise InputError(
        "the MetaImage header is damaged: it does not say where the data is", code="E_CORRUPT"
    )


def _first(fields: dict[str, str], *names: str) -> str:
    return next((fields[name] for name in names if name in fields), "")
