"""Progress on a terminal: a bar with the total from the start, and one for the step below it."""

from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cfseg.tables import shown

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cfseg.cli.console import Console


FIRST_LINE_SECONDS, LINE_SECONDS = 1.0, 10.0
"""When a log file gets its first line about a search, and how often one after that."""


class Bars:
    """Bars that appear when the work begins, not when it is asked for, and only on a terminal.

    So an error of usage stays one line, and a log file holds plain lines.

    Args:
        console: where they are drawn.
        what: is counted.
    """

    def __init__(self, console: "Console", what: str) -> None:
        self.console, self.what = console, what
        self.progress: Progress | None = None
        self.tasks: list[TaskID] = []
        self.next_line: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def start(self, total: int) -> None:
        """Draw the bar of all there is to do."""
        self._begin(total)
        if self.progress is not None:
            self.progress.update(self.tasks[0], description=self.what, total=total, completed=0)

    def searching(self, files: int) -> None:
        """Say how many files were looked at so far, before it is known what there is to do."""
        if self.console.is_terminal:
            self._begin(None)
            if self.progress is not None:
                self.progress.update(self.tasks[0], description=f"searching: {files} files")
        elif self.next_line is None:
            self.next_line = perf_counter() + FIRST_LINE_SECONDS
        elif perf_counter() > self.next_line:
            self.console.say(f"searching: {files} files looked at")
            self.next_line = perf_counter() + LINE_SECONDS

    def _begin(self, total: int | None) -> None:
        if self.console.quiet or not self.console.is_terminal or self.progress is not None:
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        named = TextColumn("{task.description}", markup=False)
        columns = (named, BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, TimeElapsedColumn(), console=self.console)
        self.tasks = [
            self.progress.add_task(self.what, total=total),
            self.progress.add_task("", total=None, visible=False),
        ]
        self.progress.start()

    def step(self, done: int, total: int) -> None:
        """Say how much of how much is done, where that is known only with the first part."""
        self.start(total)
        self.advance(done)

    def advance(self, done: int) -> None:
        """Say how much of it is done; the bar below goes."""
        if self.progress is not None:
            self.progress.update(self.tasks[0], completed=done)
            self.progress.update(self.tasks[1], visible=False)

    def below(self, name: str, done: int, total: int) -> None:
        """Say how far a step of the current part is."""
        if self.progress is not None:
            self.progress.update(
                self.tasks[1], description=shown(name), completed=done, total=total, visible=True
            )
