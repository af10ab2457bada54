"""Values that others wrote: JSON objects, and what pydantic finds wrong with such values.

A file of ours that was damaged, and a model or a recipe of somebody else, may hold anything of any
type. Whoever reads one does it through here, so that all that can be wrong is a ``ValueError``.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from reprlib import Repr
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cfseg.tables import shown

DEEPEST = 64
"""Levels of nesting that a file may have; json itself gives up, in its own way, near 1000."""

_short = Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 2
_short.maxlist = _short.maxtuple = _short.maxdict = 4


class Stored(BaseModel):
    """Base of what is in a file of ours: the keys that somebody reads; there may be others."""

    model_config = ConfigDict(frozen=True, strict=True)


def read_object(
    path: Path, kind: TypeAdapter[Any] | None = None, *, finite: bool = True
) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: of the file, UTF-8.
        kind: what the object has to be.
        finite: refuse NaN and infinity, which JSON does not have but Python reads.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON object, or none of this kind, is nested too deep, holds text that
            cannot be written, or names a key twice; says which key.
    """
    text = path.read_text(encoding="utf-8-sig")  # Windows puts a mark in front
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from error
    if not isinstance(found, dict):
        raise ValueError(f"holds {brief(found)}, not an object")
    check_values(found, finite=finite)
    try:
        if kind is not None:
            kind.validate_python(found)
    except ValidationError as error:
        raise ValueError(problem(error)) from error
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a key that stands in it twice, json would keep the last in silence."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(
                f'it names "{shown(key[:60])}" twice in one object; remove or rename one of the two'
            )
        found[key] = value
    return found


def check_values(values: Any, *, finite: bool = True) -> None:  # noqa: ANN401 - JSON or TOML
    """Check what types do not tell: depth, the size of numbers, half characters.

    Args:
        values: as json or tomllib read them.
        finite: refuse NaN and infinity.

    Raises:
        ValueError: names the key.
    """
    level: list[tuple[str, Any]] = [("", values)]
    for _ in range(DEEPEST):
        for key, value in level:
            if wrong := _wrong(value, finite):
                raise ValueError(f"{key}: {wrong}" if key else wrong)
        level = [inner for key, value in level for inner in _inside(key, value)]
        if not level:
            return
    raise ValueError(f"{level[0][0][:60]}...: nested deeper than {DEEPEST} levels")


def problem(error: ValidationError) -> str:
    """Return the first thing that pydantic found: key, what is wrong, what was found there."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])[:200]
    where = f"{key}: " if key else ""
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "extra_forbidden":
        return f"there is no key {key}"
    if first["type"] == "value_error":
        return f"{where}{first['ctx']['error']}"
    # pydantic names a class of ours here.
    wrong = "an object is needed" if first["type"] == "model_type" else first["msg"]
    return f"{where}{wrong} (found {brief(first['input'])})"


def brief(value: object) -> str:
    """Return a value in a few words, whatever its size."""
    return _short.repr(value)


def _wrong(value: Any, finite: bool) -> str:  # noqa: ANN401 - JSON or TOML
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "half a character, which no file can hold"
    if isinstance(value, float) and finite and not math.isfinite(value):
        return f"{value} is no number"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return ""


def _inside(key: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON or TOML
    if isinstance(value, dict):
        for name, inner in value.items():
            yield key, name
            yield f"{key}.{name}" if key else name, inner
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield f"{key}.{number}", inner
