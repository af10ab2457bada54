"""The one way to read a DICOM header: whatever a file says is checked before it is used.

A value of a foreign file may be missing, repeated, empty, no number, infinite, or of a kind that
pydicom itself stumbles over. None of that is an error of ours.
"""

import io
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar, cast

from cfseg.errors import InputError, UsageError
from cfseg.io.memory import check_memory
from cfseg.io.stream import open_regular
from cfseg.tables import shown

try:
    import highdicom  # noqa: F401 - only to say early that it is missing
    import pydicom  # noqa: F401 - as above
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filereader import read_dataset, read_partial
    from pydicom.tag import BaseTag, Tag
    from pydicom.uid import DeflatedExplicitVRLittleEndian
except ImportError as missing:
    raise UsageError(
        f"reading DICOM needs {missing.name}: pip install 'cfseg[dicom]'", code="E_EXTRA"
    ) from missing

HEADER_BYTES = 64 << 20
"""The most that is inflated of a deflated file to find its header."""
UNDEFINED_LENGTH = 0xFFFFFFFF
"""The length of what ends with a mark of its own: compressed pixels, sequences."""
_IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "DirectoryRecordSequence")
_PIXEL_DATA = Tag("PixelData")
_PIXELS = {_PIXEL_DATA, Tag("FloatPixelData"), Tag("DoubleFloatPixelData")}
_Tags = list[BaseTag | int] | None
_T = TypeVar("_T")


