"""Stopped at any moment and in any way, the same command goes on, and ends with the same bundle."""

import errno
import signal
from contextlib import ExitStack

import numpy as np
import pytest

import killing
import tiny_cohort
import warm_start
from refusing_disk import refusing

pytestmark = pytest.mark.slow
SHORTER = (
    "training.iterations_per_epoch=2",
    "training.tumor.weights=1",
    "training.save_every_minutes=1e-9",  # a checkpoint after each step
)


disk = ExitStack()


def fill_disk() -> None:
    """Let this process find no room for the last weights of the organ model."""

    def refuses(path):
        return path.parent.name == "organ_1" and "final_" in path.name

    disk.enter_context(refusing(refuses, errno.ENOSPC))


def test_stopped_in_any_way_it_goes_on_and_ends_with_the_same_bundle(tmp_path):
    cohort, work, whole = tiny_cohort.write(tmp_path / "c"), tmp_path / "work", tmp_path / "whole"
    options = ["--recipe", "tiny", "--device", "cpu", "--threads", "1"]
    options += [word for value in SHORTER for word in ("--set", value)]
    assert killing.train([cohort, "-o", whole, *options]) == 0

    words, draw = [cohort, "-o", work, *options], np.random.default_rng(4)
    there = killing.moments(whole) - killing.LAST_MOMENTS
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
    moments = sorted(draw.choice(np.arange(1, there), len(signals), replace=False))
    ends = [
        killing.stopped(words, work, moment, draw.uniform(0, 0.1), number)
        for moment, number in zip(moments, signals, strict=True)
    ]
    assert ends == [-signal.SIGKILL, 143, 130, -signal.SIGKILL]
    full = warm_start.start(["train", *words], tmp_path / "full", fill_disk)
    assert killing.ended(full) == 6
    assert "cfseg: E_DISK: " in (tmp_path / "full").read_text()
    assert killing.train(words) == 0
    killing.assert_same(work, whole)
