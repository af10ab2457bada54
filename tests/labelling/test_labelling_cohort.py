"""Pseudo-labels for a cohort from a bundle, with random weights: what is kept, merged, redone."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

import tiny_cohort
from cfseg.bundle.bundle import read_manifest
from cfseg.dataset.cases import read_cases
from cfseg.errors import ModelError, UsageError
from cfseg.geometry import Geometry
from cfseg.inference.predictor import Stage
from cfseg.labelling.cohort import choose, label_cohort
from cfseg.labelling.pseudo_labels import label
from cfseg.labels import ORGAN_IDS
from cfseg.volume import LabelMap, Volume


@pytest.fixture
def dataset(tmp_path):
    return tiny_cohort.write(tmp_path / "cohort")


@pytest.fixture
def run(dataset, tmp_path, tiny_bundle):
    def label(**options):
        return label_cohort(
            dataset, tiny_bundle, tmp_path / "out", device="cpu", threads=1, step=1.0, **options
        )

    return label


def ids(path):
    return np.asarray(nib.load(path).dataobj)


def test_the_ground_truth_is_kept_and_the_rest_is_the_models(run, dataset, tmp_path):
    summary = run()
    assert summary.exit_code == 0
    assert [c.case for c in summary.cases] == ["partial", "tumor_b", "unlabelled"]
    for case in ("partial", "tumor_b"):
        truth = ids(dataset / f"labelsTr/{case}.nii.gz")
        merged = ids(tmp_path / f"out/labelsTr/{case}.nii.gz")
        origin = ids(tmp_path / f"out/provenance/{case}.nii.gz")
        assert (merged[truth > 0] == truth[truth > 0]).all()
        assert np.array_equal(origin == 1, truth > 0)
        assert np.array_equal(origin == 2, (merged > 0) & (truth == 0))
        pseudo = set(np.unique(merged[origin == 2]))
        assert pseudo
        assert pseudo <= {*ORGAN_IDS} - {*tiny_cohort.ANNOTATED[case]}


def test_outputs_lie_on_the_scans_grid(run, dataset, tmp_path):
    run(groups=[1])
    scan = nib.load(dataset / "imagesTr/unlabelled_0000.nii.gz")
    for folder in ("labelsTr", "provenance"):
        found = nib.load(tmp_path / f"out/{folder}/unlabelled.nii.gz")
        assert np.array_equal(found.affine, scan.affine)
        assert found.shape == scan.shape
        assert found.get_data_dtype() == np.uint8


def test_the_model_is_recorded(run, tmp_path):
    record = run(groups=[1]).as_dict()
    assert json.loads((tmp_path / "out/pseudo_labels.json").read_text()) == record
    assert record["counts"] == {"done": 1, "refused": 0, "failed": 0}
    run(groups=[4])
    cases = json.loads((tmp_path / "out/pseudo_labels.json").read_text())["cases"]
    assert sorted(cases) == ["tumor_a", "tumor_b", "unlabelled"]
    assert len(record["model_sha256"]) == len(record["cases"]["unlabelled"]["sha256"]) == 64
    assert record["step"] == 1.0


def test_it_resumes_case_by_case(run, dataset, tmp_path):
    run()
    assert all(case.skipped for case in run().cases)
    (tmp_path / "out/labelsTr/partial.nii.gz").write_bytes(b"torn")
    shutil.copy(dataset / "labelsTr/full_a.nii.gz", dataset / "labelsTr/tumor_b.nii.gz")
    assert [c.case for c in run().cases if not c.skipped] == ["partial", "tumor_b"]
    assert not any(case.skipped for case in run(tumor=True).cases if case.case == "partial")


def test_a_bad_case_does_not_stop_the_others(run, dataset):
    small = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
    nib.save(small, dataset / "labelsTr/partial.nii.gz")
    (dataset / "imagesTr/unlabelled_0000.nii.gz").write_bytes(b"no image")
    summary = run()
    states = {c.case: (c.state, c.record["code"]) for c in summary.cases}
    assert states["partial"] == ("refused", "E_GRID")
    assert states["unlabelled"][0] == "refused"
    assert states["tumor_b"] == ("done", "")
    assert summary.exit_code == 3
    assert run(groups=[1]).exit_code == 4


def test_no_tumor_is_put_where_it_is_known_that_there_is_none(run, dataset, tmp_path, monkeypatch):
    def everywhere(stage, volume, step):
        return LabelMap(np.full(volume.geometry.shape, 14, np.uint8), volume.geometry)

    monkeypatch.setattr("cfseg.labelling.cohort.label", everywhere)
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["partial"] = {"annotated": manifest["partial"], "absent": [14]}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    assert run(stage="tumor", tumor=True).exit_code == 0
    found = {name: ids(tmp_path / f"out/labelsTr/{name}.nii.gz") for name in ("partial", "full_a")}
    assert (14 in found["partial"], 14 in found["full_a"]) == (False, True)


@pytest.mark.parametrize("stage", ["tumor", "organ", "cascade"])
def test_every_stage_can_label(run, tmp_path, stage):
    assert run(stage=stage, groups=[1], tumor=True).exit_code == 0
    found = set(np.unique(ids(tmp_path / "out/labelsTr/unlabelled.nii.gz")))
    assert found <= set(range(15))
    assert stage != "organ" or 14 not in found


def test_what_is_labelled_when_nobody_says(dataset):
    cases = read_cases(dataset)
    assert [c.name for c in choose(cases)] == ["partial", "tumor_b", "unlabelled"]
    with_tumor = [c.name for c in choose(cases, tumor=True)]
    assert with_tumor == ["full_a", "full_b", "partial", "tumor_b", "unlabelled"]
    free = [replace(c, absent=frozenset({14})) if c.name == "full_a" else c for c in cases]
    assert [c.name for c in choose(free, tumor=True)] == with_tumor[1:]
    assert [c.name for c in choose(cases, [4])] == ["tumor_a", "tumor_b"]
    assert len(choose(cases, [1, 2])) == 6


def test_wrong_calls(run, dataset, tiny_bundle, tmp_path):
    with pytest.raises(UsageError, match="no stage 'liver'"):
        run(stage="liver")
    with pytest.raises(UsageError, match="no group 7"):
        run(groups=[7])
    with pytest.raises(UsageError, match="lies in the cohort"):
        label_cohort(dataset, tiny_bundle, dataset / "out")
    with pytest.raises(ModelError):
        label_cohort(dataset, tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="step 0"):
        label_cohort(dataset, tiny_bundle, tmp_path / "out", step=0)


class Striped:
    """Sees a spleen, and above it, in alternate planes, first a tumor, then kidney and pancreas."""

    def __call__(self, windows):
        logits = torch.zeros(len(windows), 15, *windows.shape[2:])
        logits[:, 3] = 1.0
        logits[:, 14, ::2] = 2.0
        logits[:, 2, ::4] = 1.5
        return logits


def test_organs_alone_are_the_best_labels_beside_the_tumor(tiny_bundle):
    plan = (
        read_manifest(tiny_bundle).stages[1].plan.model_copy(update={"spacing_mm": (4.0, 4.0, 4.0)})
    )
    stage = Stage("tumor", "tumor_1", plan, Striped(), torch.device("cpu"))
    volume = Volume(np.zeros((16, 16, 16), np.int16), Geometry.from_spacing((16,) * 3, (4.0,) * 3))
    plain = label(stage, volume, 1.0).ids
    organs = label(stage, volume, 1.0, organs_only=True).ids
    assert [int(plane[8, 8]) for plane in plain[:5]] == [14, 3, 14, 3, 14]
    assert [int(plane[8, 8]) for plane in organs[:5]] == [2, 3, 3, 3, 2]
    assert np.array_equal(organs[plain != 14], plain[plain != 14])
