"""``cfseg`` in processes of its own that need not load nnU-Net: forked from one that has done so.

Loading it takes longer than training the tiny networks does. What is started is a process as any
other: it can be killed, and nothing but the loaded modules is shared.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["cfseg.cli", "cfseg.training.pipeline", "cfseg.training.train_network"]
)


def start(words: Sequence[str]) -> ForkServerProcess:
    """Start ``cfseg`` with these words; what it prints is lost."""
    process = _CONTEXT.Process(target=_run, args=(["cfseg", *words],))
    process.start()
    return process


def _run(argv: list[str]) -> None:
    import nnunet_pictures
    from cfseg.cli import main

    nnunet_pictures.leave_blank()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)
    sys.argv[:] = argv
    main()
