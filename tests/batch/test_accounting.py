"""What the status of a case says, when it is done again, and who does it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cfseg.batch import predict_many, read_shard
from cfseg.batch.claims import claimed
from cfseg.errors import EXIT_NONE_DONE, UsageError
from cfseg.io import ReadingOptions
from cfseg.io.atomic import sweep
from cfseg.segmenter import Segmenter
from tiny_ct import ct


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, device="cpu", threads=1)


def status(out: Path, case: str) -> dict:
    return json.loads((out / "status" / f"{case}.json").read_text())


def test_a_missing_input_is_one_refused_case(segmenter, tmp_path):
    scans = [ct(tmp_path / "a.nii.gz"), tmp_path / "b.nii.gz", ct(tmp_path / "c.nii.gz")]
    summary = predict_many(scans, tmp_path / "out", segmenter)
    assert [case.case for case in summary.cases] == ["a", "b", "c"]
    assert [case.ok for case in summary.cases] == [True, False, True]
    assert summary.cases[1].code == "E_MISSING"
    assert summary.exit_code == 3
    with pytest.raises(UsageError, match="there is no"):
        predict_many([tmp_path / "b.nii.gz"], tmp_path / "out", segmenter)


def test_the_status_says_all_that_decides_a_result(segmenter, tmp_path):
    import hashlib

    scan, out = ct(tmp_path / "x.nii.gz"), tmp_path / "out"
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("no scan")
    predict_many([scan, bad], out, segmenter)
    found, refused = status(out, "x"), status(out, "bad")
    assert {"state", "code", "message", "notes", "attempt", "device", "versions"} <= set(found)
    assert found["started"] <= found["finished"]
    assert found["input_sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert refused["input_sha256"] == hashlib.sha256(b"no scan").hexdigest()
    assert found["output_sha256"] == hashlib.sha256((out / "x.nii.gz").read_bytes()).hexdigest()
    assert found["settings"]["bundle_sha256"] == segmenter.digest
    assert len(found["settings_sha256"]) == 64
    assert found["settings_sha256"] == refused["settings_sha256"]
    rows = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert [(row["case"], row["state"], row["code"]) for row in rows] == [
        ("x", found["state"], ""), ("bad", "refused", "E_FORMAT"),
    ]  # fmt: skip
    assert float(rows[0]["seconds"]) > 0


def test_attempts_are_counted_until_something_changes(segmenter, tmp_path):
    bad, out = tmp_path / "bad.nii.gz", tmp_path / "out"
    bad.write_text("no scan")
    for attempt in (1, 2):
        predict_many([bad], out, segmenter)
        assert status(out, "bad")["attempt"] == attempt
    bad.write_text("still no scan")
    predict_many([bad], out, segmenter)
    assert status(out, "bad")["attempt"] == 1


def test_why_a_finished_case_is_done_again(segmenter, tiny_bundle, tmp_path):
    scan, out = ct(tmp_path / "in" / "x.nii.gz"), tmp_path / "out"
    other = Segmenter(
        tiny_bundle, "cpu", 1, ("region.margin_mm=33",), options=ReadingOptions(allow_gaps=True)
    )

    def again(with_: Segmenter) -> list[str]:
        return predict_many([scan], out, with_).cases[0].record["again"]

    assert again(segmenter) == []
    before = segmenter.cascade.region.margin_mm
    assert again(other) == [
        f"region.margin_mm: {before}, now 33.0", "allow_gaps: None, now True",
    ]  # fmt: skip
    assert predict_many([scan], out, other).cases[0].skipped
    ct(scan, seed=9)
    assert again(other) == ["the input changed"]
    (out / "x.nii.gz").unlink()
    assert again(other) == ["the output is gone"]
    assert status(out, "x")["again"] == ["the output is gone"]


def test_a_scan_on_which_the_process_died_three_times_is_left_alone(
    segmenter, tmp_path, monkeypatch
):
    scan, out = ct(tmp_path / "x.nii.gz"), tmp_path / "out"

    class Killed(BaseException):
        """As a kill: nothing is tidied up."""

    def dies(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(segmenter, "segment", dies)
    for attempt in (1, 2, 3):
        with pytest.raises(Killed):
            predict_many([scan], out, segmenter)
        assert (status(out, "x")["state"], status(out, "x")["attempt"]) == ("running", attempt)
    summary = predict_many([scan], out, segmenter)
    assert (summary.cases[0].state, summary.cases[0].code) == ("failed", "E_CRASHED")
    assert "--overwrite" in summary.cases[0].message
    monkeypatch.undo()
    assert predict_many([scan], out, segmenter, overwrite=True).cases[0].ok


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_stop_keeps_what_is_finished_and_sums_up(segmenter, tmp_path, monkeypatch, kind):
    scans = [ct(tmp_path / f"{name}.nii.gz") for name in "abc"]
    out, segment = tmp_path / "out", segmenter.segment

    def stops_at_b(scan: Path, *more: object, **named: object) -> object:
        if scan.name == "b.nii.gz":
            raise kind
        return segment(scan, *more, **named)

    monkeypatch.setattr(segmenter, "segment", stops_at_b)
    with pytest.raises(kind):
        predict_many(scans, out, segmenter)
    found = json.loads((out / "summary.json").read_text())
    assert found["inputs"] == 3 == sum(found[s] for s in ("done", "empty", "refused", "failed"))
    assert [found["cases"][name]["code"] for name in "abc"] == ["", "E_STOPPED", "E_STOPPED"]
    assert (out / "a.nii.gz").is_file()
    assert not (out / "status" / "b.json").exists()
    assert not list((out / "status").glob(".*"))
    monkeypatch.undo()
    again = predict_many(scans, out, segmenter)
    assert [case.skipped for case in again.cases] == [True, False, False]


def test_shares_are_disjoint_and_complete(segmenter, tmp_path):
    for name in "abcde":
        ct(tmp_path / "in" / f"{name}.nii.gz")
    out = tmp_path / "out"
    parts = [predict_many([tmp_path / "in"], out, segmenter, shard=(i, 2)) for i in (1, 2)]
    assert [[case.case for case in part.cases] for part in parts] == [
        ["a", "c", "e"], ["b", "d"],
    ]  # fmt: skip
    for name in ("summary-1-of-2.json", "summary-1-of-2.csv", "summary-2-of-2.json"):
        assert (out / name).is_file()
    whole = predict_many([tmp_path / "in"], out, segmenter)
    assert all(case.skipped for case in whole.cases)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""])
def test_a_share_that_is_none(text):
    with pytest.raises(UsageError, match="i/N"):
        read_shard(text)
    assert read_shard("2/8") == (2, 8)


def test_an_empty_scan_may_count_as_not_done(segmenter, tmp_path, monkeypatch):
    from dataclasses import replace

    scan, segment = ct(tmp_path / "x.nii.gz"), segmenter.segment

    def empty(*given: object, **named: object) -> object:
        found = segment(*given, **named)
        return replace(found, result=replace(found.result, status="empty"))

    monkeypatch.setattr(segmenter, "segment", empty)
    assert predict_many([scan], tmp_path / "out", segmenter).exit_code == 0
    strict = predict_many([scan], tmp_path / "out", segmenter, fail_on_empty=True)
    assert strict.exit_code == EXIT_NONE_DONE
    assert strict.cases[0].state == "empty"


def test_a_claim_is_held_by_one_and_gone_afterwards(tmp_path):
    lock = tmp_path / ".x.lock"
    with claimed(lock, wait=False) as mine:
        assert mine
        with claimed(lock, wait=False) as again:
            assert not again
    assert not lock.exists()
    with claimed(lock, wait=True) as mine:
        assert mine


def test_a_claim_of_a_killed_process_is_free(tmp_path):
    lock = tmp_path / ".x.lock"
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom cfseg.batch.claims import claimed\n"
        "with claimed(Path(sys.argv[1]), wait=False):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with claimed(lock, wait=False) as mine:
            assert not mine
        os.kill(holder.pid, signal.SIGKILL)
    assert lock.exists()
    with claimed(lock, wait=False) as mine:
        assert mine


SLOW = """
import sys, time
from pathlib import Path
from cfseg.batch import predict_many
from cfseg.segmenter import Segmenter

