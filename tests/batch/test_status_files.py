"""Status files that a disk or a person damaged: no status for the next run, and never its end."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cfseg.batch.case import CaseRun
from cfseg.batch.jobs import Job
from cfseg.batch.summary import Summary
from cfseg.cli.predict import _lines
from cfseg.errors import InputError
from cfseg.findings.keep import write_all_tables
from cfseg.io import AS_IS, Input, file_digest
from cfseg.io.status_file import read_status
from cfseg.recipes.recipe import Cascade
from mutants import mutant
from tiny_ct import ct

LATER, EARLIER = "2030", "2020"


class Refusing:
    """Stands for a segmenter that refuses every scan, at once."""

    manifest = SimpleNamespace(name="model")
    digest, notice, device = "ab" * 32, "A notice.", "cpu"
    cascade, options, backend, precision = Cascade(), AS_IS, "torch", "fp32"

    def segment(self, *_: object, **__: object) -> None:
        raise InputError("no abdomen here", code="E_FORMAT")


@pytest.fixture
def run(tmp_path: Path) -> CaseRun:
    (tmp_path / "status").mkdir()
    (tmp_path / "x.nii.gz").write_bytes(b"a label map")
    job = Job("x", Input(ct(tmp_path / "ct.nii.gz")), tmp_path / "x.nii.gz")
    return CaseRun(job, tmp_path, Refusing(), LATER)


def done(run: CaseRun) -> dict[str, object]:
    return run.record("done", 1, "2026-01-01", None) | {
        "notes": ["a: note"], "output": "x.nii.gz", "output_sha256": file_digest(run.job.target),
        "region": [[1, 2, 3], [4, 5, 6]], "volumes_ml": {"liver": 1500.5, "tumor": 0.2},
        "agreement": {"liver": 0.9}, "seconds": {"read": 1.0, "total": 3.0}, "again": [],
    }  # fmt: skip


def running(run: CaseRun) -> dict[str, object]:
    return {
        "case": "x", "state": "running", "attempt": 2, "started": "2026-01-01",
        "settings": run.settings(), "input_stamp": run._stamp(),
    }  # fmt: skip


def test_no_mutant_of_a_status_ends_the_next_run(run: CaseRun):
    kept = 0
    refused = run.record("refused", 1, "2026-01-01", InputError("no"))
    for seed in range(150):
        contents = mutant((done(run), refused, running(run))[seed % 3], seed)
        run.since = LATER if seed % 2 else EARLIER
        run.status_file.write_bytes(contents)
        warnings = write_all_tables(run.folder)
        assert isinstance(run.died_before, bool)
        status = run.segment(False, None)
        Summary((status,), {}, "", warnings=warnings).write(run.folder)
        "\n".join(_lines(status)).encode("utf-8")
        json.loads((run.folder / "summary.json").read_text())
        kept += status.skipped
    assert 5 < kept < 75


@pytest.mark.parametrize(
    "change",
    [
        {"settings": []},
        {"attempt": "2"},
        {"attempt": 10**30},
        {"attempt": True},
        {"finished": 3},
        {"seconds": {}},
        {"seconds": {"total": "3"}},
        {"notes": "a note"},
        {"notes": [None]},
        {"state": "finished"},
        {"state": []},
        {"case": None},
        {"message": {"a": 1}},
        {"volumes_ml": [1]},
    ],
)
def test_a_damaged_status_is_no_status(run: CaseRun, change: dict[str, object]):
    run.status_file.write_text(json.dumps(done(run)))
    assert run.segment(False, None).skipped
    run.status_file.write_text(json.dumps(done(run) | change))
    again = run.segment(False, None)
    assert (again.state, again.skipped, again.record["attempt"]) == ("refused", False, 1)
    assert read_status(run.status_file) == again.record


@pytest.mark.parametrize("contents", [b"", b"[]", b'{"case": "x"}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_status_is_no_status(run: CaseRun, contents: bytes):
    run.status_file.write_bytes(contents)
    assert run.segment(False, None).state == "refused"


@pytest.mark.parametrize("key", ["case", "output"])
@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a\\b", "", "x" * 300])
def test_a_status_names_no_file_elsewhere(run: CaseRun, key: str, name: str):
    run.status_file.write_text(json.dumps(done(run) | {key: name}))
    with pytest.raises(ValueError, match=key):
        read_status(run.status_file)


def test_what_a_run_writes_is_read_back_as_it_was(run: CaseRun):
    for record in (done(run), running(run), run.record("failed", 3, "2026", InputError("no"))):
        run.status_file.write_text(json.dumps(record))
        assert read_status(run.status_file).items() >= record.items()


def test_a_warning_names_the_key_that_is_damaged(run: CaseRun):
    run.status_file.write_text(json.dumps(done(run) | {"agreement": {"liver": "good"}}))
    (warning,) = write_all_tables(run.folder)
    assert "status/x.json is damaged (agreement.liver: " in warning
