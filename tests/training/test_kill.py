"""``kill -9`` at random moments: the same command goes on, and no finished step is done again."""

import re
import signal
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import tiny_cohort
import warm_start

from cfseg.dataset.cases import read_cases
from cfseg.evaluation.metrics import dice
from cfseg.io import read_label_map, read_scan
from cfseg.segmenter import Segmenter

pytest.importorskip("nnunetv2")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

CHANGING = ("train.log", "tensorboard", "training_log", ".lock")
"""Names of what holds times or is written by every attempt anew."""
KILLS = 5


def start(cohort: Path, work: Path) -> BaseProcess:
    words = ("train", cohort, "-o", work, "--recipe", "tiny", "--threads", "1")
    return warm_start.start([str(word) for word in words])


def ended(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def files(work: Path) -> set[str]:
    found = {str(p.relative_to(work)) for p in work.rglob("*") if p.is_file()}
    return {name for name in found if not any(part in name for part in CHANGING)}


def finished_steps(work: Path) -> Counter[str]:
    log = (work / "train.log").read_text(encoding="utf-8")
    return Counter(re.findall(r"\[(\d+)/\d+\] took", log))


def progress(work: Path) -> int:
    """How many epochs and steps the log tells of."""
    log = work / "train.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return sum(" took " in line or " epoch " in line for line in lines)


def mean_dsc(cohort: Path, work: Path) -> float:
    segmenter = Segmenter(work / "bundle", device="cpu", threads=1)
    case = next(c for c in read_cases(cohort) if c.name == "full_a")
    found = segmenter.segment(case.image).label_map.ids
    truth = read_label_map(case.label)[0].ids
    return sum(dice(found == i, truth == i) for i in range(1, 14)) / 13


def test_killed_at_any_moment_it_goes_on(tmp_path):
    cohort = tiny_cohort.write(tmp_path / "cohort")
    assert read_scan(cohort / "imagesTr" / "full_a_0000.nii.gz").volume.hu.size
    assert ended(start(cohort, tmp_path / "whole")) == 0

    draw = np.random.default_rng(4)
    moments = draw.choice(np.arange(1, progress(tmp_path / "whole")), KILLS, replace=False)
    for moment in sorted(moments):
        process = start(cohort, tmp_path / "killed")
        while progress(tmp_path / "killed") < moment and process.is_alive():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        assert process.is_alive(), "it ended before it could be killed"
        process.kill()
        assert ended(process) == -signal.SIGKILL
    assert ended(start(cohort, tmp_path / "killed")) == 0

    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert finished_steps(tmp_path / "killed") == finished_steps(tmp_path / "whole")
    assert set(finished_steps(tmp_path / "killed").values()) == {1}
    ours, theirs = (mean_dsc(cohort, tmp_path / name) for name in ("killed", "whole"))
    assert ours == pytest.approx(theirs, abs=0.05)
