"""``cfseg pseudo-label``: what it prints, writes and refuses."""

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli import app


@pytest.fixture
def cohort(tmp_path):
    """One case without labels, one whose scan is damaged."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "cohort"
    (folder / "imagesTr").mkdir(parents=True)
    hu = rng.normal(40, 60, (24, 24, 24)).astype(np.int16)
    nib.save(
        nib.Nifti1Image(hu, np.diag([-4.0, -4.0, 4.0, 1.0])), folder / "imagesTr/a_0000.nii.gz"
    )
    (folder / "imagesTr/b_0000.nii.gz").write_bytes(b"damaged")
    (folder / "manifest.json").write_text(json.dumps({"a": [], "b": []}))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["pseudo-label", *map(str, arguments)])


def test_it_labels_resumes_and_says_what_failed(cohort, tmp_path, tiny_bundle):
    call = (cohort, "-m", tiny_bundle, "-o", tmp_path / "out", "--device", "cpu", "--threads", 1)
    first = run(*call, "--step", 1)
    assert first.exit_code == 3
    assert "b: refused: E_" in first.output
    assert "1 done, 1 refused" in first.output
    assert (tmp_path / "out/labelsTr/a.nii.gz").exists()
    assert (tmp_path / "out/provenance/a.nii.gz").exists()
    assert "a: done before, unchanged" in run(*call, "--step", 1).output
    quiet = run(*call, "--step", 1, "--quiet")
    assert "a: done" not in quiet.output
    assert "b: refused" in quiet.output


def test_no_case_is_exit_code_4(cohort, tmp_path, tiny_bundle):
    result = run(cohort, "-m", tiny_bundle, "-o", tmp_path / "out", "--group", 6)
    assert result.exit_code == 4
    assert "no case to label" in result.output


@pytest.mark.parametrize("wrong", [["--stage", "liver"], ["--group", "7"]])
def test_a_wrong_call_is_exit_code_2(cohort, tmp_path, wrong):
    assert run(cohort, "-o", tmp_path / "out", *wrong).exit_code == 2