segmenter = Segmenter(sys.argv[1], "cpu", 1)
segment = segmenter.segment

def slow(scan, *more, **named):
    with open(sys.argv[4], "a") as log:
        log.write(scan.name + "\\n")
    time.sleep(0.3)
    return segment(scan, *more, **named)

segmenter.segment = slow
print("ready", flush=True)
sys.stdin.readline()
summary = predict_many([Path(sys.argv[2])], Path(sys.argv[3]), segmenter)
print(summary.exit_code, sum(case.skipped for case in summary.cases), flush=True)
"""


@pytest.mark.slow
def test_r09_two_runs_on_one_folder_do_each_case_once(tiny_bundle, tmp_path):
    for name in "abcdef":
        ct(tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_text("no scan")
    out, log = tmp_path / "out", tmp_path / "log"
    command = [sys.executable, "-c", SLOW, *map(str, (tiny_bundle, tmp_path / "in", out, log))]
    runs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    ends = [run.communicate(timeout=120)[0].split() for run in runs]
    done = sorted(log.read_text().split())
    assert done == sorted([*(f"{name}.nii.gz" for name in "abcdef"), "bad.nii.gz"])
    assert [code for code, _ in ends] == ["3", "3"]
    assert sum(int(skipped) for _, skipped in ends) == 7
    assert len(list(out.glob("*.nii.gz"))) == 6
    assert not list((out / "status").glob(".*"))


def test_half_written_files_of_killed_runs_are_swept_and_nothing_else(tmp_path):
    old = time.time() - 7200
    ours = tmp_path / f".tmp-{'0' * 32}-x.nii.gz"
    young = tmp_path / f".tmp-{'1' * 32}-x.nii.gz"
    others = [tmp_path / ".tmp-mine-x.nii.gz", tmp_path / "x.nii.gz", tmp_path / ".tmp-"]
    for path in (ours, young, *others):
        path.touch()
    for path in (ours, *others):
        os.utime(path, (old, old))
    assert sweep(tmp_path) == 1
    assert not ours.exists()
    assert all(path.exists() for path in (young, *others))
