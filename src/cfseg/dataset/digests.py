"""What decides what is made of a cohort: its files, by their contents."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from cfseg.dataset.cases import Case
from cfseg.foreign import read_object
from cfseg.io import file_digest, write_json


class Digests:
    """The sha256 of files, remembered by path, size and time of change.

    So a cohort of thousands of label maps is read once, not at each start.

    Args:
        file: where to remember them from one run to the next; None forgets them.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.known: dict[str, list[Any]] = {} if file is None else _read(file)
        self.is_new = False

    def of(self, path: Path | None) -> str:
        """Return the sha256 of a file's contents, "" for None."""
        if path is None:
            return ""
        info = path.stat()
        stamp = [info.st_size, info.st_mtime_ns]
        key = str(path.resolve())
        before = self.known.get(key)
        if before is not None and before[:2] == stamp:
            return str(before[2])
        digest = file_digest(path)
        self.known[key], self.is_new = [*stamp, digest], True
        return digest

    def save(self) -> None:
        """Write down what is new."""
        if self.file is None or not self.is_new:
            return
        write_json(self.file, self.known)
        self.is_new = False


_KNOWN = TypeAdapter(dict[str, Annotated[list[int | str], Field(min_length=3, max_length=3)]])


def _read(file: Path) -> dict[str, list[Any]]:
    """Return what was written down; a damaged file is no loss."""
    try:
        return read_object(file, _KNOWN)
    except (OSError, ValueError):
        return {}


def facts(cases: Sequence[Case], digests: Digests | None = None) -> list[list[Any]]:
    """Return what counts of the cases: scans and labels by their contents.

    Args:
        cases: in question.
        digests: known ones of their files.
    """
    digests = digests or Digests()
    return [
        [
            case.name,
            sorted(case.annotated),
            _digest(case.image, digests),
            digests.of(case.label),
            *([] if case.label_map is None else [sorted(case.label_map.items())]),
            *([] if case.ignore is None else [{"ignore": case.ignore}]),
        ]
        for case in cases
    ]


def _digest(scan: Path, digests: Digests) -> str:
    """Return the sha256 of a scan's file, or of all files of a DICOM series in a folder."""
    if scan.is_file():
        return digests.of(scan)
    files = sorted(file for file in scan.rglob("*") if file.is_file())
    whole = "".join(digests.of(file) for file in files)
    return hashlib.sha256(whole.encode()).hexdigest()
