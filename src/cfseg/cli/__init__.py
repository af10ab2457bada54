"""The command line: one file per verb. Heavy imports happen inside the commands."""

import sys

from cfseg.cli.root import app
from cfseg.errors import CfsegError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error that cfseg raised becomes one message and an exit code."""
    try:
        app()
    except CfsegError as error:
        sys.stderr.write(f"cfseg: {error.code}: {error.message}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("cfseg: interrupted; finished cases are kept, run it again to go on\n")
        raise SystemExit(130) from None
