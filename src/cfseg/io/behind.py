"""The last case is written in a thread while the networks run on the next one.

Compressing and waiting on the disk happen outside of the interpreter's lock. At most one piece of
work goes on beside the networks, and pieces are done in the order in which they come. No stop of
the program cuts one off: Python itself waits for the thread.
"""

from collections.abc import Callable
from threading import Thread

Work = Callable[[], None]
"""Must not raise: it keeps what it found, errors too."""


class WriteBehind:
    """Does pieces of work in a thread, one after the other."""

    def __init__(self) -> None:
        self._last: Thread | None = None
        self._held: dict[Thread, int] = {}

    @property
    def held_bytes(self) -> int:
        """What the pieces that are not done may still ask for."""
        self._held = {thread: size for thread, size in self._held.items() if thread.is_alive()}
        return sum(self._held.values())

    def hand_over(self, work: Work, needed_bytes: int = 0) -> None:
        """Begin a piece of work, and wait until it is the only one.

        If this wait is cut short by a signal, the piece is done all the same.

        Args:
            work: see :data:`Work`.
            needed_bytes: what it will ask for beyond what is in memory already.
        """
        before = self._last
        thread = Thread(target=_after, args=(before, work))
        self._held[thread] = needed_bytes
        thread.start()
        self._last = thread
        if before is not None:
            before.join()

    def wait(self) -> None:
        """Wait until all is done."""
        if self._last is not None:
            self._last.join()
            self._last = None
        self._held = {}


def _after(before: Thread | None, work: Work) -> None:
    if before is not None:
        before.join()
    work()
