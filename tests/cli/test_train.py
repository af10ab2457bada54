"""``cfseg train``: what it prints and refuses. That it trains is tested in tests/training."""

import json
import os
import re
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli import app
from cfseg.dataset.check import check
from cfseg.errors import CfsegError, UsageError
from cfseg.labels import ORGAN_IDS


@pytest.fixture
def cohort(tmp_path):
    """Ten cases without tumor, five with, five unlabelled, all of a few voxels."""
    manifest = {f"full_{i}": list(ORGAN_IDS) for i in range(10)}
    manifest |= {f"tumor_{i}": [*ORGAN_IDS, 14] for i in range(5)}
    manifest |= {f"bare_{i}": [] for i in range(5)}
    for number, (name, annotated) in enumerate(manifest.items()):
        _save(np.full(64, number, np.int16), tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
        if annotated:
            ids = np.zeros(64, np.uint8)
            ids[: len(annotated)] = annotated
            _save(ids, tmp_path / "labelsTr" / f"{name}.nii.gz")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.fixture(autouse=True)
def known_speed(monkeypatch):
    """To measure the machine takes longer than all the rest."""
    monkeypatch.setattr("cfseg.training.outlook.sgemm_gflops", lambda **_: 100.0)


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_dry_run_prints_the_steps_and_writes_nothing(cohort):
    result = run(cohort, "-o", cohort / "work", "--recipe", "paper", "--dry-run")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [re.split(", at most|, patch", line)[0] for line in lines[:-1]] == [
        "coarse_data: prepare 10 of 20 cases for the coarse model",
        "coarse_1: train the coarse model",
        "pseudo_labels: pseudo-label 10 cases",
        "tumor_data: prepare 5 of 20 cases for the tumor model",
        "tumor_1: train the tumor model, weight 1 of 2",
        "tumor_2: train the tumor model, weight 2 of 2",
        "teacher_1_data: prepare 15 of 20 cases for the teacher, round 1",
        "teacher_1: train the teacher, round 1",
        "teacher_1_labels: pseudo-label 10 cases with the teacher, round 1",
        "teacher_2_data: prepare 20 cases for the teacher, round 2",
        "teacher_2: train the teacher, round 2",
        "teacher_2_labels: pseudo-label 10 cases with the teacher, round 2",
        "organ_data: prepare 20 cases for the organ model",
        "organ_1: train the organ model",
        "bundle: write the bundle",
    ]
    assert "on disk" in lines[0]
    assert lines[-1].startswith("training the networks takes at least ")
    assert not (cohort / "work").exists()


def test_a_dry_run_says_of_the_cases_what_check_says(cohort):
    _save(np.zeros(64, np.uint8), cohort / "labelsTr/full_0.nii.gz")
    _save(np.full(64, 2, np.int16), cohort / "imagesTr/full_3_0000.nii.gz")
    call = [cohort, "-o", cohort / "work", "--recipe", "paper", "--dry-run"]
    refused = run(*call)
    assert (refused.exception.code, refused.exception.exit_code) == ("E_BAD_CASES", 4)
    (problem,), (warning,) = check(cohort).problems, check(cohort).warnings
    assert f"  {problem.line}" in refused.exception.details
    assert warning.line in refused.output
    left = run(*call, "--skip-bad")
    assert f"left out: {problem.line}" in left.output
    assert warning.code == "duplicate_scan"
    assert "coarse_data: prepare 9 of 19 cases for the coarse model" in left.output
    assert not (cohort / "work").exists()


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--skip-bad"]])
def test_nothing_found_is_exit_code_4_and_nothing_there_2(tmp_path, options):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, code in (("empty", 4), ("none", 2), ("file", 2)):
        result = run(tmp_path / name, "-o", tmp_path / "w", "--recipe", "paper", *options)
        assert result.exception.exit_code == code
    result = run(tmp_path / "empty", "-o", tmp_path / "file", *options)
    assert "cannot be a folder" in result.exception.message


def test_set_overrides_the_recipe(cohort):
    set_ = "training.coarse_cases=all_organs"
    result = run(cohort, "-o", cohort / "w", "--recipe", "paper", "--set", set_, "--dry-run")
    assert "prepare 15 of 20 cases for the coarse model" in result.output


def test_a_stage_alone(cohort):
    result = run(cohort, "-o", cohort / "w", "--stage", "coarse", "--dry-run")
    steps = [line.partition(":")[0] for line in result.output.splitlines()[:-1]]
    assert steps == ["coarse_data", "coarse_1"]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "3", "--device", "cpu"], "a batch of 2 cannot be shared evenly"),
        (["--init", "nowhere"], "there is no folder nowhere"),
        (["--organ-labels", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_done(cohort, options, message):
    result = run(cohort, "-o", cohort / "w", "--recipe", "paper", *options)
    assert isinstance(result.exception, CfsegError)
    assert message in result.exception.message
    assert not (cohort / "w").exists()


@pytest.mark.parametrize("folder", ["nnUNet_raw", "nnUNet_preprocessed"])
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_workspace_of_the_old_engine_is_refused(cohort, folder, options):
    (cohort / "w" / folder).mkdir(parents=True)
    result = run(cohort, "-o", cohort / "w", "--recipe", "paper", *options)
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2
    assert f"{cohort / 'w'}: this workspace is of cfseg 0.1.0" in result.exception.message
    assert [path.name for path in (cohort / "w").iterdir()] == [folder]


def test_a_precision_that_the_cpu_lacks_is_refused_before_anything_is_done(cohort, monkeypatch):
    monkeypatch.setattr("cfseg.learning.precision.can_bf16", lambda: False)
    options = ["--recipe", "paper", "--device", "cpu", "--set", "training.cpu_precision=bf16"]
    result = run(cohort, "-o", cohort / "w", *options)
    assert isinstance(result.exception, UsageError)
    assert "no instructions for bf16" in result.exception.message
    assert not (cohort / "w").exists()


def test_a_selection_set_and_other_organ_labels_change_the_steps(cohort):
    entries = {
        name: {
            "image": f"imagesTr/{name}_0000.nii.gz",
            "label": f"labelsTr/{name}.nii.gz",
            "annotated": [*ORGAN_IDS, 14],
        }
        for name in ("tumor_0", "tumor_1")
    }
    chosen = cohort / "chosen.json"
    chosen.write_text(json.dumps(entries))
    options = ["--recipe", "paper", "--organ-labels", "coarse", "--selection-set"]
    lines = run(cohort, "-o", cohort / "w", *options, chosen, "--dry-run").output.splitlines()
    assert not any("teacher" in line for line in lines)
    assert lines[-3] == "selection: rank the kept weights on 2 cases"
    refused = run(cohort, "-o", cohort / "w", *options, cohort, "--dry-run").exception
    assert isinstance(refused, UsageError)
    assert "bare_0 is not fully labelled" in refused.message


def test_organ_labels_of_the_tumor_model_are_a_step_of_their_own(cohort):
    lines = run(cohort, "-o", cohort / "w", "--organ-labels", "tumor", "--dry-run").output
    labels, data = lines.splitlines()[6:8]
    assert labels == "tumor_labels: pseudo-label 10 cases with the tumor model"
    assert data.startswith("organ_data: prepare 20 cases for the organ model")


def test_organ_labels_of_another_method_are_the_recipes_key(cohort, tmp_path, monkeypatch):
    from cfseg.cli.train import _given

    monkeypatch.chdir(tmp_path)
    assert _given(None) == []
    assert _given("teacher") == ["training.organ_labels=teacher"]
    assert _given("tumor") == ["training.organ_labels=tumor"]
    assert _given("labelsTr") == [f"training.organ_labels={tmp_path / 'labelsTr'}"]


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    from cfseg.cli.train import _Log

    with _Log(tmp_path / "w" / "train.log") as log:
        log("one line")
        log.progress("coarse_1", 1, 2)
    shown = capsys.readouterr().err
    assert shown.endswith(" one line\n")
    assert (tmp_path / "w" / "train.log").read_text() == shown


def test_a_bar_with_the_time_left_on_a_terminal(tmp_path, capsys, monkeypatch):
    from cfseg.cli.train import _Log

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with _Log(tmp_path / "train.log") as log:
        log.progress("coarse_1", 1, 4)
        log.progress("coarse_1", 4, 4)
        log.progress("tumor_1", 1, 4)
        log("a line")
        found = {task.description: task for task in log.bar.tasks}
    assert not found["coarse_1"].visible
    assert (found["tumor_1"].completed, found["tumor_1"].total) == (1, 4)
    assert "a line" in capsys.readouterr().err


# A shell starts background jobs, and so perhaps these tests, with SIGINT ignored.
STUCK = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from cfseg import cli
from cfseg.training import pipeline

def stuck(self, stage):
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    time.sleep(60)

pipeline.Pipeline.run = stuck
sys.argv = ["cfseg", "train", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_any_step_with_its_code_and_without_a_traceback(cohort, number, code):
    command = [sys.executable, "-c", STUCK, str(cohort), "-o", str(cohort / "w")]
    with subprocess.Popen(
        [*command, "--recipe", "paper"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "cfseg: stopped; what is finished is kept" in errors


def _save(values, path):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values.reshape(4, 4, 4), np.eye(4)), path)
