"""What the text header of a MetaImage or an NRRD file says, before any voxel is read."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError
from cfseg.foreign import brief
from cfseg.geometry import Triple
from cfseg.io.affine import MOST_MM

MOST_BYTES = 4 << 20
"""Of a header; 3D Slicer writes a few lines for each segment."""
MOST_NAME = 255
"""Characters of a file's name."""
Encoding = Literal["raw", "gzip", "zlib"]


@dataclass(frozen=True)
class ImageHeader:
    """A header, parsed.

    Attributes:
        format: of the file.
        shape: voxels along each stored axis, the fastest first.
        dtype: of the voxels, byte order included.
        axes: (3, 3), a step along each stored axis in mm, in columns, in LPS; None where the header
            does not say where the axes point to.
        origin: of the first voxel, in mm, in LPS.
        spacing_mm: along the stored axes.
        units: of length, as they are called; empty if the header does not say.
        encoding: of the data.
        data_file: that holds the data; None if it follows the header.
        start: of the data in its file, in bytes; -1: it is the file's end.
    """

    format: Literal["MetaImage", "NRRD"]
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
        InputError: ``E_CORRUPT``, it is something else; ``E_GEOMETRY``, one is beyond
            :data:`cfseg.io.affine.MOST_MM` or not finite.
    """
    try:
        found = np.array([float(word) for word in _words(text)])
    except ValueError:
        found = np.empty(0)
    if found.size != count:
        raise damaged(text, what)
    if not (np.abs(found) <= MOST_MM).all():
        raise InputError(
            f"the header's {what} is {brief(text)}, not finite or larger than any scan; convert "
            "the scan again",
            code="E_GEOMETRY",
        )
    return found


def whole_numbers(text: str, what: str, count: int) -> list[int]:
    """Return the whole numbers of a field, as :func:`numbers` does."""
    try:
        found = [int(word) for word in _words(text)]
    except ValueError:
        found = []
    if len(found) != count:
        raise damaged(text, what)
    return found


def damaged(text: str, what: str) -> InputError:
    """Return the refusal of a field whose value means nothing."""
    return InputError(
        f"the header's {what} is {brief(text)}; copy or convert the scan again", code="E_CORRUPT"
    )


def _words(text: str) -> list[str]:
    return re.split(r"[\s,]+", text.strip())


def sizes(text: str, what: str, count: int) -> Triple:
    """Return the numbers of voxels along the three axes.

    Raises:
        InputError: ``E_CORRUPT`` for what is no size, ``E_NDIM`` for fewer or more than three axes,
            ``E_TOO_FEW_SLICES`` for none along one.
    """
    shape = whole_numbers(text, what, count)
    if any(n < 0 for n in shape):
        raise damaged(text, what)
    if count != 3:
        raise InputError(
            f"the image has {count} dimension(s), {brief(text)}; a CT volume has three: save it as "
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
        InputError: ``E_FORMAT`` if it lies elsewhere: a header could name any file of the machine;
            ``E_CORRUPT`` if no file can be called so.
    """
    if "\0" in name or len(name) > MOST_NAME:
        raise damaged(name, "data file")
    windows, posix = PureWindowsPath(name), PurePosixPath(name.replace("\\", "/"))
    outside = posix.is_absolute() or bool(windows.drive) or ".." in posix.parts
    path = header.parent / posix
    folders = (header.parent.resolve(), header.resolve().parent)
    if outside or not any(path.resolve().is_relative_to(folder) for folder in folders):
        raise InputError(
            f"the header's data lies at {brief(name)}, outside of its folder; put both into one "
            "folder and name the data without a path",
            code="E_FORMAT",
        )
    return path


def unsupported(what: str) -> InputError:
    """Return the refusal of a kind of file that is not read."""
    return InputError(f"{what}; save it as one file, raw or gzip-compressed", code="E_FORMAT")
