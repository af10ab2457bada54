"""Several processes on this machine, by torchrun's own launcher."""

import logging
import sys
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cfseg.errors import UsageError
from cfseg.learning.stopping import leave

GRACE_SECONDS = 120
"""How long the processes may take to write a checkpoint and leave."""


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


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run cfseg in several processes that share each batch, as ``torchrun -m cfseg`` does.

    Args:
        processes: how many.
        arguments: of each.

    Raises:
        SystemExit: with the exit code of the process that failed first; or with 143, SIGTERM came
            and all have saved their state.
        KeyboardInterrupt: the same for SIGINT.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="cfseg", max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", monitor_interval=0.2,
        shutdown_timeout=GRACE_SECONDS,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "cfseg", *arguments)
    except SignalException as asked:
        leave(int(asked.sigval))
    except ChildFailedError as failed:
        first = min(failed.failures.values(), key=lambda failure: failure.timestamp)
        raise SystemExit(_exit_code(first.exitcode)) from None


def _exit_code(code: int) -> int:
    """Return what a shell would say of a process; a signal ends it with a negative code."""
    return 128 - code if code < 0 else code
