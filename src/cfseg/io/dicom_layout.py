"""How the pixels of a DICOM image are stored; what is no CT, or cannot be, is refused here.

All of it is judged by the header and the size of the file, before memory is asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.uid import UID

from cfseg.errors import InputError
from cfseg.io.dicom_tags import as_shown, corrupt, parsing, path_of, text, whole
from cfseg.io.stream import DEFLATE_LIMIT
from cfseg.tables import shown

_GDCM, _JPEG_LS = ("gdcm", ["gdcm"]), ("pyjpegls", ["jpeg_ls"])
_OPENJPEG = ("pylibjpeg", ["pylibjpeg", "openjpeg"])
DECODERS: dict[UID, tuple[str, list[str]]] = {
    uid.JPEGExtended12Bit: _GDCM,
    uid.JPEGLossless: _GDCM,
    uid.JPEGLosslessSV1: _GDCM,
    uid.JPEGLSLossless: _JPEG_LS,
    uid.JPEGLSNearLossless: _JPEG_LS,
    uid.JPEG2000Lossless: _OPENJPEG,
    uid.JPEG2000: _OPENJPEG,
    uid.HTJ2KLossless: _OPENJPEG,
    uid.HTJ2KLosslessRPCL: _OPENJPEG,
    uid.HTJ2K: _OPENJPEG,
    uid.RLELossless: ("pydicom", []),
}
"""For each compressed syntax pydicom's plugin and the modules that it needs.

One each, so that what is read does not depend on what else is installed.
"""
_RATIOS = {
    uid.ImplicitVRLittleEndian: 1,
    uid.ExplicitVRLittleEndian: 1,
    uid.ExplicitVRBigEndian: 1,
    uid.DeflatedExplicitVRLittleEndian: DEFLATE_LIMIT,
}
MAX_SIDE, MAX_FRAMES = 65535, 1_000_000
MAX_RATIO = 10_000
"""No codec of DICOM makes more bytes than this of one, blank images of any use aside."""


@dataclass(frozen=True)
class PixelLayout:
    """The layout of the stored pixels of a file.

    Attributes:
        syntax: transfer syntax.
        frames: how many images there are.
        rows: of each.
        columns: of each.
        bits_allocated: bits of a stored value, 16 or 32.
        bits_stored: how many of them, the lowest ones, count.
        signed: in two's complement.
    """

    syntax: UID
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def decoder(self) -> tuple[str, list[str]] | None:
        """Plugin and modules that decode the pixels, None if they are not compressed."""
        return DECODERS.get(self.syntax)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values in the file; of decoded ones it is little-endian."""
        order = "<" if self.syntax.is_little_endian else ">"
        return np.dtype(f"{order}{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Size of one image, not compressed."""
        return self.rows * self.columns * self.bits_allocated // 8

    def without_unused_bits(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored values without the bits above ``bits_stored``: overlays, or no sign.

        Args:
            stored: as they lie in the file, of :attr:`dtype`.
        """
        unused = self.bits_allocated - self.bits_stored
        return (stored << unused) >> unused if unused else stored


def layout_of(header: Dataset) -> PixelLayout:
    """Return the layout of the pixels of a file.

    Raises:
        InputError: ``E_DTYPE``, a CT cannot be stored so; ``E_CORRUPT``, nothing can.
    """
    _check_kind(header)
    allocated = whole(header, "BitsAllocated", 1, 64)
    if allocated not in (16, 32):
        raise _no_ct(header, "BitsAllocated", "16")
    stored = whole(header, "BitsStored", 1, allocated, default=allocated)
    if whole(header, "HighBit", 0, allocated - 1, default=stored - 1) != stored - 1:
        raise _no_ct(header, "HighBit", f"{stored - 1} with {stored} bits stored")
    layout = PixelLayout(
        syntax=_syntax(header),
        frames=whole(header, "NumberOfFrames", 1, MAX_FRAMES, default=1),
        rows=whole(header, "Rows", 1, MAX_SIDE),
        columns=whole(header, "Columns", 1, MAX_SIDE),
        bits_allocated=allocated,
        bits_stored=stored,
        signed=bool(whole(header, "PixelRepresentation", 0, 1)),
    )
    _check_size(path_of(header), layout)
    return layout


def _check_kind(header: Dataset) -> None:
    if whole(header, "SamplesPerPixel", 1, 4, default=1) != 1:
        raise _no_ct(header, "SamplesPerPixel", "1")
    kind = text(header, "PhotometricInterpretation")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise _no_ct(header, "PhotometricInterpretation", "MONOCHROME2")


def _no_ct(header: Dataset, name: str, usual: str) -> InputError:
    return InputError(
        f"{path_of(header)} is not stored as a CT is: {name} is {as_shown(header, name)}, not "
        f"{usual}; export the original series",
        code="E_DTYPE",
    )


def _syntax(header: Dataset) -> UID:
    """Return the transfer syntax; without one (no file meta, as of old) what pydicom found."""
    found = text(header.file_meta, "TransferSyntaxUID")
    syntax = UID(found) if found else _found_syntax(*header.original_encoding)
    if syntax in DECODERS or syntax in _RATIOS:
        return syntax
    raise InputError(
        f"{path_of(header)} has the transfer syntax {shown(syntax.name)}, which cfseg does not "
        "read; export the series uncompressed, or as lossless JPEG",
        code="E_DECODER",
    )


def _found_syntax(implicit: bool | None, little: bool | None) -> UID:
    if implicit or little is None:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _check_size(path: Path, layout: PixelLayout) -> None:
    size = parsing(path, lambda: path.stat().st_size)
    if layout.frames * layout.frame_bytes > size * _RATIOS.get(layout.syntax, MAX_RATIO):
        raise corrupt(
            path,
            f"{size} bytes cannot hold {layout.frames} images of {layout.columns} x {layout.rows} "
            "pixels",
        )
