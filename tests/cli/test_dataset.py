import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfseg.cli.root import app
from cfseg.errors import UsageError
from cfseg.labels import ORGAN_IDS

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))
from small_cohorts import PUBLISHED_SIZES, cohort, published


def run(*words):
    return CliRunner().invoke(app, ["dataset", *map(str, words)])


@pytest.mark.parametrize("verb", ["check", "groups", "atlas"])
def test_help_has_an_example(verb):
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"Example: cfseg dataset {verb}" in result.output


def test_groups_prints_and_writes(tmp_path):
    result = run("groups", published(tmp_path), "-o", tmp_path / "out", "--write-manifest")
    assert result.exit_code == 0
    for size in PUBLISHED_SIZES.values():
        assert f" {size} " in result.output
    assert "21 cases lack one organ" in result.output
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["groups.json", "groups.png", "manifest.json"]
    assert json.loads((tmp_path / "out/groups.json").read_text())["counts"] == {
        str(number): size for number, size in PUBLISHED_SIZES.items()
    }


def test_check_names_the_bad_cases(tmp_path):
    folder = cohort(tmp_path / "in")
    (folder / "labelsTr2200/c.nii.gz").write_bytes(b"\x89PNG")
    result = run("check", folder, "-o", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 3
    assert "c: E_FORMAT: " in result.output
    assert (tmp_path / "out/check.csv").read_text().count("\n") == 2


def test_quiet_says_only_what_is_wrong(tmp_path):
    folder = cohort(tmp_path / "in")
    assert run("check", folder, "-q").output == ""
    assert run("groups", folder, "-q").output == ""
    (folder / "labelsTr2200/c.nii.gz").write_bytes(b"")
    lines = run("check", folder, "-q").output.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("c: E_FORMAT: ")


def test_nothing_is_written_without_a_place(tmp_path):
    folder = cohort(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    assert run("groups", folder).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert isinstance(run("groups", folder, "--write-manifest").exception, UsageError)


def test_groups_can_be_planned_without_any_scan(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"a": [], "b": [1, 2], "c": [1, 14]}))
    result = run("groups", tmp_path / "manifest.json")
    assert result.exit_code == 0
    assert "no scan was found of 3 of 3 cases" in result.stderr
    assert run("check", tmp_path / "manifest.json").exit_code == 4


def test_warnings_are_shown_and_counted_and_quiet_leaves_them_out(tmp_path):
    folder = cohort(tmp_path / "in")
    said = {"a": [], "b": [1, 2, 9], "c": list(ORGAN_IDS), "d": [1, 14]}
    (folder / "manifest.json").write_text(json.dumps(said))
    result = run("check", folder)
    assert result.exit_code == 0
    assert "b: warning: annotated_not_present: " in result.stderr
    rows = [line for line in result.stdout.splitlines() if "│" in line]
    counted = {cells[1].strip(): cells[2].strip() for cells in (row.split("│") for row in rows)}
    assert counted == {
        "good": "4", "bad": "0", "with warnings": "1",
        "annotated_not_present": "1", "present_not_annotated": "1",
    }  # fmt: skip
    assert run("check", folder, "-q").output == ""


@pytest.mark.parametrize("verb", ["check", "groups"])
@pytest.mark.parametrize("foreign", [False, True])
def test_nothing_in_it_is_one_sentence_and_exit_code_4(tmp_path, verb, foreign):
    if foreign:
        (tmp_path / "imagesTr").mkdir()
        (tmp_path / "imagesTr" / "a.png").touch()
    result = run(verb, tmp_path)
    assert result.exit_code == 4
    assert "no scans and no label maps found; expected imagesTr/CASE_0000.nii.gz" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("verb", ["check", "groups"])
def test_what_is_not_there_or_no_folder_is_a_wrong_call(tmp_path, verb):
    (tmp_path / "ct.nii").write_bytes(b"\xff")
    folder = cohort(tmp_path / "in")
    for call in (
        [tmp_path / "none"],
        [tmp_path / "ct.nii"],
        [folder, "-o", tmp_path / "ct.nii"],
        [folder, "-o", tmp_path / "ct.nii" / "out"],
    ):
        assert isinstance(run(verb, *call).exception, UsageError)
