"""Several processes for one network, each with its share of every batch.

``cfseg train --gpus N`` starts N processes of this module and hears from the first one. They find
each other by the variables that torchrun sets, so that torchrun (or srun) may start them as well,
on several machines too: ``torchrun ... -m cfseg.training.distributed WORK/jobs/tumor_1.json``.
NCCL on GPUs, gloo on CPUs.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Never

import torch

from cfseg.errors import CfsegError, UsageError
from cfseg.io import write_json
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.group import group_of
from cfseg.training.process_group import LAUNCHED, run_group
from cfseg.training.steps import Progress
from cfseg.training.workspace import StageFolder


def train_in_processes(
    folder: StageFolder,
    weight: int,
    training: Training,
    stage: StageTraining,
    device: torch.device,
    report: Callable[[str], None],
    *,
    init: Path | None,
    processes: int,
    progress: Progress | None,
) -> None:
    """Train one network in several processes; see :mod:`cfseg.training.train_network`.

    Raises:
        UsageError: the batch or the GPUs cannot be shared so.
        ResourceError: a process died.
    """
    check_processes(training.batch_size, processes, device)
    job = folder.work / "jobs" / f"{folder.name}_{weight}.json"
    values = {
        "folder": asdict(folder) | {"work": str(folder.work)},
        "weight": weight,
        "training": training.model_dump(mode="json"),
        "stage": stage.model_dump(mode="json", include=set(StageTraining.model_fields)),
        "init": None if init is None else str(init.resolve()),
        "device": device.type,
    }
    write_json(job, values)

    def hear(line: str) -> None:
        message = _message(line)
        if "line" in message:
            report(message["line"])
        elif "done" in message and progress is not None:
            progress(message["name"], message["done"], message["total"])
        elif "error" in message:
            error = CfsegError(message["error"], code=message["code"])
            error.exit_code = message["exit_code"]
            raise error

    command = [sys.executable, "-m", "cfseg.training.distributed", str(job)]
    run_group(command, processes, hear)


def check_processes(batch_size: int, processes: int, device: torch.device) -> None:
    """Check that so many processes can share a batch and have a GPU each.

    Raises:
        UsageError: they cannot.
    """
    if batch_size % processes:
        raise UsageError(
            f"--gpus {processes}: a batch of {batch_size} cannot be shared evenly; set "
            f"training.batch_size to a multiple of {processes}, or another number of GPUs"
        )
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise UsageError(
            f"--gpus {processes}: {torch.cuda.device_count()} CUDA devices are here; give no more"
        )


def _message(line: str) -> dict[str, Any]:
    """Return what a process said; a line of another origin says nothing."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


# -- in each process ---------------------------------------------------------------------------


def run_and_end(part: Callable[[], None]) -> Never:
    """Do the part of a process of a group, then end it at once, with what it holds.

    A network that the end of Python frees after its group waits for gloo's thread, which may wait
    for Python in turn: such a process never ends.

    Args:
        part: what to do; how it ends is how the process ends.
    """
    code = 1
    try:
        part()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(job: Path) -> None:
    """Do the part of one process: train a network together with the others.

    Args:
        job: file that :func:`train_in_processes` wrote.
    """
    from cfseg.training.train_network import train_network

    values = json.loads(job.read_text(encoding="utf-8"))
    if LAUNCHED in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    is_first = os.environ.get("RANK", "0") == "0"
    say = Voice(is_first)
    # nnU-Net prints; what is not ours does not belong between our lines.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            with group_of(values["device"]) as device:
                train_network(
                    StageFolder(**values["folder"] | {"work": Path(values["folder"]["work"])}),
                    values["weight"],
                    Training.model_validate(values["training"]),
                    StageTraining.model_validate(values["stage"]),
                    device,
                    say.line,
                    init=None if values["init"] is None else Path(values["init"]),
                    progress=say.progress,
                )
        except CfsegError as error:
            say(error=error.message, code=error.code, exit_code=error.exit_code)
            raise SystemExit(error.exit_code) from None


class Voice:
    """How the first process tells its parent what it does: lines of JSON.

    Args:
        is_first: the others are silent.
    """

    def __init__(self, is_first: bool) -> None:
        self.out = sys.stdout if is_first else None

    def __call__(self, **values: str | int) -> None:
        """Say something."""
        if self.out is not None:
            self.out.write(json.dumps(values) + "\n")
            self.out.flush()

    def line(self, text: str) -> None:
        """Say a line."""
        self(line=text)

    def progress(self, name: str, done: int, total: int) -> None:
        """Say how many iterations are done."""
        self(name=name, done=done, total=total)


def _end_with_parent() -> None:
    """Ask this process to end when its standard input ends: whoever started it is gone."""
    # Not through sys.stdin: its lock, held by this thread, would disturb the end of Python.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # nnU-Net's libraries warn at every turn
    run_and_end(partial(main, Path(sys.argv[1])))
