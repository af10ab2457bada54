"""The one way to read a DICOM header: whatever a file says is checked before it is used.

A value of a foreign file may be missing, repeated, empty, no number, infinite, or of a kind that
pydicom itself stumbles over. None of that is an error of ours.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cfseg.errors import InputError, UsageError

try:
    import highdicom  # noqa: F401 - only to say early that it is missing
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.errors import InvalidDicomError
except ImportError as missing:
    raise UsageError(
        f"reading DICOM needs {missing.name}: pip install 'cfseg[dicom]'", code="E_EXTRA"
    ) from missing


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks on irregular but readable values off the user's screen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def corrupt(path: Path, what: str) -> InputError:
    """Return the refusal of a damaged file."""
    return InputError(f"{path} is damaged: {what}; copy it again", code="E_CORRUPT")


def header_of(path: Path, tags: Sequence[str] | None = None) -> Dataset | None:
    """Return a file's header without its pixels, None for a DICOMDIR.

    Args:
        path: of the file.
        tags: keywords of the elements that are wanted; None for all.

    Raises:
        InputError: ``E_CORRUPT``.
    """
    try:
        header = pydicom.dcmread(
            path,
            stop_before_pixels=True,
            force=True,
            specific_tags=None if tags is None else [*tags],
        )
    except (InvalidDicomError, EOFError, OSError, ValueError, AttributeError) as error:
        raise corrupt(path, str(error)) from error
    if "SOPInstanceUID" not in header and "SeriesInstanceUID" not in header:
        # A DICOMDIR has neither and is no image; what was cut this early has nothing at all.
        if "DirectoryRecordSequence" in header:
            return None
        raise corrupt(path, "it ends before its identifiers")
    return header


def text(header: Dataset, name: str) -> str:
    """Return an element as text, several values joined by a backslash; "" if it has no value."""
    value = header.get(name)
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else "\\".join(str(v) for v in _several(value))


def number(header: Dataset, name: str) -> float | None:
    """Return an element as a finite number, None if it is none."""
    found = numbers(header, name, 1)
    return None if found is None else found[0]


def numbers(header: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """Return an element as so many finite numbers, None if it is not."""
    value = header.get(name)
    try:
        found = tuple(float(v) for v in _several(value))
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def _several(value: object) -> list[object]:
    is_many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return list(value) if is_many else [value]  # type: ignore[call-overload]
