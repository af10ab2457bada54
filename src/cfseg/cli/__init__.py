"""The command line: one file per verb. Heavy imports happen inside the commands."""

import io
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, Never

import typer

from cfseg.cli.root import Root, app
from cfseg.errors import (
    EXIT_OK,
    EXIT_SIGINT,
    EXIT_SIGPIPE,
    EXIT_SIGTERM,
    CfsegError,
    as_cfseg_error,
)
from cfseg.parallel import is_launched, spin_briefly
from cfseg.tables import shown

__all__ = ["app", "main"]

_WrongCall: Any = typer.BadParameter.__mro__[2]
"""ClickException: of click, or of typer's own copy of it."""
_BUG = (
    "; this is a bug: run it again with --debug (cfseg --debug COMMAND ...) and report what it "
    "prints"
)


def main() -> None:
    """Run the command line and exit; whatever ends it becomes one message and an exit code.

    SIGTERM ends every command as Ctrl-C does, with its own exit code and what is open cleaned up.
    A command that needs longer to leave puts a handler of its own in the place of this one.
    """
    signal.signal(signal.SIGTERM, _end)
    spin_briefly()
    _print_any_text()
    code = _run(Root())
    if is_launched():
        _leave_group(code)
    raise SystemExit(code)


def _leave_group(code: int) -> Never:
    """End a process that torchrun started at once, with what it holds.

    A network that the end of Python frees after its group waits for gloo's thread, which may wait
    for Python in turn: such a process never ends.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


def _end(number: int, frame: FrameType | None) -> Never:  # noqa: ARG001 - a handler's signature
    raise SystemExit(EXIT_SIGTERM)


def _print_any_text() -> None:
    """Print as escapes what the terminal's encoding lacks, and nothing if there is no stream."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(root: Root) -> int:
    """Run the command of the arguments and return the exit code."""
    try:
        code = app(standalone_mode=False, prog_name="cfseg", obj=root) or EXIT_OK
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:
        code = _told(error, debug=root.debug)
        code = _stop_behind(error) or code
    if code in (EXIT_SIGINT, EXIT_SIGTERM) and not is_launched():
        _say("cfseg: stopped; what is finished is kept, run it again to go on")
    if code == EXIT_SIGPIPE:  # what is left in the buffer has no reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(code)


def _told(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, in one line, and return the exit code."""
    if isinstance(error, BrokenPipeError):
        return EXIT_SIGPIPE
    if isinstance(error, SystemExit):
        if isinstance(error.__context__, BrokenPipeError):  # typer and rich make this of it
            return EXIT_SIGPIPE
        return error.code if isinstance(error.code, int) else EXIT_OK
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return EXIT_SIGINT
    if isinstance(error, _WrongCall):
        error.message = "\n".join(map(shown, error.message.split("\n")))
        error.show()
        return int(error.exit_code)
    if debug:
        traceback.print_exception(error)
    known = as_cfseg_error(error)
    is_bug = not isinstance(error, CfsegError) and known.code == CfsegError.code
    _say(f"cfseg: {known.code}: {known.message}{_BUG if is_bug else ''}")
    for line in known.details:
        _say(line)
    return known.exit_code


def _stop_behind(error: BaseException | None) -> int | None:
    """Return the exit code of a stop, if the error came up while the command was leaving."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return EXIT_SIGINT
        if isinstance(error, SystemExit) and error.code in (EXIT_SIGINT, EXIT_SIGTERM):
            return int(error.code)
        error = error.__context__
    return None


def _say(line: str) -> None:
    from cfseg.cli.console import Console

    Console(stderr=True).say(line)
