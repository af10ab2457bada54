"""What ``cfseg train --dry-run`` says: the plan, the bytes, the hours; and it writes nothing."""

import json
import math
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tiny_cohort
from cfseg.cli import app
from cfseg.dataset.fitness import check_fitness
from cfseg.learning import checkpoints
from cfseg.learning.run import Cost, State
from cfseg.networks.operations import window_operations
from cfseg.recipes.recipe import load
from cfseg.training import data
from cfseg.training import outlook as subject
from cfseg.training.pipeline import Pipeline
from cfseg.training.steps import run_steps
from cfseg.training.trained import read_plan

CPU = torch.device("cpu")
GFLOPS = 50.0


@pytest.fixture
def asked(monkeypatch):
    """Be a machine of known speed; count how often it is measured."""
    times = []
    monkeypatch.setattr(subject, "sgemm_gflops", lambda device: times.append(device) or GFLOPS)
    return times


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort.write(tmp_path / "cohort")


def lines_of(cohort, work, recipe, stage=None, report=lambda line: None):
    pipeline = Pipeline(cohort, work, recipe, device=CPU, report=report)
    pipeline.check(remember=False)
    return {line.partition(":")[0]: line for line in pipeline.plan(stage)}, pipeline


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_papers_recipe_on_a_few_cases(cohort, tmp_path, asked):
    before = files(tmp_path)
    words = ["train", cohort, "-o", tmp_path / "w", "--recipe", "paper", "--dry-run"]
    ended = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])
    assert ended.exit_code == 0, ended.output
    found = {line.partition(":")[0]: line for line in ended.output.splitlines()}
    assert found["coarse_data"] == (
        "coarse_data: prepare 2 of 6 cases for the coarse model, at most 2 cases on a grid of "
        "4.00 x 4.00 x 4.00 mm: 0.028 MB on disk, 0.014 MB a case"
    )
    assert found["coarse_1"].startswith(
        "coarse_1: train the coarse model, patch 64x160x224, features 32, 64, 128, 256, 320, 320 "
        "(30.80 M parameters); 1500 epochs of 250 steps, at least "
    )
    assert "in all, were every operation done at the 50 GFLOPS" in list(found)[-1]
    assert "patch 96x128x192" in found["tumor_2"]
    assert list(found)[-2] == "bundle"
    assert len(asked) == 1
    assert files(tmp_path) == before
    assert not (tmp_path / "w").exists()


def test_hours_are_those_of_the_operations(cohort, tmp_path, monkeypatch):
    recipe = tiny_cohort.recipe(batch_size=3)
    monkeypatch.setattr(subject, "sgemm_gflops", lambda device: 1.0)
    found, pipeline = lines_of(cohort, tmp_path / "w", recipe)
    pipeline.write_data(next(it for it in pipeline.curriculum.learners if it.key == "coarse"))
    plan = read_plan(tmp_path / "w" / "data" / "coarse")
    seconds = 3 * 3 * window_operations(plan) * 1 * 2 / 1e9
    (number,) = re.findall(r"least (\S+) seconds", found["coarse_1"])
    assert float(number) == pytest.approx(seconds, abs=0.1)


def test_bytes_are_those_of_the_stages_grid(cohort, tmp_path, asked):
    stage = tiny_cohort.recipe().training.coarse.model_dump() | {"spacing_mm": (2.0, 2.0, 2.0)}
    found, _ = lines_of(cohort, tmp_path / "w", tiny_cohort.recipe(coarse=stage))
    a_case = 48**3 / 1e6
    assert found["coarse_data"].endswith(
        f"of 2.00 x 2.00 x 2.00 mm: {2 * a_case:.2g} MB on disk, {a_case:.2g} MB a case"
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [(4e9, "4 GB"), (99.96e9, "100 GB"), (9.96e6, "10 MB"), (123, "0.00012 MB")],
)
def test_sizes_are_read_at_a_glance(number, words):
    assert data._bytes(number) == words


