"""What is looked at of the files of a batch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def stamp(files: Iterable[Path]) -> list[list[Any]]:
    """Return name, size and time of change of each file that is there."""
    found = []
    for file in files:
        try:
            info = file.stat()
        except OSError:
            continue
        found.append([file.name, info.st_size, info.st_mtime_ns])
    return found
