"""``.zip`` and ``.tar`` archives, unpacked so that nothing of them can do harm.

An archive is somebody else's: its names may lead out of the folder, its links anywhere, and a small
file may unpack to more than the disk holds. Only plain files come out, within stated limits.
"""

import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from cfseg.errors import InputError, ResourceError
from cfseg.foreign import brief
from cfseg.io.stream import CHUNK, GZIP_MAGIC

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_ENTRIES = 200_000
MOST_BYTES = 64 << 30
MOST_RATIO = 200
"""No scan shrinks by so much; what does is a bomb."""
SMALL_BYTES = 100 << 20
"""Up to this the ratio does not count: a label map of zeros shrinks a thousandfold."""
MOST_PADDING = 16 << 20
"""What may follow the last entry of a tar archive; ordinary ones have 10 kB."""
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError,
    NotImplementedError, UnicodeDecodeError,
)  # fmt: skip
_NO_PLACE = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of a name that cannot be made: too long, or a folder's and a file's at once."""


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    is_file: bool
    content: zipfile.ZipInfo | tarfile.TarInfo


def is_archive_name(path: Path) -> bool:
    """Say whether a file is an archive by its name."""
    return path.name.lower().endswith(SUFFIXES)


class Unpacked:
    """What came out of an archive, in a folder that goes with this object or with the program.

    Attributes:
        folder: that only its owner can read.
        remove: removes the folder now.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cfseg-archive-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def unpack(path: Path) -> Unpacked:
    """Unpack an archive.

    Raises:
        InputError: ``E_CORRUPT`` for a damaged archive, ``E_FORMAT`` for one that is none or is
            encrypted, ``E_ARCHIVE`` where a name leads out of the folder or a limit is passed.
        ResourceError: ``E_DISK``, there is no room for it.
    """
    try:
        unpacked = Unpacked()
        with _opened(path) as (entries, opener):
            _unpack(path, unpacked.folder, entries, opener)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    except RuntimeError as error:  # zipfile's word for a password
        raise InputError(
            f"{path} cannot be unpacked ({brief(str(error))}); unpack it yourself", code="E_FORMAT"
        ) from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # bz2's word for damage, and of an offset's
            raise _damaged(path, error) from error
        if error.errno in _NO_PLACE:
            raise _refused(path, f"an entry's name cannot be made ({error.strerror})") from error
        raise ResourceError(
            f"{path} cannot be unpacked to {tempfile.gettempdir()}: {error.strerror}; free "
            "some space, or set TMPDIR to another place",
            code="E_DISK",
        ) from error
    return unpacked


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterator[_Entry], "_Opener"]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield (_of_zip(info) for info in archive.infolist()), _Opener(archive)
    elif tarfile.is_tarfile(path):
        with _inflated(path) as stream:
            # In one pass: a tar.gz cannot go back.
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                yield (_of_tar(info) for info in archive), _Opener(archive)
            _read_to_end(path, stream)
    else:
        raise InputError(
            f"{path} is not a zip or tar archive, whatever its name says; copy it again",
            code="E_FORMAT",
        )


@contextmanager
def _inflated(path: Path) -> Iterator[IO[bytes]]:
    """Open a file; what gzip packed comes out checked, which tarfile leaves undone."""
    with path.open("rb") as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if is_gzip:
            with gzip.GzipFile(fileobj=file) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield file


def _read_to_end(path: Path, stream: IO[bytes]) -> None:
    """Read what follows the last entry: the checksum comes behind it."""
    left = MOST_PADDING
    while chunk := stream.read(CHUNK):
        left -= len(chunk)
        if left < 0:
            raise _refused(path, f"more than {MOST_PADDING >> 20} MiB follow its last entry")


@dataclass(frozen=True)
class _Opener:
    archive: zipfile.ZipFile | tarfile.TarFile

    def __call__(self, entry: _Entry) -> IO[bytes]:
        if isinstance(self.archive, zipfile.ZipFile):
            return self.archive.open(entry.content)  # type: ignore[arg-type]
        found = self.archive.extractfile(entry.content)  # type: ignore[arg-type]
        if found is None:
            raise tarfile.ReadError(f"{entry.name} has no content")
        return found


def _of_zip(info: zipfile.ZipInfo) -> _Entry:
    mode = info.external_attr >> 16
    plain = not info.filename.endswith("/") and (not stat.S_IFMT(mode) or stat.S_ISREG(mode))
    return _Entry(info.filename, info.file_size, plain, info)


def _of_tar(info: tarfile.TarInfo) -> _Entry:
    return _Entry(info.name, info.size, info.isreg(), info)


def _unpack(path: Path, folder: Path, entries: Iterator[_Entry], opener: _Opener) -> None:
    packed, total = path.stat().st_size, 0
    free = shutil.disk_usage(folder).free
    for count, entry in enumerate(entries, start=1):
        if count > MOST_ENTRIES:
            raise _refused(path, f"it has more than {MOST_ENTRIES} entries")
        if not entry.is_file:
            continue  # folders come with their files; links and devices never come
        total += entry.size
        _check_size(path, packed, total, free)
        target = folder.joinpath(*_parts(path, entry.name))
        if target.exists():
            raise _refused(path, f"it has two entries called {brief(target.name)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with opener(entry) as source, target.open("xb") as made:
            _copy(source, made, entry, path)


def _check_size(path: Path, packed: int, total: int, free: int) -> None:
    if total > MOST_BYTES:
        raise _refused(path, f"it unpacks to more than {MOST_BYTES >> 30} GiB")
    if total > SMALL_BYTES and total > MOST_RATIO * packed:
        raise _refused(path, f"it unpacks to more than {MOST_RATIO} times its size")
    if total > free:
        raise ResourceError(
            f"{path} unpacks to {total / 1e9:.1f} GB or more and {free / 1e9:.1f} GB are free in "
            f"{tempfile.gettempdir()}; free some space, or set TMPDIR to another place",
            code="E_DISK",
        )


def _parts(path: Path, name: str) -> tuple[str, ...]:
    """Return the parts of an entry's name, all below the folder."""
    inside = PurePosixPath(name.replace("\\", "/"))
    drive = ":" in inside.parts[0] if inside.parts else True
    if inside.is_absolute() or ".." in inside.parts or drive or "\0" in name:
        raise _refused(path, f"an entry would lie outside of its folder ({brief(name)})")
    return inside.parts


def _copy(source: IO[bytes], made: IO[bytes], entry: _Entry, path: Path) -> None:
    """Copy what an entry holds; never more than it announced, or the limits mean nothing."""
    left = entry.size
    while chunk := source.read(CHUNK):
        left -= len(chunk)
        if left < 0:
            raise _refused(path, f"{brief(entry.name)} is larger than the archive says")
        made.write(chunk)
    if left:
        raise EOFError(f"{entry.name} ends too early")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged: {brief(str(error))}; copy or download it again", code="E_CORRUPT"
    )


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} is not unpacked: {why}; unpack it yourself", code="E_ARCHIVE")
