"""Which weights stay. No network is trained here."""

import json
import subprocess
import sys

import pytest
import torch

from cfseg.training.keep import (
    is_best,
    keep_best,
    kept_checkpoints,
    last_good,
    save,
    tidy,
)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "fold_0").mkdir()
    return tmp_path


def best(model, epoch, score):
    """Write the best checkpoint so far, as the trainer does."""
    contents = {
        "network_weights": {"w": torch.full((2,), float(epoch))},
        "optimizer_state": {"state": {}},
        "current_epoch": epoch,
        "init_args": {"configuration": "3d_fullres"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
        "cfseg": {"losses": [], "score": score},
    }
    save(contents, model / "fold_0" / "checkpoint_best.pth")


def test_the_best_is_judged_by_a_moving_average():
    assert is_best([0.5])
    assert is_best([0.5, 0.6])
    assert not is_best([0.5, 0.4])
    assert not is_best([0.9, 0.1, 0.89])  # the average, 0.827, is below 0.9
    assert is_best([0.5, float("nan"), 0.6])
    assert is_best([float("nan")])


def test_the_best_scores_stay_best_first(model):
    for epoch, score in ((50, 0.3), (90, 0.5), (140, 0.4), (200, 0.6)):
        best(model, epoch, score)
        keep_best(model, at_most=3)
    assert [(k.epoch, k.score) for k in kept_checkpoints(model)] == [
        (200, 0.6), (90, 0.5), (140, 0.4),
    ]  # fmt: skip
    files = sorted(p.name for p in (model / "fold_0" / "kept").iterdir())
    assert files == [
        "checkpoint_epoch_0090.pth",
        "checkpoint_epoch_0140.pth",
        "checkpoint_epoch_0200.pth",
        "kept.json",
    ]
    assert kept_checkpoints(model)[0].checkpoint == "kept/checkpoint_epoch_0200.pth"


def test_the_same_best_is_kept_once(model):
    best(model, 7, 0.3)
    assert keep_best(model, at_most=5).epoch == 7
    before = (model / "fold_0" / "kept" / "checkpoint_epoch_0007.pth").stat().st_mtime_ns
    assert keep_best(model, at_most=5) is None
    assert (model / "fold_0" / "kept" / "checkpoint_epoch_0007.pth").stat().st_mtime_ns == before


def test_a_score_of_nothing_comes_last_and_stays_json(model):
    for epoch, score in ((1, float("nan")), (2, 0.1)):
        best(model, epoch, score)
        keep_best(model, at_most=5)
    assert [k.epoch for k in kept_checkpoints(model)] == [2, 1]
    text = (model / "fold_0" / "kept" / "kept.json").read_text()
    assert json.loads(text)[1]["score"] is None


def test_nothing_was_kept(model):
    assert kept_checkpoints(model) == []
    assert keep_best(model, at_most=5) is None


def test_a_save_broken_off_leaves_what_was_there(tmp_path, monkeypatch):
    latest, previous = tmp_path / "checkpoint_latest.pth", tmp_path / "checkpoint_previous.pth"
    for number in (1, 2):
        save({"number": number}, latest, previous)

    def broken(values, file):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", broken)
        with pytest.raises(KeyboardInterrupt):
            save({"number": 3}, latest, previous)
    assert last_good(tmp_path) == ({"number": 2}, "")
    latest.write_bytes(b"torn")
    contents, note = last_good(tmp_path)
    assert contents == {"number": 1}
    assert "checkpoint_latest.pth cannot be read" in note
    tidy(tmp_path, finished=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [latest.name, previous.name]
    tidy(tmp_path, finished=True)
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from cfseg.errors import ResourceError
from cfseg.training.keep import save

folder = Path(sys.argv[1])
latest, previous = folder / "checkpoint_latest.pth", folder / "checkpoint_previous.pth"
for number in (1, 2):
    save({"number": number}, latest, previous)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save({"number": 3, "weights": torch.zeros(100_000)}, latest, previous)
except ResourceError as error:
    print(error.exit_code, error.code, "free some space" in error.message)
"""


@pytest.mark.slow
def test_t06_a_disk_without_space_leaves_the_checkpoints_as_they_were(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["6", "E_DISK", "True"], done.stderr
    assert last_good(tmp_path) == ({"number": 2}, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint_latest.pth", "checkpoint_previous.pth",
    ]  # fmt: skip
