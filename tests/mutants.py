"""JSON as a damaged disk or a hostile hand may leave it, always the same for a seed."""

import copy
import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 99, 10**9, 10**18, 10**30, 0.5, 1e308, float("nan"),
    float("inf"), "", "3", "x", "\x00", "\ud800", "a" * 3000, "../../x", [], {}, [1], [[]],
    [None] * 3, [True] * 3, ["a"] * 3, [10**9] * 3, {"a": 1}, {"0": None}, [{"a": [1]}],
)  # fmt: skip


def mutant(values: Any, seed: int) -> bytes:
    """Return a JSON file in which some values are others, gone, renamed or nested too deep.

    Args:
        values: of the whole file.
        seed: of the changes.
    """
    rng = random.Random(seed)  # noqa: S311 - not a secret
    changed = copy.deepcopy(values)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = [place for place in _places(changed) if place]
        if places:
            _change(changed, rng.choice(places), rng)
    return _bytes(changed, rng)


def _places(values: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = values.items() if isinstance(values, dict) else ()
    inner = enumerate(values) if isinstance(values, list) else inner
    return [at, *(place for key, value in inner for place in _places(value, (*at, key)))]


def _change(values: Any, place: tuple[Any, ...], rng: random.Random) -> None:
    *tables, last = place
    for key in tables:
        values = values[key]
    how = rng.randrange(10)
    if how == 0:
        del values[last]
    elif how == 1 and isinstance(values, dict):
        values[rng.choice(("x", "0", "\x00", "inherits_from"))] = values.pop(last)
    elif how == 2:
        values[last] = [values[last]]
    elif how == 3:
        values[last] = _nested(rng.choice((70, 80)))
    elif how == 4 and type(values[last]) in (int, float):
        values[last] *= rng.choice((-1, 0.5, 2, 1000, 1e6))
    else:
        values[last] = copy.deepcopy(rng.choice(ODD))


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _bytes(values: Any, rng: random.Random) -> bytes:
    whole = json.dumps(values, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    where = rng.randrange(len(whole))
    return {
        0: whole[:where],
        1: whole[:where] + bytes([rng.randrange(256)]) + whole[where + 1 :],
        2: b'{"a":' + b"[" * 100_000,
        3: whole.replace(b"1", b"9" * 5000, 1),
        4: whole.decode("utf-8", "replace").encode("utf-16"),
    }.get(rng.randrange(60), whole)
