"""Files that appear under their name whole or not at all."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cfseg.errors import ResourceError

TEMPORARY_PREFIX = ".tmp-"
"""Names that begin so are half-written files; no reader takes them."""


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
