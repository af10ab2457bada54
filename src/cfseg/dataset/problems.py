"""Why a case cannot be used, as data: one bad file never stops the others."""

from dataclasses import dataclass
from pathlib import Path

from cfseg.errors import EXIT_NONE_DONE, EXIT_OK, EXIT_PARTIAL, CfsegError, UsageError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a case.

    Attributes:
        case: its name.
        file: the scan or label map, None if it is about neither.
        code: as for refused inputs, for example ``E_GRID``.
        message: what is wrong, and what to do about it.
    """

    case: str
    file: Path | None
    code: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON and CSV."""
        file = "" if self.file is None else str(self.file)
        return {"case": self.case, "file": file, "code": self.code, "message": self.message}


def problem_from(case: str, file: Path | None, error: Exception) -> Problem:
    """Return the problem that an error is, its own code if it is one of cfseg's."""
    if isinstance(error, CfsegError):
        return Problem(case, file, error.code, error.message)
    return Problem(case, file, CfsegError.code, f"{file}: {type(error).__name__}: {error}")


def exit_code(good: int, bad: int) -> int:
    """Return 0 if all cases are good, 3 if some are bad, 4 if all are or there are none."""
    if good == 0:
        return EXIT_NONE_DONE
    return EXIT_PARTIAL if bad else EXIT_OK


def check_out(out: Path, root: Path) -> None:
    """Refuse an output folder that lies in the cohort: nothing is written among the inputs.

    Raises:
        UsageError: it does.
    """
    out, root = out.resolve(), root.resolve()
    if (root.is_dir() and out.is_relative_to(root)) or (root.is_file() and out == root.parent):
        raise UsageError(f"the output {out} lies in the cohort {root}; choose another -o")
