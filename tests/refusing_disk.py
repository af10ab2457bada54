"""A disk that refuses, for tests that run as root: whatever is written in a folder is an error."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITES = {"os.mkdir": 0, "os.rename": 0, "os.remove": 0}
_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


class _Refusal:
    """What is refused; Python keeps an audit hook for good, so there is one that asks this."""

    refuses: Callable[[Path], bool] | None = None
    number = errno.EROFS
    hooked = False


def _hook(event: str, args: tuple) -> None:
    if _Refusal.refuses is None:
        return
    if event == "open":
        path, _, flags = args
        writes = isinstance(flags, int) and bool(flags & _FLAGS)
    else:
        path, writes = (args[0], event in _WRITES) if args else (None, False)
    if writes and isinstance(path, str | bytes | os.PathLike):
        named = Path(os.fsdecode(path))
        if _Refusal.refuses(named):
            raise OSError(_Refusal.number, os.strerror(_Refusal.number), str(named))


@contextmanager
def refusing(where: Path | Callable[[Path], bool], number: int = errno.EROFS) -> Iterator[None]:
    """Refuse to write inside the block.

    Args:
        where: a folder, or what says of a path whether it is refused.
        number: of the error.
    """
    if not _Refusal.hooked:
        sys.addaudithook(_hook)
        _Refusal.hooked = True
    refuses = where if callable(where) else lambda path: path.absolute().is_relative_to(where)
    _Refusal.refuses, _Refusal.number = refuses, number
    try:
        yield
    finally:
        _Refusal.refuses = None
