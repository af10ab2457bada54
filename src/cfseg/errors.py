"""The exception tree: every failure a user can meet, with its stable code and exit code.

An error says what is wrong, where, and what to do about it, in one sentence each. The
command line prints the message without a traceback and exits with :attr:`CfsegError.exit_code`.
"""

from collections.abc import Sequence

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_NONE_DONE = 4
EXIT_MODEL = 5
EXIT_RESOURCE = 6
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


def exit_code(done: int, codes: Sequence[str]) -> int:
    """Return what a run over many cases exits with, if nothing ended it early.

    Of several that fit, the greatest of this order counts: 130 and 143 (stopped), 1 (a bug ended
    the run), 2 (wrong call), 5 (the model), 6 (disk or memory ended the run, or left nothing done),
    4 (nothing done), 3 (some not done), 0. All but the last three end a run as an exception does.

    Args:
        done: cases that ended well.
        codes: the error codes of those that did not.
    """
    if done:
        return EXIT_PARTIAL if codes else EXIT_OK
    return EXIT_RESOURCE if RESOURCE_CODES.intersection(codes) else EXIT_NONE_DONE


RESOURCE_CODES = frozenset({"E_DISK", "E_OOM", "E_RESOURCE", "E_WRITE", "E_DEVICE"})
"""What the machine ran out of, not what is wrong with an input."""


class CfsegError(Exception):
    """Base of all errors that cfseg raises on purpose.

    Attributes:
        code: a stable identifier, for example ``E_CORRUPT``; tests and status files cite it.
        exit_code: what the command line exits with when this error ends the run.
    """

    code = "E_INTERNAL"
    exit_code = EXIT_INTERNAL

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
