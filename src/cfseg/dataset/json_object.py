"""``manifest.json`` and ``dataset.json``, which a person may have written: one JSON object."""

from pathlib import Path
from typing import Any

from cfseg import foreign
from cfseg.errors import UsageError


def read_object(path: Path, expected: str = "an object") -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: of the file.
        expected: what it holds, in words.

    Raises:
        UsageError: it cannot be read or holds something else, see
            :func:`cfseg.foreign.read_object`.
    """
    try:
        return foreign.read_object(path, finite=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as JSON, expected {expected}: {error}; repair it"
        ) from error
