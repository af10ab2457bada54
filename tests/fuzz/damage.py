"""Bytes and lines of text as a damaged disk or a hostile hand may leave them."""

import random
import re
import struct
from collections.abc import Callable

EXTREMES: dict[str, tuple[float, ...]] = {
    "B": (0, 1, 2, 3, 8, 127, 255),
    "h": (0, -1, 1, 2, 3, 5, 8, 16, 64, 255, 1000, 32767, -32768),
    "i": (0, -1, 1, 255, 65536, 2**31 - 1, -(2**31)),
    "q": (0, -1, 2**32, 2**63 - 1, -(2**63)),
    "f": (0, -0.0, -1, 0.5, 1e-45, 1e-30, 1e30, 3e38, *map(float, ("nan", "inf", "-inf"))),
    "d": (0, -1, 1e-308, 1e308, *map(float, ("nan", "inf"))),
}
"""Numbers of each form of :mod:`struct` that people forget."""
WORDS = (
    "", "0", "-1", "1", "3", "0.5", "nan", "inf", "1e999", "1e-300", "9" * 5000, "1 1 1 1", "1e9",
    "true", "x", "\x00", "é", "\u202e", "(", "[" * 2000, '"', "%05d", "LIST", "../../x",
    "/dev/zero", "a" * 70_000, "none", "1e300", " " * 20_000 + "x", "(1 " * 20_000, "{", "=", ":",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def damaged(data: bytes, rng: random.Random, *, head: int = 0, other: bytes = b"") -> bytes:
    """Return the bytes with a few faults.

    Args:
        data: of a whole file.
        rng: decides.
        head: length of what stands at the beginning and is hit more often than the rest.
        other: a file of the same kind, of which a part may get into this one.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        reach = head if head and rng.random() < 0.6 else len(data)
        at = rng.randrange(max(1, min(reach, len(data))))
        data = rng.choice(_FAULTS)(data, at, rng, other or data)
    return data


def with_extremes(data: bytes, rng: random.Random, *fields: tuple[int, str]) -> bytes:
    """Return the bytes with extreme numbers in some fields, each an offset and a form."""
    made = bytearray(data)
    for offset, form in rng.sample(fields, rng.choice((1, 1, 2, 3))):
        struct.pack_into(f"<{form}", made, offset, rng.choice(EXTREMES[form]))
    return bytes(made)


def rewritten(text: str, rng: random.Random) -> bytes:
    """Return lines of ``name: value`` or the like with some that are others, gone or doubled."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        lines[at : at + 1] = rng.choice(_EDITS)(lines[at], lines, rng)
        lines = lines or [""]
    return "".join(lines).encode("utf-8", "surrogatepass")


Fault = Callable[[bytes, int, random.Random, bytes], bytes]


def _flipped(data: bytes, at: int, rng: random.Random, other: bytes) -> bytes:
    made = bytearray(data)
    for place in range(at, min(len(made), at + rng.choice((1, 1, 3, 30)))):
        made[place] ^= rng.randrange(1, 256)
    return bytes(made)


def _number(data: bytes, at: int, rng: random.Random, other: bytes) -> bytes:
    form = rng.choice(list(EXTREMES))
    value = struct.pack(rng.choice("<>") + form, rng.choice(EXTREMES[form]))
    return data[:at] + value + data[at + len(value) :]


def _cut(data: bytes, at: int, rng: random.Random, other: bytes) -> bytes:
    return data[:at]


def _inserted(data: bytes, at: int, rng: random.Random, other: bytes) -> bytes:
    more = rng.choice((bytes(1), bytes(512), b"\xff" * 16, rng.randbytes(7), rng.randbytes(3000)))
    return data[:at] + more + data[at:]


def _repeated(data: bytes, at: int, rng: random.Random, other: bytes) -> bytes:
    size = rng.choice((1, 8, 64, 1024, len(data)))
    return data[:at] + data[at : at + size] * rng.choice((1, 2, 9)) + data[at:]


def _removed(data: bytes, at: int, rng: random.Random, other: bytes) -> bytes:
    return data[:at] + data[at + rng.choice((1, 4, 100)) :]


def _spliced(data: bytes, at: int, rng: random.Random, other: bytes) -> bytes:
    return data[:at] + other[rng.randrange(len(other) + 1) if rng.random() < 0.5 else at :]


_FAULTS: tuple[Fault, ...] = (
    _flipped, _flipped, _number, _number, _cut, _inserted, _repeated, _removed, _spliced
)  # fmt: skip

Edit = Callable[[str, list[str], random.Random], list[str]]


def _other_number(line: str, lines: list[str], rng: random.Random) -> list[str]:
    found = list(_NUMBER.finditer(line))
    if not found:
        return [line]
    start, end = rng.choice(found).span()
    return [line[:start] + rng.choice(WORDS) + line[end:]]


def _other_value(line: str, lines: list[str], rng: random.Random) -> list[str]:
    name, mark, _ = re.match(r"([^=:]*)([=:]*\s*)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    return [f"{name}{mark}{rng.choice(WORDS)}\n"]


def _gone(line: str, lines: list[str], rng: random.Random) -> list[str]:
    return []


def _doubled(line: str, lines: list[str], rng: random.Random) -> list[str]:
    return [line, line]


def _of_another(line: str, lines: list[str], rng: random.Random) -> list[str]:
    return [rng.choice(lines)]


_EDITS: tuple[Edit, ...] = (
    _other_number, _other_number, _other_number, _other_value, _other_value, _gone, _doubled,
    _of_another,
)  # fmt: skip
