"""A report of a folder in which some status files are damaged."""

import json
from pathlib import Path

import pytest
from small_outputs import small_output

from cfseg.reports.report import write_report
from mutants import mutant


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return small_output(tmp_path)


def test_no_mutant_of_a_status_ends_the_report(out: Path):
    whole = json.loads((out / "status" / "one.json").read_text())
    (out / "one.nii.gz").unlink()
    for seed in range(150):
        (out / "status" / f"m{seed}.json").write_bytes(mutant(whole | {"case": f"m{seed}"}, seed))
    written = write_report(out)
    assert 10 < len(written.incomplete) < 150
    assert "one" not in written.incomplete
    for case, problem in written.incomplete.items():
        assert "status file is damaged" in problem
        assert "status file is damaged" in written.pages[case].read_text(encoding="utf-8")


def test_a_damaged_status_is_a_problem_beside_the_pictures(out: Path):
    file = out / "status" / "one.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"agreement": {"liver": []}}))
    written = write_report(out)
    assert written.exit_code == 3
    assert "agreement.liver" in written.incomplete["one"]
    page = written.pages["one"].read_text(encoding="utf-8")
    assert "data-ct" in page
    assert "content has changed" not in page
    assert "unknown" in written.index.read_text(encoding="utf-8")


def test_half_written_files_are_no_cases(out: Path):
    (out / "status" / ".tmp-one.json").write_text("{")
    assert list(write_report(out).pages) == ["one"]
