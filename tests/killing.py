"""A training that is stopped again and again, and what comes of it in the end.

Moments are counted in what is seen of the training from outside, so that a slow machine is stopped
where a fast one is.
"""

import hashlib
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import warm_start

CHANGING = ("train.log", "tensorboard", ".lock")
"""Names of what every attempt adds to."""
LAST_MOMENTS = 3
"""After them the training may end before it is stopped."""


def train(words: Sequence[object], log: Path | None = None) -> int | None:
    """Train undisturbed, and return the exit code."""
    return ended(warm_start.start(["train", *words], log))


def stopped(
    words: Sequence[object],
    work: Path,
    moment: int,
    delay_seconds: float,
    number: signal.Signals = signal.SIGKILL,
) -> int | None:
    """Train until a moment, send a signal a little later, and return the exit code."""
    process = warm_start.start(["train", *words])
    while process.is_alive() and moments(work) < moment:
        time.sleep(0.005)
    time.sleep(delay_seconds)
    assert process.is_alive(), f"it ended with {ended(process)} before it could be stopped"
    assert process.pid is not None
    os.kill(process.pid, number)
    return ended(process)


def ended(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def moments(work: Path) -> int:
    """How many epochs, steps and stored cases there are to be seen."""
    log = work / "train.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    cases = sum(1 for pattern in ("cases/*/*.b2nd", "*labels*/*") for _ in work.glob(pattern))
    return cases + sum(" took " in line or " epoch " in line for line in lines)


def outcome(work: Path) -> dict[str, Any]:
    """Digests of all weights of the bundle, and its manifest without the seconds that it took."""
    bundle = work / "bundle"
    found: dict[str, Any] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in bundle.glob("*.safetensors")
    }
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    del manifest["provenance"]["seconds"]
    return found | {"bundle.json": manifest}


def files(work: Path) -> set[str]:
    """Names of all files but those that every attempt adds to."""
    found = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    return {name for name in found if not any(part in name for part in CHANGING)}


def finished_steps(work: Path) -> Counter[str]:
    log = (work / "train.log").read_text(encoding="utf-8")
    return Counter(re.findall(r"\[(\d+)/\d+\] took", log))


def assert_same(work: Path, whole: Path) -> None:
    """Check that one training came to the same end as another, and did no step twice."""
    assert outcome(work) == outcome(whole)
    assert files(work) == files(whole), files(work) ^ files(whole)
    assert max(finished_steps(work).values()) == 1, finished_steps(work)
