"""A hundred of the mutants of ``make fuzz``, and what it takes for a fault."""

import logging
import sys
import time
from pathlib import Path

import pytest

from cfseg.errors import CfsegError, InputError

pytest.importorskip("resource")
pytest.importorskip("highdicom")
pytest.importorskip("SimpleITK")
from tests.fuzz import run
from tests.fuzz.__main__ import SEED, mutants, table
from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.run import Outcome, run_one

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
HUNDRED = mutants(100)


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_read_or_refused_as_is_declared(kind: str, tmp_path: Path):
    for mutant in (it for it in HUNDRED if it[0] == kind):
        (folder := tmp_path / str(mutant[1])).mkdir()
        outcome = run_one(mutant, SEED, folder)
        assert not outcome.fault, f"python -m tests.fuzz --kind {kind} --number {mutant[1]}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutant_is_the_same_for_its_seed_and_number(kind: str, tmp_path: Path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        KINDS[kind].make(folder, run.rng_of((kind, 3), SEED))
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        made.append([(path.relative_to(folder), path.read_bytes()) for path in files])
    assert made[0] == made[1] != []


def refusing(error: Exception):
    def read(*_: object):
        raise error

    return read


def hanging(*_: object):
    while True:
        yield ""
        time.sleep(0.01)


def greedy(*_: object):
    yield (b"E" * 60_000_000)[:0].decode()


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (refusing(InputError("as it should be", code="E_CORRUPT")), ""),
        (refusing(ValueError("a bug")), "ValueError: a bug"),
        (refusing(CfsegError("called what it is")), "refused with E_INTERNAL"),
        (refusing(InputError("disk is full", code="E_DISK")), "refused with E_DISK"),
        (refusing(InputError("no end " * 1000, code="E_CORRUPT")), "7000 characters"),
        (lambda *_: logging.getLogger("nibabel").warning("set to 0"), "logged: set to 0"),
        (hanging, "took more than 0.2 s"),
        (greedy, "MB"),
    ],
    ids=["declared", "bug", "internal", "disk", "message", "log", "hang", "memory"],
)
def test_what_is_a_fault(read, fault: str, tmp_path: Path, monkeypatch):
    kind = Kind("x", 1, lambda folder, _: folder, read)
    monkeypatch.setitem(KINDS, "x", kind)
    monkeypatch.setattr(run, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(run, "MOST_MB", 50)
    found = run_one(("x", 0), SEED, tmp_path).fault
    assert fault in found
    assert bool(fault) == bool(found)


def test_the_table_counts_every_mutant():
    outcomes = [
        Outcome(("nrrd", 0), ("",)),
        Outcome(("nrrd", 1), ("E_CORRUPT",), "", 3.0),
        Outcome(("nrrd", 2), (), "ValueError"),
    ]
    assert table(outcomes).splitlines()[1].split() == [
        "nrrd", "3", "1", "3.00", "0", "1", "E_CORRUPT", "1"
    ]  # fmt: skip
    counts = [kind.share for kind in KINDS.values()]
    assert sum(counts) == len(mutants(5000)) == 5000
    assert KINDS["compressed"].share == 500
