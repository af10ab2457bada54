"""SIGTERM and SIGINT during training: a flag now, the end after the iteration.

Saving inside a signal handler would meet tensors half updated. The handler only takes note; the
loop looks, writes its checkpoint and leaves.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never

import torch
from torch import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """What was asked for.

    Attributes:
        signal: number of the signal that came; 0 as long as none did.
    """

    def __init__(self) -> None:
        self.signal = 0

    def take_note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Remember the signal; the second SIGINT does not wait for the iteration's end.

        Raises:
            KeyboardInterrupt: at the second SIGINT.
        """
        # In a group Ctrl-C comes twice: from the terminal and from who started it.
        alone = not (distributed.is_available() and distributed.is_initialized())
        if self.signal and number == signal.SIGINT and alone:
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self, device: torch.device) -> int:
        """Return the signal that reached this process or another one of the group.

        All processes of a group leave after the same iteration: one alone would leave the others
        waiting for its gradients.

        Args:
            device: where the group exchanges tensors.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return self.signal
        flag = torch.tensor([self.signal], device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return int(flag.item())


@contextmanager
def noting_signals() -> Iterator[Stop]:
    """Take note of SIGTERM and SIGINT instead of ending at once; main thread only."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.take_note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(number: int) -> Never:
    """End the process as a signal asks for: with 143 (SIGTERM) or 130 (SIGINT).

    Args:
        number: of the signal.

    Raises:
        KeyboardInterrupt: for SIGINT.
        SystemExit: for all others.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
