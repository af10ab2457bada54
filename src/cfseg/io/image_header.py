"""What the text header of a MetaImage or an NRRD file says, before any voxel is read."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.geometry import Triple

MOST_BYTES = 4 << 20
"""Of a header; 3D Slicer writes a few lines for each segment."""
Encoding = Literal["raw", "gzip", "zlib"]


@dataclass(frozen=True)
class ImageHeader:
    """A header, parsed.

    Attributes:
        image_io: ITK's name of the reader.
        shape: voxels along each stored axis, the fastest first.
        dtype: of the voxels.
        axes: (3, 3), a step along each stored axis in mm, in columns, in LPS; None where the header
            does not say where the axes point to.
        origin: of the first voxel, in mm, in LPS.
        spacing_mm: along the stored axes.
        units: of length, as they are called; empty if the header does not say.
        encoding: of the data.
        data_file: that holds the data; None if it follows the header.
        start: of the data in its file, in bytes; -1: it is the file's end.
    """

    image_io: str
    shape: Triple
    dtype: np.dtype[Any]
    axes: npt.NDArray[np.float64] | None
    origin: npt.NDArray[np.float64]
    spacing_mm: npt.NDArray[np.float64]
    units: tuple[str, ...]
    encoding: Encoding
    data_file: Path | None
    start: int


def numbers(text: str, what: str, count: int) -> npt.NDArray[np.float64]:
    """Return the numbers of a field; NaN stands in NRRD for what is not known.

    Args:
        text: the field's value.
        what: the field's name.
        count: how many there must be.

    Raises:
        InputError: ``E_CORRUPT``, it is something else.
    """
    try:
        found = np.array([float(word) for word in re.split(r"[\s,]+", text.strip())])
    except ValueError:
        found = np.empty(0)
    if found.size != count or np.isinf(found).any():
        raise _no_value(text, what)
    return found


def whole(text: str, what: str) -> int:
    """Return the whole number of a field.

    Raises:
        InputError: ``E_CORRUPT``, it is something else.
    """
    return _whole(numbers(text, what, 1), text, what)[0]


def _whole(found: npt.NDArray[np.float64], text: str, what: str) -> list[int]:
    if (found != np.rint(found)).any():
        raise _no_value(text, what)
    return [int(n) for n in found]


def sizes(text: str, what: str, count: int) -> Triple:
    """Return the numbers of voxels along the three axes.

    Raises:
        InputError: ``E_CORRUPT`` for what is no size, ``E_NDIM`` for fewer or more than three axes,
            ``E_TOO_FEW_SLICES`` for none along one.
    """
    shape = _whole(numbers(text, what, count), text, what)
    if min(shape, default=0) < 0:
        raise _no_value(text, what)
    if count != 3:
        raise InputError(
            f"the image has {count} dimension(s), {shape}; a CT volume has three: save it as "
            "an image of its own",
            code="E_NDIM",
        )
    if 0 in shape:
        raise InputError(f"the image has no voxels: its shape is {shape}", code="E_TOO_FEW_SLICES")
    return shape[0], shape[1], shape[2]


def _no_value(text: str, what: str) -> InputError:
    return InputError(
        f"the header's {what} is {text[:60]!r}; repair it, or save the image again",
        code="E_CORRUPT",
    )


def beside(header: Path, name: str) -> Path:
    """Return the file with the data, which lies in the header's folder or below.

    Raises:
        InputError: ``E_FORMAT`` if it lies elsewhere: a header could name any file of the machine.
    """
    windows, posix = PureWindowsPath(name), PurePosixPath(name.replace("\\", "/"))
    outside = posix.is_absolute() or bool(windows.drive) or ".." in posix.parts
    path = header.parent / posix
    folders = (header.parent.resolve(), header.resolve().parent)
    if outside or not any(path.resolve().is_relative_to(folder) for folder in folders):
        raise InputError(
            f"the header's data lies at {name!r}, outside of its folder; put both into one folder "
            "and name the data without a path",
            code="E_FORMAT",
        )
    return path


def unsupported(what: str) -> InputError:
    """Return the refusal of a kind of file that is not read."""
    return InputError(f"{what}; save it as one file, raw or gzip-compressed", code="E_FORMAT")
