import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfseg.cli.root import app
from cfseg.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))
from small_cohorts import PUBLISHED_SIZES, cohort, published


def run(*words):
    return CliRunner().invoke(app, ["dataset", *map(str, words)])


@pytest.mark.parametrize("verb", ["check", "groups"])
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


@pytest.mark.parametrize("verb", ["check", "groups"])
def test_an_empty_folder_has_its_exit_code(tmp_path, verb):
    result = run(verb, tmp_path)
    assert result.exit_code == 4
    assert "no scans and no label maps found; expected imagesTr/CASE_0000.nii.gz" in result.stderr
