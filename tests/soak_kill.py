"""``kill -9`` in ten random moments of the tiny recipe: in the end the bundle is the same.

Run by ``make soak``: ``python -m tests.soak_kill --seed 1``. Minutes.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # what the tests share lies beside this file

import killing

LATEST_SECONDS = 0.3
"""A kill comes at most so long after the moment that was drawn for it."""


def soak(folder: Path, kills: int, seed: int) -> None:
    """Train once undisturbed and once killed, and compare.

    Args:
        folder: for all of it.
        kills: how often.
        seed: of the moments.

    Raises:
        AssertionError: something differs.
    """
    cohort, whole, work = folder / "c", folder / "whole", folder / "work"
    made = ["phantom", str(cohort), "--cases", "8", "--seed", "3", "--groups"]
    subprocess.run([sys.executable, "-m", "cfseg", *made], check=True, stdout=subprocess.DEVNULL)
    options = ["--recipe", "tiny", "--device", "cpu", "--threads", "1"]
    assert killing.train([cohort, "-o", whole, *options]) == 0
    draw, there = np.random.default_rng(seed), killing.moments(whole) - killing.LAST_MOMENTS
    for moment in sorted(draw.choice(np.arange(there), kills, replace=False)):
        words = [cohort, "-o", work, *options]
        end = killing.stopped(words, work, moment, draw.uniform(0, LATEST_SECONDS))
        _say(f"killed after moment {moment} of {there}")
        assert end == -SIGKILL
    assert killing.train([cohort, "-o", work, *options]) == 0
    killing.assert_same(work, whole)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args(arguments)
    _say(f"seed {given.seed}")
    with TemporaryDirectory() as folder:
        soak(Path(folder), given.kills, given.seed)
    _say(f"{given.kills} kills, and the bundle is the same")


if __name__ == "__main__":
    main()
