from pathlib import Path
from threading import Event, get_ident

import pytest

from cfseg.errors import InputError
from cfseg.io import Input
from cfseg.io.ahead import ReadAhead

A, B, C = (Input(Path(name)) for name in "abc")


class Reader:
    """Notes who reads what; ``b`` is broken."""

    def __init__(self) -> None:
        self.read: list[object] = []
        self.threads: dict[Input, int] = {}
        self.second = Event()

    def __call__(self, found: Input):
        self.read.append(found)
        self.threads[found] = get_ident()
        if found == B:
            self.second.set()
            raise InputError("broken", code="E_CORRUPT")
        return found.name


def test_the_announced_scan_is_read_while_the_first_is_worked_on() -> None:
    reader = Reader()
    ahead = ReadAhead(reader)
    ahead.announce(B)
    assert reader.read == []
    assert ahead.take(A) == "a"
    assert reader.second.wait(10)
    ahead.announce(C)
    with pytest.raises(InputError, match="broken"):
        ahead.take(B)
    assert ahead.take(C) == "c"
    assert reader.read == [A, B, C]
    assert reader.threads[A] == get_ident()
    assert reader.threads[B] != get_ident()
    assert reader.threads[C] != get_ident()


def test_an_error_of_one_scan_still_begins_the_next() -> None:
    reader = Reader()
    ahead = ReadAhead(reader)
    ahead.announce(C)
    with pytest.raises(InputError):
        ahead.take(B)
    assert ahead.take(C) == "c"
    assert reader.read.count(C) == 1


def test_what_was_not_announced_is_read_now() -> None:
    reader = Reader()
    ahead = ReadAhead(reader)
    ahead.announce(B)
    assert ahead.take(A) == "a"
    assert ahead.take(C) == "c"
    assert ahead.take(A) == "a"
    assert reader.threads[C] == get_ident()


def test_another_series_of_a_folder_is_another_scan() -> None:
    reader = Reader()
    ahead = ReadAhead(reader)
    one, other = (Input(Path("a"), series=series) for series in "12")
    ahead.announce(other)
    for found in (one, other, one):
        ahead.take(found)
    assert reader.read == [one, other, one]
