from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli import app
from cfseg.errors import ModelError, UsageError


@pytest.fixture
def work(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A workspace with a bundle, and one case beside it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "bundle").symlink_to(tiny_bundle)
    random, affine = np.random.default_rng(0), np.diag([-5.0, -5.0, 5.0, 1.0])
    hu = np.full((20, 20, 16), -1000, np.int16)
    hu[2:-2, 2:-2] = random.normal(50, 100, (16, 16, 16))
    ids = random.integers(0, 15, hu.shape).astype(np.uint8)
    for array, path in ((hu, "imagesTr/a_0000.nii.gz"), (ids, "labelsTr/a.nii.gz")):
        (tmp_path / "cases" / path).parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(array, affine), tmp_path / "cases" / path)
    return tmp_path / "work"


def run(*arguments: object):
    return CliRunner().invoke(app, ["ablate", *map(str, arguments), "--threads", "1"])


def test_it_prints_the_tables_and_writes_them(work: Path) -> None:
    cases = work.parent / "cases"
    result = run(work, "--cases", cases)
    assert result.exit_code == 0, result.output
    for words in ("Table 5", "Table 6", "Tables 3 and 4", "weight 1", "1 case;"):
        assert words in result.output
    written = {path.name for path in (work / "ablation").iterdir()}
    assert written == {"ablation.md", "ablation.csv", "ablation.json", "cases"}
    quiet = run(work, "--cases", cases, "-o", work / "other", "--quiet", "--set", "step.organ=1")
    assert quiet.exit_code == 0
    assert quiet.output == ""
    assert (work / "other" / "ablation.md").is_file()


def test_exit_codes_tell_refused_cases(work: Path) -> None:
    cases = work.parent / "cases"
    (cases / "imagesTr" / "b_0000.nii.gz").write_bytes(b"nothing")
    (cases / "labelsTr" / "b.nii.gz").write_bytes((cases / "labelsTr" / "a.nii.gz").read_bytes())
    result = run(work, "--cases", cases, "-q")
    assert result.exit_code == 3
    assert "b: refused: E_" in result.output
    (cases / "imagesTr" / "a_0000.nii.gz").write_bytes(b"nothing")
    assert run(work, "--cases", cases, "-q").exit_code == 4


def test_wrong_calls_are_refused(work: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    cases = work.parent / "cases"
    no_place = run(tiny_bundle, "--cases", cases)
    assert isinstance(no_place.exception, UsageError)
    assert "--out" in no_place.exception.message
    for call in ((work, "--cases", tmp_path / "none"), (tmp_path / "none", "--cases", cases)):
        assert isinstance(run(*call).exception, UsageError)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert run(work, "--cases", tmp_path / "empty").exception.exit_code == 4
    assert run(work, "--cases", cases, "-o", tmp_path / "file").exception.exit_code == 2
    no_model = run(tmp_path / "cases", "--cases", cases, "-o", tmp_path / "out")
    assert isinstance(no_model.exception, ModelError)
    unlabelled = tmp_path / "cases" / "labelsTr" / "a.nii.gz"
    unlabelled.unlink()
    refused = run(work, "--cases", cases)
    assert isinstance(refused.exception, UsageError)
