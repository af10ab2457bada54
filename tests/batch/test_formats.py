"""Label maps in other formats, and what a large or a starved case leaves in its status."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfseg.batch import case as case_module
from cfseg.batch import predict_many
from cfseg.cli import app
from cfseg.errors import UsageError
from cfseg.io import FORMATS, read_label_map
from cfseg.segmenter import Segmenter
from tiny_ct import ct


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, device="cpu", threads=1)


def status(out: Path, case: str) -> dict:
    return json.loads((out / "status" / f"{case}.json").read_text())


def test_the_format_that_was_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.ReadImage(ct(tmp_path / "a.nii.gz")), tmp_path / "x_0000.mha")
    scan, out = str(tmp_path / "x_0000.mha"), tmp_path / "out"
    common = ["--bundle", str(tiny_bundle), "--device", "cpu", "--threads", "1", "-q"]
    for more in (["-o", str(out), "--format", "seg.nrrd"], ["-o", str(tmp_path / "y.nrrd")]):
        result = CliRunner().invoke(app, ["predict", scan, *common, *more])
        assert result.exit_code == 0, result.output
    assert status(out, "x")["output"] == "x.seg.nrrd"
    maps = [read_label_map(path)[0].ids for path in (out / "x.seg.nrrd", tmp_path / "y.nrrd")]
    assert (maps[0] == maps[1]).all()


def test_an_unknown_format_is_refused_before_any_work(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--format dcm: give one of nii\.gz, nii, nrrd"):
        predict_many([ct(tmp_path / "a.nii.gz")], tmp_path / "out", segmenter, format="dcm")
    assert FORMATS[0] == "nii.gz"
    assert not (tmp_path / "out").exists()


def test_a_large_refused_input_is_not_read_for_its_digest(segmenter: Segmenter, tmp_path: Path):
    """36 GB, all holes: whoever reads it takes a minute."""
    large = ct(tmp_path / "large.nii.gz").rename(tmp_path / "large.nii")
    large.write_bytes(b"no header" * 100)
    os.truncate(large, 36 * 10**9)
    (case,) = predict_many([large], tmp_path / "out", segmenter).cases
    assert case.code == "E_FORMAT"
    assert case.record["input_sha256"] == ""


def test_r07_a_case_without_memory_for_its_findings_says_so(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(case_module, "keep_case", starved)
    scan, out = ct(tmp_path / "x.nii.gz"), tmp_path / "out"
    summary = predict_many([scan], out, segmenter, statistics=True)
    assert [case.code for case in summary.cases] == ["E_OOM"]
    assert "memory ran out" in status(out, "x")["message"]
