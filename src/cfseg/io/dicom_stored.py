"""The stored values of DICOM images, as they lie in their files."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom.encaps import generate_frames

from cfseg.io.dicom_decode import decode
from cfseg.io.dicom_frames import Image
from cfseg.io.dicom_tags import UNDEFINED_LENGTH, corrupt, parsed, parsing

_Stored = npt.NDArray[Any]


def stored_values(images: Sequence[Image]) -> Iterator[_Stored]:
    """Yield the stored values of images, (row, column).

    Args:
        images: of one file, in the file's order.

    Raises:
        InputError: ``E_CORRUPT``; ``E_DECODER``, a library is missing.
    """
    path, layout = images[0].path, images[0].layout
    with parsed(path, ["PixelData"], layout.frames * layout.frame_bytes) as file:
        if file.pixel_length is None:
            raise corrupt(path, "its pixels are missing")
        if (file.pixel_length == UNDEFINED_LENGTH) != (layout.decoder is not None):
            raise corrupt(path, f"its pixels are not stored as {layout.syntax.name}")
        if layout.decoder is not None:
            yield from _decoded(images, file.stream)
        elif file.pixel_length < layout.frames * layout.frame_bytes:
            raise corrupt(path, f"it holds {file.pixel_length} bytes of pixels")
        else:
            yield from _native(images, file.stream, file.pixel_length)


def _native(images: Sequence[Image], stream: BinaryIO, length: int) -> Iterator[_Stored]:
    layout, start = images[0].layout, stream.tell()
    stream.seek(start + length)  # there is as much as there should be
    for image in images:
        stream.seek(start + (image.frame or 0) * layout.frame_bytes)
        values = np.frombuffer(stream.read(layout.frame_bytes), layout.dtype)
        yield values.reshape(layout.rows, layout.columns)


def _decoded(images: Sequence[Image], stream: BinaryIO) -> Iterator[_Stored]:
    path, layout = images[0].path, images[0].layout
    frames = generate_frames(stream, number_of_frames=layout.frames)
    wanted = [image.frame or 0 for image in images]
    for before, index in pairwise([-1, *wanted]):
        frame = b""
        for _ in range(index - before):
            frame = parsing(path, lambda: next(frames, b""))
        if not frame:
            raise corrupt(path, f"image {index + 1} of {layout.frames} is missing")
        yield decode(path, frame, layout)
