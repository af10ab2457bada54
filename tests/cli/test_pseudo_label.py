"""``cfseg pseudo-label``: what it prints, writes and refuses."""

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli import app
from cfseg.errors import InputError, UsageError


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


def test_a_case_whose_labels_cannot_be_read_costs_no_other(cohort, tmp_path, tiny_bundle):
    (cohort / "manifest.json").unlink()
    (cohort / "labelsTr").mkdir()
    (cohort / "labelsTr" / "b.nii.gz").write_bytes(b"damaged")
    (cohort / "imagesTr2").symlink_to("imagesTr2")
    result = run(cohort, "-m", tiny_bundle, "-o", tmp_path / "out", "--device", "cpu", "--step", 1)
    assert result.exit_code == 3
    assert "1 done, 2 refused" in result.output
    for name, code in (("b", "E_FORMAT"), ("imagesTr2", "E_READ")):
        record = json.loads((tmp_path / "out/status" / f"{name}.json").read_text())
        assert (record["state"], record["code"]) == ("refused", code)
        assert str(tmp_path) not in record["message"]


def test_a_case_called_like_a_path_is_refused_and_writes_nothing_elsewhere(
    cohort, tmp_path, tiny_bundle
):
    said = {"a": [], "b": [], "../../up": {"image": "imagesTr/a_0000.nii.gz"}}
    (cohort / "manifest.json").write_text(json.dumps(said))
    result = run(cohort, "-m", tiny_bundle, "-o", tmp_path / "out", "--device", "cpu", "--step", 1)
    assert "../../up: refused: E_MANIFEST" in result.output
    assert not list(tmp_path.rglob("up*"))


def test_what_is_to_be_ignored_stays_so(cohort, tmp_path, tiny_bundle):
    ids = np.zeros((24, 24, 24), np.uint8)
    ids[:2], ids[6:12, 6:12, 6:12] = 1, 3
    (cohort / "labelsTr").mkdir()
    nib.save(nib.Nifti1Image(ids, np.diag([-4.0, -4.0, 4.0, 1.0])), cohort / "labelsTr/a.nii.gz")
    labels = {"background": 0, "spleen": 1, "liver": 2, "ignore": 3}
    about = {"file_ending": ".nii.gz", "labels": labels}
    (cohort / "dataset.json").write_text(json.dumps(about))
    (cohort / "manifest.json").write_text(json.dumps({"a": [1, 3], "b": []}))
    call = (cohort, "-m", tiny_bundle, "-o", tmp_path / "out", "--device", "cpu", "--step", 1)
    run(*call)
    written, origin = (
        np.asarray(nib.load(tmp_path / "out" / folder / "a.nii.gz").dataobj)
        for folder in ("labelsTr", "provenance")
    )
    assert np.array_equal(written == 15, ids == 3)
    assert np.array_equal(origin == 3, ids == 3)
    assert np.array_equal(written == 3, ids == 1)
    record = json.loads((tmp_path / "out/status/a.json").read_text())
    assert (record["ignored_voxels"], record["ignore"]) == (6**3, 3)
    assert "a: done before, unchanged" in run(*call).output
    (cohort / "manifest.json").write_text(json.dumps({"a": {"absent": [9]}, "b": []}))
    assert "a: done before" not in run(*call).output


def test_nothing_found_is_exit_code_4(tmp_path, tiny_bundle):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", "-m", tiny_bundle, "-o", tmp_path / "out")
    assert isinstance(result.exception, InputError)
    assert (result.exception.code, result.exception.exit_code) == ("E_NO_CASES", 4)
    assert isinstance(run(tmp_path / "none", "-o", tmp_path / "out").exception, UsageError)


def test_no_case_is_exit_code_4(cohort, tmp_path, tiny_bundle):
    result = run(cohort, "-m", tiny_bundle, "-o", tmp_path / "out", "--group", 6)
    assert result.exit_code == 4
    assert "no case to label" in result.output


@pytest.mark.parametrize("wrong", [["--stage", "liver"], ["--group", "7"]])
def test_a_wrong_call_is_exit_code_2(cohort, tmp_path, wrong):
    assert run(cohort, "-o", tmp_path / "out", *wrong).exit_code == 2
