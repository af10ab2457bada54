"""A group of processes on this machine: started, heard, told to stop, and ended together."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic

import torch

from cfseg.errors import ResourceError
from cfseg.training.stopping import Stop, leave, noting_signals

LAUNCHED = "CFSEG_LAUNCHED"
"""Set where cfseg started the process: it ends when its standard input does."""
GRACE_SECONDS = 120.0
"""How long the processes of a group may take to write a checkpoint and leave."""
ASKED = {
    128 + signal.SIGTERM: signal.SIGTERM,
    128 + signal.SIGINT: signal.SIGINT,
    -signal.SIGTERM: signal.SIGTERM,
    -signal.SIGINT: signal.SIGINT,
}
"""Exit codes of a process that was asked to end, and by which signal."""


def run_group(command: Sequence[str], processes: int, hear: Callable[[str], None]) -> None:
    """Run a command in several processes that find each other as torchrun's do.

    SIGTERM and SIGINT go on to all of them, and this process ends as the signal asks for when
    they have ended. Where one dies, the others are ended.

    Args:
        command: of each process.
        processes: how many.
        hear: gets each line that the first process prints.

    Raises:
        ResourceError: a process died.
    """
    with noting_signals() as stop:
        group = [_started(command, rank, environment) for rank, environment in _places(processes)]
        try:
            codes = _watched(group, stop, hear)
        finally:
            for process in group:
                process.kill()
                with process:  # closes its pipes and waits for it
                    pass
    if stop.signal:
        leave(stop.signal)
    died = [code for code in codes if code and code not in ASKED]
    if died:
        raise ResourceError(
            f"a training process ended with {died[0]}; what it wrote above tells why; run it "
            "again to go on from the last checkpoint"
        )
    if any(codes):
        leave(ASKED[next(code for code in codes if code)])


def _places(processes: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Return the variables by which each process finds the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, torch.get_num_threads() // processes)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": str(threads),
        LAUNCHED: "1",
    }
    for rank in range(processes):
        yield rank, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _started(
    command: Sequence[str], rank: int, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own command
        command,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C comes from us alone, not twice
        text=True,
    )


def _watched(
    group: Sequence[subprocess.Popen[str]], stop: Stop, hear: Callable[[str], None]
) -> list[int]:
    """Return the exit codes; signals are passed on, and the end of one process to the others."""
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(group[0], lines), daemon=True)
    reader.start()
    told, until = 0, float("inf")
    while any(process.poll() is None for process in group) or reader.is_alive():
        with contextlib.suppress(queue.Empty):
            hear(lines.get(timeout=0.1))
        failed = any(process.poll() for process in group)
        wanted = stop.signal or (signal.SIGTERM if failed else 0)
        if wanted and not told:
            told, until = wanted, monotonic() + GRACE_SECONDS
            for process in group:
                process.send_signal(wanted)
        if monotonic() > until:
            break
    while not lines.empty():
        hear(lines.get())
    return [process.poll() or 0 for process in group]


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    if process.stdout is not None:
        for line in process.stdout:
            lines.put(line)
