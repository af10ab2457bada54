"""A result is written while the networks run on the next case: what may not go wrong with that."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from threading import Event, current_thread, main_thread

import nibabel as nib
import numpy as np
import pytest

import cfseg.segmenter as segmenters
from cfseg.batch import case as cases
from cfseg.batch import predict_many
from cfseg.batch.claims import claimed
from cfseg.errors import ResourceError
from cfseg.io import read_scan, write_label_map
from cfseg.io.write import writing_bytes
from cfseg.segmenter import Segmenter
from cfseg.volume import LabelMap
from tiny_ct import ct

STATES = ("done", "empty", "refused", "failed")


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, device="cpu", threads=1)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in "abc":
        ct(tmp_path / "in" / f"{name}.nii.gz", seed=ord(name))
    return tmp_path / "in"


def state(out: Path, case: str) -> str:
    return json.loads((out / "status" / f"{case}.json").read_text())["state"]


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*") if path.is_file() and path.parent.name != "inputs"]


def on_writing(monkeypatch, act) -> None:
    """Have ``act`` called with the path before each label map is written."""
    write = segmenters.write_label_map

    def acting(path, label_map, source):
        act(path)
        write(path, label_map, source)

    monkeypatch.setattr(segmenters, "write_label_map", acting)


def test_the_networks_run_on_the_next_case_before_the_last_is_written(
    segmenter, scans, tmp_path, monkeypatch
):
    out, told, threads = tmp_path / "out", [], {}
    b_runs, a_written = Event(), Event()

    def hold_a(path: Path) -> None:
        threads[path.name] = current_thread()
        if path.name == "a.nii.gz":
            assert b_runs.wait(30), "nothing ran beside the writing"

    def on_window(case, stage, done, of):
        if case == "b" and not b_runs.is_set():
            # a's networks are through and its file is held back: it must not look done
            assert state(out, "a") == "running"
            assert not (out / "a.nii.gz").exists()
            assert told == []
            with claimed(out / "status" / ".a.lock", wait=False) as mine:
                assert not mine
            b_runs.set()
            deadline = time.monotonic() + 30
            while state(out, "a") == "running" and time.monotonic() < deadline:
                time.sleep(0.01)
            a_written.set()
        elif (case, stage, done) == ("b", "organ", of):
            assert told[:1] == ["a"]  # told between two windows, not at b's end

    def on_case(status, done, of):
        assert current_thread() is main_thread()
        assert (out / f"{status.case}.nii.gz").is_file()
        assert state(out, status.case) == status.state
        told.append(status.case)
        assert (done, of) == (len(told), 3)

    on_writing(monkeypatch, hold_a)
    summary = predict_many([scans], out, segmenter, on_case=on_case, on_window=on_window)
    assert a_written.is_set()
    assert told == ["a", "b", "c"] == [case.case for case in summary.cases]
    assert summary.exit_code == 0
    assert main_thread() not in threads.values()
    assert not leftovers(out)
    for case in summary.cases:
        kept = json.loads((out / "status" / f"{case.case}.json").read_text())
        assert json.loads(json.dumps(case.record)) == kept
        assert case.record["seconds"]["write"] >= 0
        found = nib.load(out / f"{case.case}.nii.gz")
        direct = segmenter.segment(scans / f"{case.case}.nii.gz").image()
        assert np.array_equal(np.asarray(found.dataobj), np.asarray(direct.dataobj))


@pytest.mark.parametrize("bad", ["a", "b", "c"])
def test_a_failed_write_costs_its_case_only(segmenter, scans, tmp_path, monkeypatch, bad):
    def fail(path: Path) -> None:
        if path.name == f"{bad}.nii.gz":
            raise ResourceError(f"{path} cannot be written: the disk is full", code="E_DISK")

    on_writing(monkeypatch, fail)
    out = tmp_path / "out"
    summary = predict_many([scans], out, segmenter)
    assert {case.case: case.code for case in summary.cases} == {
        name: "E_DISK" if name == bad else "" for name in "abc"
    }
    assert summary.exit_code == 3
    assert not (out / f"{bad}.nii.gz").exists()
    assert state(out, bad) == "failed"
    assert not leftovers(out)
    monkeypatch.undo()
    again = predict_many([scans], out, segmenter)
    assert [case.skipped for case in again.cases] == [name != bad for name in "abc"]
    assert again.exit_code == 0


def test_a_disk_that_is_full_leaves_no_half_file(segmenter, scans, tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cfseg.io.write.os.fsync", full)
    summary = predict_many([scans], tmp_path / "out", segmenter)
    assert [case.code for case in summary.cases] == ["E_DISK"] * 3
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert not leftovers(tmp_path / "out")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_stop_waits_for_the_write_under_way(segmenter, scans, tmp_path, monkeypatch, kind):
    out, segment, b_stopped = tmp_path / "out", segmenter.segment, Event()

    def stops_at_b(scan: Path, *more: object, **named: object) -> object:
        if scan.name == "b.nii.gz":
            b_stopped.set()
            raise kind
        return segment(scan, *more, **named)

    def hold_a(path: Path) -> None:
        assert b_stopped.wait(30)
        time.sleep(0.2)

    monkeypatch.setattr(segmenter, "segment", stops_at_b)
    on_writing(monkeypatch, hold_a)
    told: list[str] = []
    with pytest.raises(kind):
        predict_many([scans], out, segmenter, on_case=lambda status, *_: told.append(status.case))
    assert told == ["a"]
    found = json.loads((out / "summary.json").read_text())
    assert found["inputs"] == 3 == sum(found[name] for name in STATES)
    assert [found["cases"][name]["code"] for name in "abc"] == ["", "E_STOPPED", "E_STOPPED"]
    assert nib.load(out / "a.nii.gz").get_fdata().shape
    assert found["cases"]["a"]["state"] == state(out, "a") != "running"
    assert not (out / "status" / "b.json").exists()
    assert not leftovers(out)


def test_a_stop_while_two_results_are_to_be_written_keeps_both(
    segmenter, scans, tmp_path, monkeypatch
):
    out, b_made = tmp_path / "out", Event()
    hand_over = segmenter.behind.hand_over

    def stopped_in_the_wait(work, needed=0):
        if b_made.is_set():
            raise AssertionError("c must not run")
        hand_over(work, needed)
        if (out / "a.nii.gz").exists():
            b_made.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(segmenter.behind, "hand_over", stopped_in_the_wait)
    with pytest.raises(KeyboardInterrupt):
        predict_many([scans], out, segmenter)
    found = json.loads((out / "summary.json").read_text())["cases"]
    assert [found[name]["code"] for name in "abc"] == ["", "", "E_STOPPED"]
    assert all((out / f"{name}.nii.gz").is_file() for name in "ab")


def test_a_status_that_cannot_be_written_ends_the_run_after_the_next_result(
    segmenter, scans, tmp_path, monkeypatch
):
    out, write = tmp_path / "out", cases.write_json

    def fails_on_a(path: Path, values: dict) -> None:
        if path.name == "a.json" and values["state"] != "running":
            raise ResourceError(f"{path} cannot be written", code="E_DISK")
        write(path, values)

    monkeypatch.setattr(cases, "write_json", fails_on_a)
    with pytest.raises(ResourceError, match=r"a\.json"):
        predict_many([scans], out, segmenter)
    assert state(out, "b") in ("done", "empty")
    assert (out / "b.nii.gz").is_file()
    assert not (out / "status" / "c.json").exists()
    assert not leftovers(out)


def test_a_listener_that_fails_costs_no_case(segmenter, scans, tmp_path):
    out = tmp_path / "out"

    def fails(*_: object) -> None:
        raise BrokenPipeError("gone")

    with pytest.raises(BrokenPipeError):
        predict_many([scans], out, segmenter, on_case=fails)
    for path in (out / "status").glob("*.json"):
        assert json.loads(path.read_text())["state"] in ("done", "empty")


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import cfseg.segmenter as segmenters
from cfseg.cli import main

seconds, deadly = float(sys.argv[1]), sys.argv[2]
write, segment = segmenters.write_label_map, segmenters.Segmenter.segment
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def say(line):  # in one piece: two threads speak
    os.write(1, (line + chr(10)).encode())

def slow(path, *more):
    say("writing " + path.name)
    time.sleep(seconds)
    write(path, *more)
    say("written " + path.name)

def dies(self, scan, *more, **named):
    if scan.name == deadly:
        time.sleep(0.3)
        os._exit(9)
    return segment(self, scan, *more, **named)

def waits(self, scan, *more, **named):
    if scan.name == "b.nii.gz":
        say("b")
        time.sleep(60)
    return segment(self, scan, *more, **named)

segmenters.write_label_map = slow
segmenters.Segmenter.segment = dies if deadly else waits
sys.argv[1:] = sys.argv[3:]
main()
"""


