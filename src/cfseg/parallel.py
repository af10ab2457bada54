"""The same work on many items in several processes; what is lost with one of them is said.

Each process imports what it needs anew, which takes a second or more, so it pays only for work of
many seconds. Where a process dies (out of memory, killed) nothing waits for it.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from typing import TypeVar

from cfseg.errors import ResourceError

SPINS = 10_000
"""How often a waiting thread of torch looks for work before it sleeps: a fraction of a millisecond.

Left alone it looks 300 000 times, and holds a core by then that OpenVINO's threads need: networks
take 15 to 20 % longer. With 0 it sleeps at once, and what comes between the networks takes a fifth
longer. Seen with libgomp on two cores; ``GOMP_SPINCOUNT=0 cfseg benchmark SCAN --steps`` shows it.
"""
_SPINCOUNT = "GOMP_SPINCOUNT"
_T = TypeVar("_T")
_R = TypeVar("_R")
AHEAD = 2
"""Items per process that are handed out before the results of others are there."""


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the waiting threads of torch spin :data:`SPINS` times, unless the user says how.

    Args:
        environment: of a process that loads torch later; libgomp reads it then.
    """
    if not {"OMP_WAIT_POLICY", _SPINCOUNT} & environment.keys():
        environment[_SPINCOUNT] = str(SPINS)


def without_spins() -> dict[str, str]:
    """Return this process's environment as :func:`spin_briefly` found it, for other programs."""
    ours = {_SPINCOUNT: str(SPINS)}
    return {name: value for name, value in os.environ.items() if ours.get(name) != value}


def in_processes(function: Callable[[_T], _R], items: Sequence[_T], jobs: int) -> Iterator[_R]:
    """Yield the function of each item as they are done, in any order.

    Args:
        function: of one item; a module's own, because other processes have to find it.
        items: all of them.
        jobs: processes; 1 works in this one.

    Raises:
        ResourceError: a process died; what was done before stays.
    """
    jobs = min(jobs, len(items))
    if jobs <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locked locks of threads
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start)
    try:
        yield from _handed_out(pool, function, items, jobs * AHEAD)
    except BrokenProcessPool as error:
        raise ResourceError(
            "a worker process died, perhaps for lack of memory; what is finished is kept: run it "
            "again with fewer --jobs",
            code="E_WORKER",
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _handed_out(
    pool: ProcessPoolExecutor, function: Callable[[_T], _R], items: Sequence[_T], ahead: int
) -> Iterator[_R]:
    """Yield results while no more than ``ahead`` items are under way."""
    left = iter(items)
    running: set[Future[_R]] = set()
    for item in left:
        running.add(pool.submit(function, item))
        if len(running) < ahead:
            continue
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def _start() -> None:
    """Leave Ctrl-C to the process that started this one, and its core to this one alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _end_with_parent() -> None:
    """Leave no process behind that waits for work of one that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def is_launched() -> bool:
    """Say whether torchrun, or what sets the same variables, started this process with others."""
    names = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and all(name in os.environ for name in names)
