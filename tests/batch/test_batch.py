import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cfseg.batch import predict_many
from cfseg.segmenter import Segmenter
from tiny_ct import ct


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, device="cpu", threads=1)


def test_two_bad_inputs_of_five_cost_two_refusals(segmenter: Segmenter, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for name in "abc":
        ct(scans / f"{name}_0000.nii.gz", seed=ord(name))
    whole = ct(tmp_path / "whole.nii.gz").read_bytes()
    (scans / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (scans / "text.nii.gz").write_text("this is not a scan\n")
    (scans / "notes.txt").write_text("ignore me\n")
    summary = predict_many([scans], tmp_path / "out", segmenter)
    assert summary.exit_code == 3
    out = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (out["inputs"], out["refused"], out["ignored"]) == (5, 2, 1)
    assert out["done"] + out["empty"] == 3
    assert out["cases"]["cut"]["code"] == "E_CORRUPT"
    assert out["cases"]["text"]["code"] == "E_FORMAT"
    assert {p.name for p in (tmp_path / "out").glob("*.nii.gz")} == {
        "a.nii.gz", "b.nii.gz", "c.nii.gz",
    }  # fmt: skip
    assert "clinical" in out["notice"]
    assert all("clinical" in case["notice"] for case in out["cases"].values())


def test_output_lies_on_the_input_grid(segmenter: Segmenter, tmp_path: Path) -> None:
    scan = ct(tmp_path / "x.nii.gz")
    predict_many([scan], tmp_path / "mask.nii.gz", segmenter)
    made, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(scan)
    assert made.shape == source.shape
    assert np.array_equal(made.affine, source.affine)
    assert made.get_data_dtype() == np.uint8


def test_finished_cases_are_kept_and_changed_ones_done_again(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    scan, out = ct(tmp_path / "in" / "x.nii.gz"), tmp_path / "out"

    def run(overwrite: bool = False) -> bool:
        return predict_many([scan], out, segmenter, overwrite=overwrite).cases[0].skipped

    assert not run()
    assert run()
    assert not run(overwrite=True)
    (out / "x.nii.gz").write_bytes(gzip.compress(b"damaged"))
    assert not run()
    ct(scan, seed=5)
    assert not run()


def test_an_internal_error_costs_one_case(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [ct(tmp_path / "in" / f"{n}.nii.gz") for n in "ab"]
    segment = segmenter.segment

    def fails_on_a(scan: Path, report: object = None, **_: object) -> object:
        if scan.name == "a.nii.gz":
            raise RuntimeError("boom")
        return segment(scan)

    monkeypatch.setattr(segmenter, "segment", fails_on_a)
    summary = predict_many(scans, tmp_path / "out", segmenter)
    assert summary.cases[0].state == "failed"
    assert summary.cases[1].ok
    assert summary.exit_code == 3
