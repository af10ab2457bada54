"""Compressed pixels, decoded in a child process.

Native decoders crash on damaged streams, or never end. Then the child is gone, one file is
refused, and the next one gets a new child.
"""

import atexit
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Timer
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid

from cfseg.errors import InputError, ResourceError
from cfseg.io import dicom_child
from cfseg.io.dicom_child import receive, send
from cfseg.io.dicom_layout import DECODERS, PixelLayout
from cfseg.io.dicom_tags import corrupt

IMAGE_SECONDS = 60.0
"""What decoding one image may take, on a machine that does other things, too."""
CPU_SECONDS, CPU_SECONDS_PER_PIXEL = 1.0, 4e-6
"""What it may compute; a slice of 512 x 512 takes a few hundredths of a second. A damaged JPEG-LS
stream of 100 bytes can take many seconds."""


def decode(path: Path, frame: bytes, layout: PixelLayout) -> npt.NDArray[Any]:
    """Return the stored values of one image, (row, column).

    Args:
        path: its file, for the message.
        frame: the compressed image.
        layout: of its pixels.

    Raises:
        InputError: ``E_CORRUPT``; ``E_DECODER``, a library is missing.
        ResourceError: no child process could be started.
    """
    _check_stream(path, frame, layout)
    head, body = _child.ask(path, _request(layout), frame, layout.frame_bytes)
    if "missing" in head:
        raise InputError(
            f"{path} is compressed as {layout.syntax.name}, which {head['missing']} decodes, and "
            "that is not installed: pip install 'cfseg[dicom]'",
            code="E_DECODER",
        )
    if len(body) != layout.frame_bytes:
        raise corrupt(path, f"its pixels cannot be decoded: {head.get('refused')}")
    return np.frombuffer(body, layout.dtype).reshape(layout.rows, layout.columns)


def _request(layout: PixelLayout) -> dict[str, Any]:
    plugin, modules = DECODERS[layout.syntax]
    return {
        "syntax": str(layout.syntax),
        "plugin": plugin,
        "modules": modules,
        "seconds": CPU_SECONDS + CPU_SECONDS_PER_PIXEL * layout.rows * layout.columns,
        "layout": {
            "rows": layout.rows,
            "columns": layout.columns,
            "bits_allocated": layout.bits_allocated,
            "bits_stored": layout.bits_stored,
            "pixel_representation": int(layout.signed),
        },
    }


def _check_stream(path: Path, frame: bytes, layout: PixelLayout) -> None:
    """Compare what a stream says of itself with the header; a decoder counts pixels at most.

    Raises:
        InputError: ``E_CORRUPT``, they differ.
    """
    jpeg = _jpeg_frame(frame)
    # GDCM writes JPEG Extended with 16 bits, which the standard does not have, and overflows wrap.
    if layout.syntax == uid.JPEGExtended12Bit and (jpeg is None or jpeg[0] != 12):
        raise corrupt(path, "its JPEG stream does not have the 12 bits of JPEG Extended")
    size = jpeg[1:] if jpeg else _j2k_size(frame)
    if size is not None and size != (layout.rows, layout.columns):
        raise corrupt(
            path,
            f"its header announces {layout.columns} x {layout.rows} pixels, the compressed stream "
            f"{size[1]} x {size[0]}",
        )


def _jpeg_frame(stream: bytes) -> tuple[int, int, int] | None:
    """Return bits, rows and columns of a JPEG or JPEG-LS stream, None if it is none."""
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        if stream[place + 1] in (0xC0, 0xC1, 0xC3, 0xF7):  # start of frame
            bits, rows, columns = struct.unpack_from(">BHH", stream, place + 4)
            return bits, rows, columns
        place += 2 + int(struct.unpack_from(">H", stream, place + 2)[0])
    return None


def _j2k_size(stream: bytes) -> tuple[int, int] | None:
    """Return rows and columns of a JPEG 2000 stream, None if it is none."""
    if not stream.startswith(b"\xff\x4f\xff\x51") or len(stream) < 24:
        return None
    width, height, left, top = struct.unpack_from(">4I", stream, 8)
    return height - top, width - left


@dataclass
class _Child:
    """A decoding process, started when it is needed, shared by the threads of this one."""

    process: "subprocess.Popen[bytes] | None" = None
    owner: int = 0
    lock: Lock = field(default_factory=Lock)

    def ask(
        self, path: Path, head: dict[str, Any], body: bytes, most_bytes: int
    ) -> tuple[dict[str, Any], bytes]:
        """Return the answer to a request.

        Raises:
            InputError: ``E_CORRUPT``, the child crashed or did not end in time.
            ResourceError: it cannot be started.
        """
        with self.lock:
            process = self._started()
            try:
                return _timed(process, lambda: _exchange(process, head, body, most_bytes))
            except (EOFError, OSError, ValueError) as error:
                self.close()
                raise corrupt(path, f"decoding its pixels {_end_of(process, error)}") from error
            except BaseException:  # a Ctrl-C in between: the next answer would be this one's
                self.close()
                raise

    def _started(self) -> "subprocess.Popen[bytes]":
        # After a fork the pipes are the parent's, which may be using them.
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            self.close()
            self.owner, self.process = os.getpid(), _start()
        return self.process

    def close(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is not None and self.owner == os.getpid():
            _end(process)


def _start() -> "subprocess.Popen[bytes]":
    # -P: or the files beside the script would take the place of modules of the same name.
    command = [sys.executable, "-P", dicom_child.__file__]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        process = subprocess.Popen(  # noqa: S603 - our own file
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads},
        )
    except OSError as error:
        raise ResourceError(f"cannot start {command[0]} to decode pixels: {error}") from error
    try:
        _timed(process, lambda: receive(process.stdout, 0))  # type: ignore[arg-type]
    except (EOFError, OSError, ValueError) as error:
        _end(process)
        raise ResourceError(
            f"the process that decodes pixels did not start ({' '.join(command)}); is there enough "
            "memory?"
        ) from error
    return process


def _exchange(
    process: "subprocess.Popen[bytes]", head: dict[str, Any], body: bytes, most_bytes: int
) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None  # noqa: S101 - see _start
    assert process.stdout is not None  # noqa: S101
    send(process.stdin, head, body)
    return receive(process.stdout, most_bytes)


def _timed(
    process: "subprocess.Popen[bytes]", exchange: Callable[[], tuple[dict[str, Any], bytes]]
) -> tuple[dict[str, Any], bytes]:
    """Return what an exchange returns; after :data:`IMAGE_SECONDS` the process is killed."""
    late = Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = Timer(IMAGE_SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
        return exchange()
    except (EOFError, OSError) as error:
        if late.is_set():
            raise TimeoutError(f"took more than {IMAGE_SECONDS:g} s") from error
        raise
    finally:
        timer.cancel()


def _end_of(process: "subprocess.Popen[bytes]", error: Exception) -> str:
    """Return in words how decoding ended the process, or came to no end."""
    if isinstance(error, TimeoutError):
        return str(error)
    if process.returncode == -getattr(signal, "SIGXCPU", 0):
        return "takes far longer than any image does"
    return f"ended the decoder (exit code {process.returncode})"


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None  # noqa: S101 - see _start
        with suppress(BrokenPipeError):  # what it had not read yet
            pipe.close()


_child = _Child()
atexit.register(_child.close)
