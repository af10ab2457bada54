"""Pixels compressed by the libraries of the extra, for the tests of reading."""

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("gdcm")
pytest.importorskip("jpeg_ls")
pytest.importorskip("openjpeg")
import gdcm
import jpeg_ls
from openjpeg.utils import encode_array
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from small_series import make_image

Encoder = Callable[[np.ndarray, int, bool], bytes]
SHAPE = (40, 48)


def by_gdcm(kind: str) -> Encoder:
    def encode(raw: np.ndarray, bits: int, signed: bool) -> bytes:
        writer = gdcm.ImageWriter()  # the image is gone with it
        image = writer.GetImage()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((raw.shape[1], raw.shape[0], 1))
        monochrome = gdcm.PhotometricInterpretation.MONOCHROME2
        image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(monochrome))
        plain = gdcm.TransferSyntax.ExplicitVRLittleEndian
        image.SetTransferSyntax(gdcm.TransferSyntax(plain))
        image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, int(signed)))
        pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        pixels.SetByteStringValue(raw.tobytes())
        image.SetDataElement(pixels)
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
        change.SetInput(image)
        assert change.Change()
        fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
        return b"".join(
            fragments.GetFragment(i).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
            for i in range(fragments.GetNumberOfFragments())
        )

    return encode


def by_pyjpegls(raw: np.ndarray, bits: int, signed: bool) -> bytes:
    rows, columns = raw.shape
    return bytes(
        jpeg_ls.encode_pixel_data(
            raw.tobytes(), rows=rows, columns=columns, samples_per_pixel=1, bits_stored=bits
        )
    )


def by_openjpeg(raw: np.ndarray, bits: int, signed: bool) -> bytes:
    return bytes(encode_array(raw, bits_stored=bits))


def by_pydicom(raw: np.ndarray, bits: int, signed: bool) -> bytes:
    image = picture(raw, bits, signed)
    image.compress(uid.RLELossless, encoding_plugin="pydicom")
    return next(generate_frames(image.PixelData, number_of_frames=1))


CODECS: dict[str, tuple[str, Encoder]] = {
    "JPEG lossless": (uid.JPEGLossless, by_gdcm("JPEGLosslessProcess14")),
    "JPEG lossless SV1": (uid.JPEGLosslessSV1, by_gdcm("JPEGLosslessProcess14_1")),
    "JPEG-LS": (uid.JPEGLSLossless, by_pyjpegls),
    "JPEG-LS of GDCM": (uid.JPEGLSLossless, by_gdcm("JPEGLSLossless")),
    "JPEG 2000": (uid.JPEG2000Lossless, by_openjpeg),
    "JPEG 2000 of GDCM": (uid.JPEG2000Lossless, by_gdcm("JPEG2000Lossless")),
    "RLE": (uid.RLELossless, by_pydicom),
}


def noise(bits: int, signed: bool, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """All of the range of so many bits, its ends in the corner."""
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits) - 1
    raw = np.random.default_rng(bits).integers(low, high + 1, shape)
    raw[0, :2] = low, high
    return raw.astype("<i2" if signed else "<u2")


def picture(raw: np.ndarray, bits: int, signed: bool) -> Dataset:
    image = make_image(0)
    image.Rows, image.Columns = raw.shape
    image.BitsStored, image.HighBit, image.PixelRepresentation = bits, bits - 1, int(signed)
    image.PixelData = raw.tobytes()
    return image
