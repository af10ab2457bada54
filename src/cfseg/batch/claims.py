"""Several runs on one output folder: a case belongs to the run that holds its lock.

The system takes a lock back when its process ends, however that happens, so none is ever stale.
Locks reach as far as the file system takes them: over NFS to other machines.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from cfseg.io import writing

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
"""Errors of a file system that has no locks."""


@contextmanager
def claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a case inside the block; give whether it could be had.

    Where the system or the file system has no locks, every case can be had: outputs still appear
    whole, but two runs may do the same one.

    Args:
        path: of the lock; it is gone afterwards.
        wait: for the run that holds it, instead of giving False.

    Raises:
        ResourceError: ``E_DISK``, its folder cannot be written.
    """
    try:
        handle = _lock(path, wait)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        if handle is not None:
            with handle, suppress(OSError):  # what is left is no lock: nobody holds it
                path.unlink(missing_ok=True)


def _lock(path: Path, wait: bool) -> TextIOWrapper | None:
    """Return the locked file, or None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        with writing(path):
            handle = path.open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            handle.close()
            if error.errno in NO_LOCKS:
                return None
            raise
        if _is_there(handle, path):
            return handle
        handle.close()  # whoever held it has removed it since: take the next one


def _is_there(handle: TextIOWrapper, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