class _Quiet:
    """Keeps warnings off while at least one thread is inside.

    The filters are those of the whole process: threads that come and go in any order must not each
    put back what they found.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._filters = Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                # By category, as pydicom puts its warnings into the name of whoever called it.
                warnings.filterwarnings("ignore", category=UserWarning)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_quiet = _Quiet()


def quiet() -> AbstractContextManager[None]:
    """Keep pydicom's remarks on irregular but readable values off the user's screen."""
    return _quiet


def corrupt(path: Path, what: str) -> InputError:
    """Return the refusal of a damaged file."""
    brief = shown(" ".join(what.split()))[:300]
    return InputError(f"{path} is damaged: {brief}; copy it again", code="E_CORRUPT")


def parsing(path: Path, parse: Callable[[], _T], what: str = "") -> _T:
    """Return what ``parse`` makes of the bytes of a file.

    Raises:
        InputError: ``E_CORRUPT`` for any error. That is as wide as it looks: pydicom raises
            nearly anything on bytes that it did not expect, and none of it is a fault of ours.
    """
    try:
        return parse()
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise corrupt(path, f"{what}{error or type(error).__name__}") from error


def header_of(path: Path, tags: Sequence[str] | None = None) -> Dataset | None:
    """Return a file's header without its pixels, None for a DICOMDIR.

    Args:
        path: of the file.
        tags: keywords of the elements that are wanted; None for all.

    Raises:
        InputError: ``E_CORRUPT``, or the file cannot be opened.
    """
    with parsed(path, None if tags is None else [*tags, *_IDENTIFIERS]) as found:
        header = found.header
        if "SOPInstanceUID" in header or "SeriesInstanceUID" in header:
            return header
        # A DICOMDIR has neither and is no image; what was cut this early has nothing at all.
        if "DirectoryRecordSequence" in header:
            return None
        raise corrupt(path, "it ends before its identifiers")


@dataclass(frozen=True)
class Parsed:
    """A file, parsed to its pixels.

    Attributes:
        header: what comes before them.
        stream: holds them, and stands at their first byte.
        pixel_length: theirs in bytes, as announced; None if there are none.
    """

    header: Dataset
    stream: BinaryIO
    pixel_length: int | None


@contextmanager
def parsed(path: Path, tags: Sequence[str] | None = None, pixel_bytes: int = 0) -> Iterator[Parsed]:
    """Open a DICOM file and parse it to its pixels.

    Args:
        path: of the file.
        tags: keywords of the elements that are wanted; None for all.
        pixel_bytes: how much will be read of the pixels, if the file is deflated.

    Raises:
        InputError: ``E_CORRUPT``, or the file cannot be opened.
    """
    wanted: _Tags = None if tags is None else [Tag(tag) for tag in tags]
    with open_regular(path) as handle:
        stream = _Bounded(path, handle)
        yield parsing(path, lambda: _parse(stream, wanted, pixel_bytes))


def _parse(stream: "_Bounded", wanted: _Tags, pixel_bytes: int) -> Parsed:
    places: dict[int, tuple[int, int]] = {}

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        places[tag] = stream.tell(), length
        return tag in _PIXELS

    header: Dataset
    try:
        header = read_partial(_binary(stream), at_pixels, force=True, specific_tags=wanted)
    except _DeflatedError:
        if pixel_bytes:
            check_memory(f"inflating {stream.path}", HEADER_BYTES + pixel_bytes)
        stream = _inflated(stream, HEADER_BYTES + pixel_bytes)
        header = read_dataset(_binary(stream), False, True, None, at_pixels, specific_tags=wanted)
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    for part in (header, header.file_meta):
        part.filename = str(stream.path)
    if _PIXEL_DATA not in places:
        return Parsed(header, _binary(stream), None)
    start, length = places[_PIXEL_DATA]
    stream.seek(start)
    return Parsed(header, _binary(stream), length)


def _binary(stream: "_Bounded") -> BinaryIO:
    return cast(BinaryIO, stream)


class _DeflatedError(Exception):
    """What follows in the stream is deflated."""


class _Bounded(io.RawIOBase):
    """A file in which nothing can be longer than what is left of it.

    Without it a length that lies asks for memory that is not there, or ends the header early.
    """

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self.path = path
        self.name = str(path)
        self.handle = handle
        self.size = handle.seek(0, io.SEEK_END)
        handle.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            # pydicom reads all the rest for one reason only: to inflate it, to whatever size.
            raise _DeflatedError
        left = self.size - self.handle.tell()
        if size > max(left, 256):
            raise corrupt(self.path, f"an element of {size} bytes where {left} bytes are left")
        return self.handle.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.handle.tell(), io.SEEK_END: self.size}[whence]
        if not 0 <= start + offset <= self.size:
            raise corrupt(self.path, f"it points to byte {start + offset} of {self.size}")
        return self.handle.seek(start + offset)

    def tell(self) -> int:
        return self.handle.tell()


def _inflated(stream: _Bounded, most_bytes: int) -> _Bounded:
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    return _Bounded(stream.path, io.BytesIO(inflater.decompress(stream.handle.read(), most_bytes)))


def given(header: Dataset, name: str) -> object | None:
    """Return the value of an element, None if it is missing or empty.

    Raises:
        InputError: ``E_CORRUPT``, nothing can be made of it.
    """
    if name not in header:
        return None
    value: object = parsing(path_of(header), lambda: header[name].value, f"{name}: ")
    if isinstance(value, str | bytes | Sequence) and not len(value):
        return None
    return value


def text(header: Dataset, name: str) -> str:
    """Return an element as text, several values joined by a backslash; "" if it has no value.

    Raises:
        InputError: ``E_CORRUPT``, it is no text.
    """
    values = _several(given(header, name))
    if any(isinstance(value, Dataset) for value in values):
        raise corrupt(path_of(header), f"{name} is a sequence, not text")
    return "\\".join(
        value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else str(value)
        for value in values
    )


def number(header: Dataset, name: str) -> float | None:
    """Return an element as a finite number, None if it is none."""
    found = numbers(header, name, 1)
    return None if found is None else found[0]


def numbers(header: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """Return an element as so many finite numbers, None if it is not."""
    try:
        found = tuple(float(v) for v in _several(given(header, name)))  # type: ignore[arg-type]
    except (InputError, TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def number_if_given(header: Dataset, name: str) -> float | None:
    """Return an element as a finite number, None if it is missing or empty.

    Raises:
        InputError: ``E_CORRUPT``, there is a value but it is no number.
    """
    if given(header, name) is None:
        return None
    found = number(header, name)
    if found is None:
        raise corrupt(path_of(header), f"{name} is {as_shown(header, name)}, not a number")
    return found


def whole(header: Dataset, name: str, least: int, most: int, *, default: int | None = None) -> int:
    """Return an element as a whole number.

    Raises:
        InputError: ``E_CORRUPT``, it is none between ``least`` and ``most``, or there is none and
            no default.
    """
    found = number_if_given(header, name)
    if found is None and default is not None:
        return default
    if found is None or not found.is_integer() or not least <= found <= most:
        raise corrupt(
            path_of(header),
            f"{name} is {as_shown(header, name)}, not a whole number from {least} to {most}",
        )
    return int(found)


def items(header: Dataset, name: str) -> list[Dataset]:
    """Return the items of a sequence, none if it is missing or empty.

    Raises:
        InputError: ``E_CORRUPT``, it is no sequence.
    """
    found = [] if given(header, name) is None else _several(given(header, name))
    if not all(isinstance(item, Dataset) for item in found):
        raise corrupt(path_of(header), f"{name} is {as_shown(header, name)}, not a sequence")
    return found  # type: ignore[return-value]


def as_shown(header: Dataset, name: str) -> str:
    """Return an element as it is shown in a message, "missing" if there is no value."""
    try:
        return shown(text(header, name)[:60]) or "missing"
    except InputError:
        return "unreadable"


def path_of(header: Dataset) -> Path:
    """Return the file that a header is of."""
    return Path(getattr(header, "filename", "a file"))


def _several(value: object) -> list[object]:
    if value is None:
        return []
    is_many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return list(value) if is_many else [value]  # type: ignore[call-overload]
