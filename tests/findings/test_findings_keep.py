"""What ``predict --statistics`` writes beside its label maps."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cfseg.batch import predict_many
from cfseg.batch.places import find_input, inputs_by_case, remember_inputs
from cfseg.errors import InputError
from cfseg.io import Input, case_id
from cfseg.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, device="cpu", threads=1)


def ct(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    hu = np.full((26, 24, 22), -1000, dtype=np.int16)
    hu[3:-3, 3:-3] = rng.normal(60, 60, (20, 18, 22)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu, np.diag([-5.0, -5.0, 5.0, 1.0])), path)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_statistics_are_those_of_the_label_map_and_its_networks(segmenter, tmp_path):
    out = tmp_path / "out"
    predict_many([ct(tmp_path / "in" / "x_0000.nii.gz").parent], out, segmenter, statistics=True)
    record = json.loads((out / "statistics" / "x.json").read_text())
    status = json.loads((out / "status" / "x.json").read_text())
    assert "clinical" in record["about"]["notice"]
    assert record["about"]["label_map_sha256"] == status["output_sha256"]
    ids = np.asarray(nib.load(out / "x.nii.gz").dataobj)
    assert record["liver"]["n_voxels"] == (ids == 1).sum()
    assert record["tumor"]["n_voxels"] == sum(it["n_voxels"] for it in record["tumor"]["lesions"])
    for name, value in status["agreement"].items():
        assert record[name]["agreement"] == value
        assert record[name]["low_agreement"] == (value < 0.7)
    assert len(rows(out / "statistics.csv")) == 14


def test_cases_finished_before_are_measured_without_predicting_again(segmenter, tmp_path):
    scans, out = [ct(tmp_path / "in" / f"{n}.nii.gz", seed) for seed, n in enumerate("ab")], (
        tmp_path / "out"
    )  # fmt: skip
    predict_many(scans, out, segmenter)
    assert not (out / "statistics").exists()
    before = (out / "status" / "a.json").read_bytes()
    summary = predict_many(scans, out, segmenter, statistics=True)
    assert [case.skipped for case in summary.cases] == [True, True]
    assert (out / "status" / "a.json").read_bytes() == before
    made_later = (out / "statistics" / "a.json").read_bytes()
    predict_many(scans, out, segmenter, statistics=True, overwrite=True)
    assert (out / "statistics" / "a.json").read_bytes() == made_later
    assert {row["case"] for row in rows(out / "statistics.csv")} == {"a", "b"}


def test_what_belongs_to_another_label_map_is_not_listed(segmenter, tmp_path):
    scans, out = [ct(tmp_path / "in" / f"{n}.nii.gz") for n in "ab"], tmp_path / "out"
    predict_many(scans, out, segmenter, statistics=True)
    scans[0].write_bytes(scans[0].read_bytes()[:200])
    summary = predict_many(scans, out, segmenter, statistics=True)
    assert [case.state for case in summary.cases] == ["refused", "done"]
    assert {row["case"] for row in rows(out / "statistics.csv")} == {"b"}


def test_paths_are_kept_apart_and_only_for_their_owner(segmenter, tmp_path):
    scan, out = ct(tmp_path / "DOE^JOHN" / "x.nii.gz"), tmp_path / "out"
    predict_many([scan], out, segmenter, statistics=True)
    assert find_input(out, "x").path == scan
    assert (out / ".inputs" / "x").stat().st_mode & 0o077 == 0
    for path in out.rglob("*"):
        if path.is_file() and path.parent.name != ".inputs":
            assert b"DOE" not in path.read_bytes(), path


def test_an_input_that_moved_is_asked_for(tmp_path):
    scan = ct(tmp_path / "x_0000.nii.gz")
    remember_inputs(tmp_path / "out", [Input(scan)])
    moved = scan.rename(tmp_path / "there.nii.gz")
    with pytest.raises(InputError, match="--images"):
        find_input(tmp_path / "out", "x")
    with pytest.raises(InputError, match="--images"):
        find_input(tmp_path / "out", "x", inputs_by_case(tmp_path))
    again = moved.rename(tmp_path / "x.nii.gz")
    assert find_input(tmp_path / "out", case_id(again), inputs_by_case(tmp_path)).path == again


@pytest.mark.parametrize("damaged", ["", '{"case": "b", "st', "[1, 2]", "{}"])
def test_a_damaged_status_file_is_named_and_the_rest_goes_on(segmenter, tmp_path, damaged):
    scans = [ct(tmp_path / "in" / f"{name}.nii.gz") for name in "ab"]
    out = tmp_path / "out"
    assert predict_many(scans, out, segmenter, statistics=True).warnings == ()
    (out / "status" / "b.json").write_text(damaged)
    summary = predict_many(scans[:1], out, segmenter, statistics=True)
    (warning,) = summary.warnings
    assert warning.startswith("status/b.json is damaged")
    assert json.loads((out / "summary.json").read_text())["warnings"] == [warning]
    assert {row["case"] for row in rows(out / "statistics.csv")} == {"a"}


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"about": {}}'])
def test_damaged_statistics_are_made_again(segmenter, tmp_path, damaged):
    out = tmp_path / "out"
    predict_many([ct(tmp_path / "in" / "a.nii.gz")], out, segmenter, statistics=True)
    whole = (out / "statistics" / "a.json").read_bytes()
    (out / "statistics" / "a.json").write_text(damaged)
    (case,) = predict_many([tmp_path / "in"], out, segmenter, statistics=True).cases
    assert case.skipped
    assert (out / "statistics" / "a.json").read_bytes() == whole
