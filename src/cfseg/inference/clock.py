"""What took how long."""

from contextlib import AbstractContextManager
from time import perf_counter
from types import TracebackType


class Clock(AbstractContextManager[None]):
    """Adds the time inside the block to ``seconds[name]``."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        spent = perf_counter() - self.start
        self.seconds[self.name] = round(self.seconds.get(self.name, 0.0) + spent, 4)