def test_after_a_training_the_hours_are_those_measured(cohort, tmp_path, asked):
    work, recipe = tmp_path / "w", load("paper")
    cost = Cost(steps=100, step_seconds=30.0, validation_seconds=5.0, saving_seconds=1.0)
    state = State(step=100, cost=cost).model_dump(mode="json")
    values = {"state": state, "settings": {"initial_lr": 0.01}}
    checkpoints.write(work / "networks" / "tumor_2", "state", 100, {"w": torch.zeros(1)}, values)
    found, _ = lines_of(cohort, work, recipe)
    # 2500 epochs of 250 steps of .36 s
    assert found["tumor_2"].endswith("2500 epochs of 250 steps, about 2.6 days")
    assert "at least" in found["tumor_1"]


def test_where_all_was_measured_the_machine_is_not(cohort, tmp_path, asked):
    values = {"state": State(step=9, cost=Cost(steps=9, step_seconds=3.0)).model_dump(mode="json")}
    values["settings"] = {"initial_lr": 0.01}
    folder = tmp_path / "w" / "networks" / "coarse_1"
    checkpoints.write(folder, "final", 9, {"w": torch.zeros(1)}, values)
    found, _ = lines_of(cohort, tmp_path / "w", load("paper"), "coarse")
    assert list(found)[:2] == ["coarse_data", "coarse_1"]
    assert "about" in list(found)[2]
    assert asked == []


def test_what_is_done_and_what_is_done_again_is_said(cohort, tmp_path, asked):
    pipeline = lines_of(cohort, tmp_path / "w", tiny_cohort.recipe())[1]
    coarse = pipeline.steps("coarse")[0]
    run_steps(pipeline.markers, [coarse], lambda line: None)
    before = files(tmp_path)
    assert lines_of(cohort, tmp_path / "w", tiny_cohort.recipe())[0]["coarse_data"].endswith(
        " (done)"
    )
    other = lines_of(cohort, tmp_path / "w", tiny_cohort.recipe(seed=5))[0]["coarse_data"]
    assert other.endswith(" (again because of other seed)")
    assert files(tmp_path) == before


def test_a_scan_in_a_folder_of_dicom_files_counts_as_any_other(cohort, tmp_path, asked):
    hu = np.asarray(nib.load(cohort / "imagesTr" / "unlabelled_0000.nii.gz").dataobj)
    (cohort / "imagesTr" / "unlabelled_0000.nii.gz").unlink()
    write_series(cohort / "series", hu.transpose(2, 1, 0), spacing_mm=(5.0, 2.0, 2.0))
    manifest = json.loads((cohort / "manifest.json").read_text())
    manifest["unlabelled"] = {"image": "series", "annotated": []}
    (cohort / "manifest.json").write_text(json.dumps(manifest))
    grids = check_fitness(cohort, tmp_path / "fitness.json", remember=False).grids
    assert grids["unlabelled"] == ((24, 24, 24), pytest.approx((5, 2, 2)))
    found, _ = lines_of(cohort, tmp_path / "w", tiny_cohort.recipe())
    mb = (5 * 24**3 + math.prod((30, 12, 12))) / 1e6
    assert (
        f"for the organ model, at most 6 cases on a grid of 4.00 x 4.00 x 4.00 mm: {mb:.2g} MB"
        in (found["organ_data"])
    )


def write_series(folder, hu, spacing_mm):
    """Write an axial CT series of single images."""
    pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    series, frame = generate_uid(), generate_uid()
    for number, plane in enumerate(hu):
        image = FileDataset(None, {}, preamble=bytes(128))
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
        image.Modality, image.SeriesInstanceUID = "CT", series
        image.StudyInstanceUID = image.FrameOfReferenceUID = frame
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.Rows, image.Columns = plane.shape
        image.InstanceNumber = number + 1
        image.PixelSpacing = list(spacing_mm[1:])
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [0, 0, number * spacing_mm[0]]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.PixelRepresentation = 1
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = "1", "0", "HU"
        image.PixelData = plane.astype("<i2").tobytes()
        image.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
