"""N14: what does not fit is refused before memory is asked for, with both numbers."""

import resource
import tracemalloc

import pytest
from small_scans import SHAPE
from test_nifti_refusals import BITPIX, DATATYPE, DIM, patched, plain

from cfseg.errors import InputError
from cfseg.io import memory, read_scan
from cfseg.io.memory import check_memory, limit_bytes


def test_there_is_a_limit_and_it_is_that_of_the_machine_at_most():
    import os

    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < limit_bytes() <= physical


def test_the_process_has_a_limit_of_its_own(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (12345, -1))
    assert limit_bytes() == 12345


def test_the_least_limit_of_the_control_groups_counts(tmp_path, monkeypatch):
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "job" / "memory.max").write_text("4096\n")
    (tmp_path / "job" / "step" / "memory.max").write_text("max\n")
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUP", own)
    assert limit_bytes() == 4096


def test_both_numbers_are_named(monkeypatch):
    monkeypatch.setattr(memory, "limit_bytes", lambda: 4e9)
    check_memory("this", 4e9)
    with pytest.raises(InputError, match=r"this needs about 5\.0 GB .* can have 4\.0 GB") as caught:
        check_memory("this", 5e9)
    assert caught.value.code == "E_TOO_LARGE"


def test_n14_a_scan_that_does_not_fit_is_refused_before_its_voxels_are_read(tmp_path, monkeypatch):
    path = tmp_path / "large.nii"
    path.write_bytes(plain() + bytes(0))
    voxels = SHAPE[0] * SHAPE[1] * SHAPE[2]
    monkeypatch.setattr(memory, "limit_bytes", lambda: 6 * voxels)
    read_scan(path)
    monkeypatch.setattr(memory, "limit_bytes", lambda: 6 * voxels - 1)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"large\.nii.*GB") as caught:
            read_scan(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "E_TOO_LARGE"
    assert peak < 2e6


def test_n14_a_header_of_more_voxels_than_are_ever_read(tmp_path):
    path = tmp_path / "x.nii"
    edits = [(DIM + 2 * i, "h", 2000) for i in (1, 2, 3)]
    path.write_bytes(patched(plain(), *edits, (DATATYPE, "h", 2), (BITPIX, "h", 8)))
    with pytest.raises(InputError, match=r"8\.0e9 voxels") as caught:
        read_scan(path)
    assert caught.value.code == "E_TOO_LARGE"
