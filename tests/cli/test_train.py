"""``cfseg train``: what it prints and refuses. That it trains is tested in tests/training."""

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli import app
from cfseg.errors import UsageError
from cfseg.labels import ORGAN_IDS


@pytest.fixture
def cohort(tmp_path):
    """Ten cases without tumor, five with, five unlabelled; the label maps' voxels do not matter."""
    manifest = {f"full_{i}": list(ORGAN_IDS) for i in range(10)}
    manifest |= {f"tumor_{i}": [*ORGAN_IDS, 14] for i in range(5)}
    manifest |= {f"bare_{i}": [] for i in range(5)}
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    for name, annotated in manifest.items():
        _save(image, tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
        if annotated:
            _save(image, tmp_path / "labelsTr" / f"{name}.nii.gz")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_dry_run_prints_the_steps_and_writes_nothing(cohort):
    result = run(cohort, "-o", cohort / "work", "--recipe", "paper", "--dry-run")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "coarse_data: prepare 10 cases for the coarse model",
        "coarse_1: train the coarse model",
        "pseudo_labels: pseudo-label 10 cases",
        "tumor_data: prepare 5 cases for the tumor model",
        "tumor_1: train the tumor model, weight 1 of 2",
        "tumor_2: train the tumor model, weight 2 of 2",
        "organ_data: prepare 20 cases for the organ model",
        "organ_1: train the organ model",
        "bundle: write the bundle",
    ]
    assert not (cohort / "work").exists()


def test_set_overrides_the_recipe(cohort):
    set_ = "training.coarse_cases=all_organs"
    result = run(cohort, "-o", cohort / "w", "--recipe", "paper", "--set", set_, "--dry-run")
    assert "prepare 15 cases for the coarse model" in result.output


def test_a_stage_alone(cohort):
    result = run(cohort, "-o", cohort / "w", "--stage", "coarse", "--dry-run")
    assert len(result.output.splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "liver"], "coarse, tumor, organ"),
        (["--recipe", "nothing"], "no recipe 'nothing'"),
        (["--recipe", "authors"], "has no [training] table"),
        (["--set", "training.epochs=3"], "training.epochs"),
    ],
)
def test_a_wrong_call_is_refused(cohort, options, message):
    result = run(cohort, "-o", cohort / "w", *options)
    assert isinstance(result.exception, UsageError)
    assert message in result.exception.message


def test_without_nnunet_it_says_what_to_install(cohort, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run(cohort, "-o", cohort / "w", "--recipe", "paper")
    assert isinstance(result.exception, UsageError)
    assert "cfseg[train]" in result.exception.message


def _save(image, path):
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)
