"""Bytes of a file that may be compressed, checked to their very end.

Both common readers of NIfTI stop before the end of a gzip stream or fill what is missing with
zeros, so a broken download goes unnoticed. Here the whole stream is read: checksum, length and
what follows are looked at, and never is more kept than the caller asked for.
"""

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from cfseg.errors import InputError

inflater: Any
try:
    from isal import isal_zlib as inflater
except ImportError:  # no wheel for this machine; zlib does the same at a third of the speed
    inflater = zlib

CHUNK = 1 << 20
FILE_CHUNK = 1 << 18
"""What is read of the file at a time: a part of CHUNK, as what is left of it is copied."""
GZIP_MAGIC = b"\x1f\x8b"
GZIP, ZLIB = 31, 15
"""What zlib calls the two wrappings of a deflate stream."""
MAX_LAYERS = 2
DEFLATE_LIMIT = 1032
"""No deflate stream grows by more than this factor, so a short file cannot hold a huge image."""

_NO_MEMORY = "Error -4 while"
"""How zlib says so; to Python it is one error of many. The -4 of isal means something else."""
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"NRRD000", "an NRRD file in a gzip archive; unpack it first"),
    (b"ObjectType", "a MetaImage file in a gzip archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading, without ever waiting on a pipe.

    Raises:
        InputError: ``E_MISSING`` if there is no such file, ``E_FORMAT`` if it is no regular file,
            ``E_READ`` if it may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is {_special(mode)}, not a scan", code="E_FORMAT")
        handle = os.open(path, flags)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to a file that does not exist", code="E_FORMAT"
            ) from error
        raise InputError(f"there is no {path}; check the path", code="E_MISSING") from error
    except (OSError, ValueError) as error:  # a name with a NUL in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {why}", code="E_READ") from error
    # Between stat and open the name may have come to mean something else.
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path} is not a regular file", code="E_FORMAT")
    return os.fdopen(handle, "rb")


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes.

    Raises:
        InputError: as :func:`open_regular`; ``E_READ`` if the disk fails.
    """
    try:
        with open_regular(path) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", code="E_READ") from error


def _special(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device or socket"


def describe(head: bytes) -> str:
    """Say in words what a file is that begins with ``head``."""
    if not head:
        return "an empty file"
    for magic, name in _KINDS:
        if head.startswith(magic):
            return name
    if head[128:132] == b"DICM":
        return "a single DICOM file; pass the folder that holds the whole series"
    text = head.lstrip()[:256].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (a failed download?)"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 or byte >= 128 for byte in head[:512]):
        return "a text file"
    return "of a kind that cfseg does not know"


class CheckedStream:
    """Reads a file front to back, through up to two layers of gzip, and digests its bytes.

    Args:
        handle: of the file.
        path: of the file.
        unpack: look for layers of gzip.

    Attributes:
        layers: how many layers of compression were found; 0 for a plain file.
        size: length of the file itself, in bytes.
    """

    def __init__(self, handle: BinaryIO, path: Path, *, unpack: bool = True) -> None:
        self.path = path
        self.layers = 0
        self.size = os.fstat(handle.fileno()).st_size
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._chunks = self._file_chunks(handle)
        while unpack and self.layers < MAX_LAYERS and self.peek(2) == GZIP_MAGIC:
            self.inflate()

    @property
    def sha256(self) -> str:
        """Digest of the file's own bytes that were read so far."""
        return self._digest.hexdigest()

    @property
    def most_bytes(self) -> int:
        """The most bytes that can possibly come out of this file."""
        return int(self.size * DEFLATE_LIMIT**self.layers)

    def peek(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer at the end, and leave them in the stream."""
        while len(self._buffer) < count:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._buffer += chunk
        return bytes(self._buffer[:count])

    def inflate(self, wrapping: int = GZIP) -> None:
        """Take all that follows for compressed."""
        self._chunks = self._inflate(self.peek(2) and bytes(self._buffer), self._chunks, wrapping)
        self._buffer = bytearray()
        self.layers += 1

    def read_into(self, target: memoryview) -> int:
        """Fill ``target`` and return how many bytes there were."""
        filled = 0
        while filled < len(target):
            chunk = bytes(self._buffer) if self._buffer else next(self._chunks, b"")
            if not chunk:
                break
            part = memoryview(chunk)[: len(target) - filled]
            target[filled : filled + len(part)] = part
            self._buffer = bytearray(memoryview(chunk)[len(part) :])
            filled += len(part)
        return filled

    def skip(self, count: int) -> int:
        """Read over ``count`` bytes and return how many there were."""
        left = count
        while left and self.peek(1):
            step = min(left, len(self._buffer))
            del self._buffer[:step]
            left -= step
        return count - left

    def at_end(self) -> bool:
        """Read on to the end, checksums included, and say whether no byte was left."""
        return not self.peek(1)

    def _file_chunks(self, handle: BinaryIO) -> Iterator[bytes]:
        try:
            while chunk := handle.read(FILE_CHUNK):
                self._digest.update(chunk)
                yield chunk
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read: {error.strerror}", code="E_READ"
            ) from error

    def _inflate(self, head: bytes, rest: Iterator[bytes], wrapping: int) -> Iterator[bytes]:
        """Yield the decompressed bytes of all members; their CRC and length are checked."""
        pending = head
        try:
            while pending:
                member = inflater.decompressobj(wbits=wrapping)
                while not member.eof:
                    out = member.decompress(pending, CHUNK)
                    pending = member.unconsumed_tail or member.unused_data
                    if out:
                        yield out
                    elif not member.eof and not pending:
                        pending = next(rest, b"")
                        if not pending:
                            raise self._corrupt("the compressed stream ends too early")
                pending = self._next_member(pending, rest, wrapping)
        except (zlib.error, inflater.error) as error:
            if str(error).startswith(_NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise self._corrupt(f"the compressed stream is damaged ({error})") from error

    def _next_member(self, pending: bytes, rest: Iterator[bytes], wrapping: int) -> bytes:
        """Return what follows a gzip member: another one, or nothing after padding with zeros."""
        while len(pending) < 2:
            more = next(rest, b"")
            if not more:
                break
            pending += more
        if wrapping == GZIP and pending.startswith(GZIP_MAGIC):
            return pending
        while pending:
            if pending.strip(b"\0"):
                raise self._corrupt("there are bytes after the end of the compressed stream")
            pending = next(rest, b"")
        return b""

    def _corrupt(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}; copy or download it again", code="E_CORRUPT")
