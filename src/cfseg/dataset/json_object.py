"""``manifest.json`` and ``dataset.json`` as JSON: one object, in which no key stands twice."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from cfseg.errors import UsageError
from cfseg.tables import shown


def read_object(path: Path, expected: str = "an object") -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: of the file.
        expected: what it holds, in words.

    Raises:
        UsageError: it cannot be read, holds something else, or names a key twice, of which the
            ``json`` module would keep the last and say nothing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows puts a mark in front
        found = json.loads(text, object_pairs_hook=partial(_unique, path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected {expected}, found a {type(found).__name__}")
    return found


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(
                f'{path} names "{shown(key)}" twice in one object; remove or rename one of the two'
            )
        found[key] = value
    return found
