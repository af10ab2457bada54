"""The command line: one file per verb. Heavy imports happen inside the commands."""

import signal
import sys
from types import FrameType
from typing import Never

from cfseg.cli.root import app
from cfseg.errors import EXIT_SIGINT, EXIT_SIGTERM, CfsegError
from cfseg.parallel import spin_briefly

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error that cfseg raised becomes one message and an exit code.

    SIGTERM ends every command as Ctrl-C does, with its own exit code and what is open cleaned up.
    A command that needs longer to leave puts a handler of its own in the place of this one.
    """
    signal.signal(signal.SIGTERM, _end)
    spin_briefly()
    try:
        app()
    except CfsegError as error:
        sys.stderr.write(f"cfseg: {error.code}: {error.message}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        _say_stopped()
        raise SystemExit(EXIT_SIGINT) from None
    except SystemExit as end:
        if end.code in (EXIT_SIGINT, EXIT_SIGTERM):
            _say_stopped()
        raise


def _end(number: int, frame: FrameType | None) -> Never:  # noqa: ARG001 - a handler's signature
    raise SystemExit(EXIT_SIGTERM)


def _say_stopped() -> None:
    sys.stderr.write("cfseg: stopped; what is finished is kept, run it again to go on\n")
