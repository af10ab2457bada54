"""What is wrong with a case, as data: one bad file never stops the others."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cfseg.errors import CfsegError, UsageError
from cfseg.tables import shown

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a case.

    Attributes:
        case: its name.
        file: the scan or label map, None if it is about neither.
        code: of an error as for refused inputs, for example ``E_GRID``; of a warning a word, for
            example ``situs``.
        message: what is wrong, and what to do about it.
        severity: an error keeps the case from being used, a warning does not.
    """

    case: str
    file: Path | None
    code: str
    message: str
    severity: Severity = "error"

    @property
    def line(self) -> str:
        """The problem on one line, as every command prints it."""
        word = "" if self.severity == "error" else "warning: "
        return shown(f"{self.case}: {word}{self.code}: {self.message}")

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON and CSV."""
        file = "" if self.file is None else str(self.file)
        return {
            "case": self.case,
            "file": file,
            "code": self.code,
            "message": self.message,
            "severity": self.severity,
        }


def problem_from(case: str, file: Path | None, error: Exception) -> Problem:
    """Return the problem that an error is, its own code if it is one of cfseg's."""
    if isinstance(error, CfsegError):
        return Problem(case, file, error.code, error.message)
    if isinstance(error, MemoryError):
        advice = f"{file}: out of memory; free some, or look at fewer cases at a time"
        return Problem(case, file, "E_OOM", advice)
    return Problem(case, file, CfsegError.code, f"{file}: {type(error).__name__}: {error}")


def check_out(out: Path, root: Path) -> None:
    """Refuse an output folder that lies in the cohort: nothing is written among the inputs.

    Raises:
        UsageError: it does, or it cannot be a folder.
    """
    check_folder(out)
    out, root = out.resolve(), root.resolve()
    if (root.is_dir() and out.is_relative_to(root)) or (root.is_file() and out == root.parent):
        raise UsageError(f"the output {out} lies in the cohort {root}; choose another -o")


def check_folder(out: Path) -> None:
    """Refuse an output folder where a file is, before any work is done for it.

    Raises:
        UsageError: the path, or one that it lies in, is no folder.
    """
    there = next((path for path in (out, *out.parents) if os.path.lexists(path)), None)
    if there is not None and not os.path.isdir(there):  # noqa: PTH112 - Path's raises for some
        raise UsageError(f"the output {out} cannot be a folder: {there} is none; choose another -o")
