"""``cfseg`` in processes of its own that need not load torch: forked from one that has done so.

Loading it takes longer than training the tiny networks does. What is started is a process as any
other: it can be killed, and nothing but the loaded modules is shared.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
# Optimizers load the last one.
_CONTEXT.set_forkserver_preload(["cfseg.cli", "cfseg.training.pipeline", "torch._dynamo"])


def start(
    words: Sequence[object], log: Path | None = None, before: Callable[[], None] | None = None
) -> ForkServerProcess:
    """Start ``cfseg`` with these words.

    Args:
        words: of the command line.
        log: gets what it prints; None loses it.
        before: is called in the process first; a function of a module.
    """
    argv = ["cfseg", *map(str, words)]
    process = _CONTEXT.Process(target=_run, args=(argv, str(log or os.devnull), before))
    process.start()
    return process


def _run(argv: list[str], log: str, before: Callable[[], None] | None) -> None:
    from cfseg.cli import main

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(handle, output)
    sys.argv[:] = argv
    # A shell starts background jobs, and so perhaps these tests, with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    main()
