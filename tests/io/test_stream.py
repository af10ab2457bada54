"""What a broken file gives is the same through isal and through zlib."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfseg.errors import InputError
from cfseg.io import stream
from cfseg.io.stream import CheckedStream

CONTENTS = np.random.default_rng(0).integers(-50, 50, 40_000, dtype=np.int16).tobytes()
PACKED = gzip.compress(CONTENTS, 4, mtime=0)
HEADER = 10
"""Bytes of a gzip header; a changed time or system in it changes nothing."""


@pytest.fixture(params=["isal", "zlib"])
def inflater(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setattr(stream, "inflater", zlib)
    else:
        pytest.importorskip("isal")
    return request.param


def contents(path: Path, data: bytes, length: int = len(CONTENTS)) -> tuple[bytes, bool]:
    path.write_bytes(data)
    with path.open("rb") as handle:
        checked = CheckedStream(handle, path)
        target = bytearray(length)
        filled = checked.read_into(memoryview(target))
        return bytes(target[:filled]), checked.at_end()


def test_members_and_layers_and_padding(inflater, tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    halves = gzip.compress(CONTENTS[:1000]) + gzip.compress(CONTENTS[1000:])
    for data in (PACKED, halves, PACKED + bytes(5000), gzip.compress(PACKED), CONTENTS):
        assert contents(path, data) == (CONTENTS, True)
    assert contents(path, PACKED, 10)[1] is False


@pytest.mark.parametrize("end", [1, 4, 8, 9, len(PACKED) // 2, len(PACKED) - 15])
def test_a_cut_file_is_refused(inflater, tmp_path: Path, end: int) -> None:
    with pytest.raises(InputError) as caught:
        contents(tmp_path / "x.gz", PACKED[:-end])
    assert caught.value.code == "E_CORRUPT"


def test_what_follows_is_refused(inflater, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="after the end"):
        contents(tmp_path / "x.gz", PACKED + b"\0\0garbage")


@settings(deadline=None, max_examples=150)
@given(st.integers(HEADER, len(PACKED) - 1), st.integers(1, 255))
def test_no_damage_goes_unnoticed(tmp_path_factory, position: int, flips: int) -> None:
    data = bytearray(PACKED)
    data[position] ^= flips
    path = tmp_path_factory.getbasetemp() / "damaged.gz"
    found: object
    try:
        found = contents(path, bytes(data))
    except InputError as error:
        found = error.code
    # A few bits may say the same in another way, and every inflater takes them.
    assert found in ("E_CORRUPT", (CONTENTS, True))