def command(bundle: Path, scans: Path, out: Path, seconds: float, deadly: str = "") -> list[str]:
    options = ["predict", str(scans), "-o", str(out), "-m", str(bundle), "--threads", "1"]
    return [sys.executable, "-c", PROGRAM, str(seconds), deadly, *options, "--backend", "torch"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_write(tiny_bundle, scans, tmp_path, number, code):
    out = tmp_path / "out"
    with subprocess.Popen(
        command(tiny_bundle, scans, out, 1.0),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        seen = {run.stdout.readline().strip() for _ in range(2)}
        assert seen == {"writing a.nii.gz", "b"}
        run.send_signal(number)
        rest, errors = run.communicate(timeout=60)
    assert run.returncode == code, errors
    assert "written a.nii.gz" in rest
    assert "Traceback" not in errors
    assert state(out, "a") in ("done", "empty")
    assert nib.load(out / "a.nii.gz").get_fdata().shape
    found = json.loads((out / "summary.json").read_text())["cases"]
    assert [found[name]["code"] for name in "abc"] == ["", "E_STOPPED", "E_STOPPED"]
    assert not leftovers(out)


@pytest.mark.slow
def test_a_scan_that_kills_the_process_takes_no_other_result_with_it(tiny_bundle, scans, tmp_path):
    """b ends the process while a is being written, each time: a must get through, b be blamed."""
    out = tmp_path / "out"
    codes = []
    for _ in range(4):
        run = subprocess.run(
            command(tiny_bundle, scans, out, 0.6, "b.nii.gz"), capture_output=True, check=False
        )
        codes.append(run.returncode)
    assert codes == [9, 9, 9, 3]
    found = json.loads((out / "summary.json").read_text())["cases"]
    assert [found[name]["code"] for name in "abc"] == ["", "E_CRASHED", ""]


def test_what_writing_takes_of_memory(tmp_path):
    scan = read_scan(ct(tmp_path / "x.nii.gz", shape=(160, 150, 140)))
    ids = np.random.default_rng(0).integers(0, 15, scan.volume.geometry.shape, dtype=np.uint8)
    label_map = LabelMap(ids, scan.volume.geometry)
    tracemalloc.start()
    try:
        write_label_map(tmp_path / "warm.nii.gz", label_map, scan.source)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        write_label_map(tmp_path / "labels.nii.gz", label_map, scan.source)
        label_map.volumes_ml()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.4 * writing_bytes(scan.source) < peak - before <= writing_bytes(scan.source)
