"""N14: what does not fit is refused before memory is asked for, with both numbers."""

import errno
import gzip
import math
import resource
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from small_scans import SHAPE, ct
from test_nifti_refusals import BITPIX, DATATYPE, DIM, patched, plain

from cfseg.errors import InputError, ResourceError, is_out_of_memory
from cfseg.io import memory, nifti, read_scan, stream
from cfseg.io.memory import check_memory, limit_bytes, out_of_memory


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


def test_n02_the_orthogonal_grid_of_a_sheared_scan_counts(tmp_path, monkeypatch):
    """30 degrees over many thick slices of fine rows make it many times as large as the file."""
    path = tmp_path / "sheared.nii"
    affine = np.diag([0.5, 0.5, 10.0, 1.0])
    affine[1, 2] = 10 * np.tan(np.radians(29))
    path.write_bytes(plain(ct((8, 8, 60)), affine))
    scan = read_scan(path)
    stored, resampled = scan.source.shape, scan.volume.hu.size
    assert resampled > 60 * math.prod(stored)
    assert scan.source.reading_bytes(np.dtype("i2")) >= 2 * resampled
    monkeypatch.setattr(memory, "limit_bytes", lambda: resampled)
    monkeypatch.setattr(nifti, "_read_data", None)
    with pytest.raises(InputError, match="GB") as caught:
        read_scan(path)
    assert caught.value.code == "E_TOO_LARGE"
    monkeypatch.setattr(memory, "MAX_VOXELS", resampled - 1)
    with pytest.raises(InputError, match="orthogonal grid") as caught:
        read_scan(path)
    assert caught.value.code == "E_TOO_LARGE"


def torch_error() -> Exception:
    import torch

    try:
        torch.empty(1 << 50, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("u1")),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("Exception from src/inference/src/cpp/core.cpp:97: std::bad_alloc"),
        RuntimeError("Failed to allocate memory for image."),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
        torch_error(),
    ],
    ids=["python", "numpy", "system", "openvino", "itk", "thread", "library", "torch"],
)
def test_r07_a_failed_allocation_is_told_whoever_made_it(error):
    assert is_out_of_memory(error)
    with (
        pytest.raises(ResourceError, match="the scan: out of memory") as caught,
        out_of_memory("the scan"),
    ):
        raise error
    assert caught.value.code == "E_OOM"
    assert caught.value.__cause__ is error


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")):
        with pytest.raises(type(error)), out_of_memory("the scan"):
            raise error
    with pytest.raises(InputError), out_of_memory("the scan"):
        raise InputError("a scan out of memory of man")


def test_r07_zlib_without_memory_is_no_damaged_file(tmp_path, monkeypatch):
    class Starved:
        eof, unconsumed_tail, unused_data = False, b"", b""

        def decompress(self, *_: object) -> bytes:
            raise zlib.error("Error -4 while decompressing data")

    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(plain()))
    monkeypatch.setattr(stream.inflater, "decompressobj", lambda **_: Starved())
    with pytest.raises(MemoryError):
        read_scan(path)


LIMITED = """
import resource, sys
from pathlib import Path
from cfseg.errors import ResourceError
from cfseg.io import read_scan
from cfseg.io.memory import out_of_memory
read_scan(Path(sys.argv[1]))  # what is loaded late is there now
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20),) * 2)
try:
    with out_of_memory("reading"):
        read_scan(Path(sys.argv[2]))
except ResourceError as error:
    print(error.code)
"""


def test_r07_a_limit_of_the_process_ends_as_out_of_memory(tmp_path):
    """The plan fits into the limit, but not beside what is there already."""
    small, path = tmp_path / "small.nii", tmp_path / "x.nii.gz"
    small.write_bytes(plain())
    header = patched(plain(), *((DIM + 2 * i, "h", 256) for i in (1, 2, 3)))[:352]
    path.write_bytes(gzip.compress(header + bytes(2 * 256**3), 1))
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, str(small), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == "E_OOM\n", found.stderr
