"""Many tasks on several processes; a process that is killed costs its own task alone.

The pools of Python's library lose what is finished, or wait forever, when a worker is killed. Here
each worker has a pipe of its own and one task at a time: a result that arrived is safe, and a
worker that ends before its result did is noticed by the end of its pipe and replaced.
"""

import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Lost:
    """In place of a result: the process that should have made it ended before it did.

    Attributes:
        exit_code: of the process; a negative one is the signal that killed it.
    """

    exit_code: int | None


def results(
    function: Callable[[_Task], _Result], tasks: Sequence[_Task], jobs: int
) -> Generator[tuple[int, _Result | Lost], None, None]:
    """Yield the place of each task and its result, as they come; close it to stop early.

    Args:
        function: of a module, or a ``partial`` of one; what it raises is lost with its process.
        tasks: small, they go through a pipe, as the results do.
        jobs: processes at a time; 1: no process is made, all is done here and in order.
    """
    if jobs == 1:
        for index, task in enumerate(tasks):
            yield index, function(task)
        return
    waiting = deque(enumerate(tasks))
    busy: dict[Connection, _Worker[_Task, _Result]] = {}
    try:
        while waiting and len(busy) < jobs:
            worker = _Worker(function, *waiting.popleft())
            busy[worker.connection] = worker
        while busy:
            there = wait(list(busy))
            for worker in [busy.pop(pipe) for pipe in list(busy) if pipe in there]:
                index, result = worker.index, worker.result()
                if waiting:
                    worker = worker.then(*waiting.popleft())
                    busy[worker.connection] = worker
                else:
                    worker.end()
                yield index, result
    finally:
        for worker in busy.values():
            worker.end()


class _Worker(Generic[_Task, _Result]):
    """A process with one task."""

    def __init__(self, function: Callable[[_Task], _Result], index: int, task: _Task) -> None:
        # A fresh Python: a fork would inherit the pipes of the others and hide their ends.
        context = get_context("spawn")
        self.function = function
        self.index = index
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self._give(task)

    def result(self) -> _Result | Lost:
        """Return the result of the task, which is there or never will be."""
        try:
            received: _Result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return Lost(self.process.exitcode)
        return received

    def then(self, index: int, task: _Task) -> "_Worker[_Task, _Result]":
        """Take the next task, or let a new process take it if this one has ended."""
        if self.process.exitcode is not None:
            self.end()
            return _Worker(self.function, index, task)
        self.index = index
        self._give(task)
        return self

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self.connection.close()
        self.process.terminate()
        self.process.join()

    def _give(self, task: _Task) -> None:
        try:
            self.connection.send(task)
        except OSError:  # it has ended already, which its result will say
            return


def _serve(function: Callable[[_Task], _Result], connection: Connection) -> None:
    """Answer tasks with results until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends this one
    while True:
        try:
            task: _Task = connection.recv()
        except EOFError:
            return
        connection.send(function(task))
