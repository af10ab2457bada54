"""Files that appear under their name whole or not at all."""

import json
import re
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cfseg.errors import ResourceError

TEMPORARY_PREFIX = ".tmp-"
"""Names that begin so are half-written files; no reader takes them."""


STALE_SECONDS = 3600.0
_OURS = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}[0-9a-f]{{32}}-.")


def sweep(folder: Path) -> int:
    """Remove what a killed process left half-written an hour ago or more, and return how many.

    Args:
        folder: is looked at itself, its folders are not. Only names of our own pattern go.
    """
    removed = 0
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            info = path.lstat()
            is_stale = _OURS.match(path.name) and time.time() - info.st_mtime > STALE_SECONDS
            if is_stale and stat.S_ISREG(info.st_mode):
                path.unlink()
                removed += 1
        except FileNotFoundError:  # another run was faster
            continue
    return removed


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what is written there becomes ``path`` at the end.

    Args:
        path: the file to be made or replaced; its folder is made if needed.

    Raises:
        ResourceError: ``E_DISK``, the disk refuses.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"{path} cannot be written: {reason}", code="E_DISK") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        ResourceError: as in :func:`replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:  # noqa: ANN401 - JSON
    """Write a JSON file, indented, with a line break at its end.

    Raises:
        ResourceError: as in :func:`replacing`.
    """
    write_text(path, json.dumps(values, indent=2) + "\n")
