"""The child process that decodes compressed pixels, one image at a time.

:mod:`cfseg.io.dicom_decode` runs this file as a script. It imports nothing of cfseg, so that it
starts fast, and its messages are JSON and plain bytes, so that nothing of a foreign file is ever
unpickled. It ends with its standard input.
"""

import json
import math
import os
import signal
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

try:
    import resource
except ImportError:  # not on this platform
    resource = None  # type: ignore[assignment]

MEMORY_BYTES = 4 << 30
"""What the child may ask for: the largest image there is, several times over."""
_LENGTHS = struct.Struct("<IQ")
_MAX_HEAD = 1 << 16


def send(stream: IO[bytes], head: dict[str, Any], body: bytes = b"") -> None:
    """Write a message: two lengths, a JSON object and bytes."""
    words = json.dumps(head).encode()
    stream.write(_LENGTHS.pack(len(words), len(body)))
    stream.write(words)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes], most_bytes: int) -> tuple[dict[str, Any], bytes]:
    """Read a message.

    Args:
        stream: carries it.
        most_bytes: that follow the JSON object.

    Raises:
        EOFError: the other side has ended.
        ValueError: it is no such message.
    """
    head_bytes, body_bytes = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    if head_bytes > _MAX_HEAD or body_bytes > most_bytes:
        raise ValueError(f"a message of {head_bytes} and {body_bytes} bytes")
    head = json.loads(_exactly(stream, head_bytes))
    return head, _exactly(stream, body_bytes)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise EOFError
    return found


def main() -> None:
    """Answer one request after the other until there are no more."""
    # What a native decoder prints must not get between the answers.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for channel in (0, 1, 2):
        os.dup2(nowhere, channel)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C ends
    warnings.simplefilter("ignore")
    _limit_memory()
    import pydicom.pixels  # noqa: F401 - before it says that it is ready

    send(answers, {"ready": True})
    while True:
        try:
            request, frame = receive(requests, 1 << 40)
        except EOFError:
            return
        send(answers, *_answer(request, frame))


def _limit_memory() -> None:
    if resource is not None:
        _limit(resource.RLIMIT_AS, MEMORY_BYTES)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End this process if what is within computes for longer."""
    if resource is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_CPU)
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def _limit(what: int, most: int) -> None:
    assert resource is not None  # noqa: S101 - see the callers
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(request: dict[str, Any], frame: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        for module in request["modules"]:
            __import__(module)
        decode = _by_gdcm if request["plugin"] == "gdcm" else _by_pydicom
        with _limited(request["seconds"]):
            values = decode(frame, request)
        layout = request["layout"]
        wanted = layout["rows"] * layout["columns"] * layout["bits_allocated"] // 8
        if len(values) != wanted:
            return {"refused": f"{len(values)} bytes came out, not {wanted}"}, b""
        return {}, values
    except ImportError as error:
        return {"missing": error.name or str(error)}, b""
    except Exception as error:  # whatever a decoder raises, the stream is to blame
        return {"refused": (str(error) or type(error).__name__)[-500:]}, b""


def _by_pydicom(frame: bytes, request: dict[str, Any]) -> bytes:
    """Return little-endian values; pydicom sees to what the decoders do to signs."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder  # type: ignore[attr-defined]

    one_gray = {
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
    }
    array, _ = get_decoder(request["syntax"]).as_array(
        encapsulate([frame]),
        index=0,
        raw=True,
        decoding_plugin=request["plugin"],
        **request["layout"] | one_gray,
    )
    return bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())


def _by_gdcm(frame: bytes, request: dict[str, Any]) -> bytes:
    """Return the values of a JPEG image; pydicom's way to GDCM refuses those of 12 bits."""
    import gdcm  # type: ignore[import-untyped]

    layout = request["layout"]
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((layout["columns"], layout["rows"], 1))
    image.SetDataElement(pixels)
    kind = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(request["syntax"])
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits, signed = layout["bits_stored"], layout["pixel_representation"]
    image.SetPixelFormat(gdcm.PixelFormat(1, layout["bits_allocated"], bits, bits - 1, signed))
    # GDCM hands bytes over as text.
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    main()
