"""The exception tree: every failure a user can meet, with its stable code and exit code.

An error says what is wrong, where, and what to do about it, in one sentence each. The
command line prints the message without a traceback and exits with :attr:`CfsegError.exit_code`.
"""

import errno
import re
from collections.abc import Sequence
from pathlib import Path

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_NONE_DONE = 4
EXIT_MODEL = 5
EXIT_RESOURCE = 6
EXIT_SIGINT = 130
EXIT_SIGPIPE = 141
EXIT_SIGTERM = 143

RESOURCE_CODES = frozenset({"E_DISK", "E_OOM", "E_RESOURCE", "E_WRITE", "E_DEVICE"})
"""What the machine ran out of, not what is wrong with an input."""


def exit_code(done: int, codes: Sequence[str]) -> int:
    """Return what a run over many cases exits with, if nothing ended it early.

    A case that is not done never ends the run: some done is 3, none done is 4, or 6 if disk or
    memory kept one of them from it. What ends a run early is an exception that carries its own
    exit code, and that counts for more: 130 and 143 (stopped), 1 (a bug), 2 (wrong call),
    5 (the model), 6 (disk or memory). docs/reference/exit-codes.md tells users the same.

    Args:
        done: cases that ended well.
        codes: one error code for each case that did not; it may be empty, as that of a scan
            without an abdomen under ``--fail-on-empty`` is.
    """
    if done:
        return EXIT_PARTIAL if codes else EXIT_OK
    return EXIT_RESOURCE if RESOURCE_CODES.intersection(codes) else EXIT_NONE_DONE


class CfsegError(Exception):
    """Base of all errors that cfseg raises on purpose.

    Attributes:
        code: a stable identifier, for example ``E_CORRUPT``; tests and status files cite it.
        exit_code: what the command line exits with when this error ends the run.
        details: lines to be shown below the message, as one for each case that it is about.
    """

    code = "E_INTERNAL"
    exit_code = EXIT_INTERNAL
    details: tuple[str, ...] = ()

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class UsageError(CfsegError):
    """The call cannot be carried out as written: arguments, recipe keys, clashing paths."""

    code = "E_USAGE"
    exit_code = EXIT_USAGE


class InputError(CfsegError):
    """One case is refused. It never stops the other cases of a batch.

    The code is one of those that the documentation lists under "refused inputs"
    (``E_CORRUPT``, ``E_FORMAT``, ``E_GEOMETRY``, ``E_ORIENTATION``, ``E_NONFINITE``,
    ``E_NOT_HU``, ...).
    """

    code = "E_INPUT"
    exit_code = EXIT_NONE_DONE


class ModelError(CfsegError):
    """A bundle, checkpoint or plan cannot be used."""

    code = "E_MODEL"
    exit_code = EXIT_MODEL


class ResourceError(CfsegError):
    """The machine ran out of something: disk, memory, a device."""

    code = "E_RESOURCE"
    exit_code = EXIT_RESOURCE


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def disk_error(error: OSError, path: Path | None = None) -> ResourceError:
    """Return ``E_DISK`` with the file and what to do about it.

    Args:
        error: of the file system.
        path: what was to be written; None if only the error knows which file it is about.
    """
    where = f"{path} cannot be written" if path is not None else error.filename or "the output"
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        reason = "the disk is full; free some space and run it again"
    elif error.errno in _FORBIDDEN:
        reason = f"{reason}; choose another folder, or change its permissions"
    return ResourceError(f"{where}: {reason}", code="E_DISK")


_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|failed to allocate|not enough memory"
    r"|out of memory|bad_alloc|bad allocation|DefaultCPUAllocator|can't start new thread"
    r"|failed to map segment",  # a library that is imported late
    re.IGNORECASE,
)
"""Of torch, of C++ (OpenVINO, ITK), of threads and of the loader of libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error, of whatever library, means that an allocator failed."""
    # torch's own is known by its name, so that this module does not import torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | OSError | ImportError) and bool(
        _OUT_OF_MEMORY.search(str(error))
    )


def as_cfseg_error(error: BaseException) -> CfsegError:
    """Return any error as one of ours: disk and memory by their own codes, else a bug."""
    if isinstance(error, CfsegError):
        return error
    if isinstance(error, OSError) and error.errno in (*_FULL, *_FORBIDDEN, errno.EIO):
        return disk_error(error)
    if is_out_of_memory(error):
        return ResourceError("memory ran out; free some, or give it less at a time", code="E_OOM")
    return CfsegError(f"{type(error).__name__}: {error}")
