"""Files that appear under their name whole or not at all."""

import json
import re
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cfseg.errors import disk_error

TEMPORARY_PREFIX = ".tmp-"
"""Names that begin so are half-written files; no reader takes them."""
STALE_SECONDS = 3600.0
_OURS = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}[0-9a-f]{{32}}-.")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Do the writing of a file or folder; where the disk refuses, say so.

    Args:
        path: what is written, for the message.

    Raises:
        ResourceError: ``E_DISK``, the disk is full or refuses.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def make_folder(folder: Path) -> None:
    """Make an output folder, unless it is there.

    Raises:
        ResourceError: ``E_DISK``, it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def sweep(folder: Path) -> int:
    """Remove what a killed process left half-written an hour ago or more, and return how many.

    Args:
        folder: is looked at itself, its folders are not. Only names of our own pattern go.

    Raises:
        ResourceError: ``E_DISK``, the folder may not be written.
    """
    removed = 0
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with writing(path), suppress(FileNotFoundError):  # another run was faster
            info = path.lstat()
            is_stale = _OURS.match(path.name) and time.time() - info.st_mtime > STALE_SECONDS
            if is_stale and stat.S_ISREG(info.st_mode):
                path.unlink()
                removed += 1
    return removed


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what is written there becomes ``path`` at the end.

    Args:
        path: the file to be made or replaced; its folder is made if needed.

    Raises:
        ResourceError: ``E_DISK``, the disk is full or refuses.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            remove_quietly(temporary)


def remove_quietly(temporary: Path) -> None:
    """Remove what is left of a temporary file; an error here must not hide the first one."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8; of a name that is not valid text, bytes appear as escapes.

    Raises:
        ResourceError: as in :func:`replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, values: Any) -> None:  # noqa: ANN401 - JSON
    """Write a JSON file, indented, with a line break at its end.

    Raises:
        ResourceError: as in :func:`replacing`.
    """
    write_text(path, json.dumps(values, indent=2) + "\n")
