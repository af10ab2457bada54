"""What became of all inputs: every one is counted, as JSON and as a table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cfseg.errors import EXIT_OK, exit_code
from cfseg.io import write_json, write_text
from cfseg.tables import csv_text

State = Literal["done", "empty", "refused", "failed"]
STATES: tuple[State, ...] = ("done", "empty", "refused", "failed")
COLUMNS = ("case", "state", "code", "message", "attempt", "seconds", "output", "notes")


@dataclass(frozen=True)
class CaseStatus:
    """What became of one input.

    Attributes:
        case: its id; the output is ``CASE.nii.gz``.
        state: ``done``, ``empty`` (no abdomen found), ``refused`` (bad input) or ``failed``.
        skipped: it was done before and nothing changed, or by another run just now.
        record: all of ``status/CASE.json``.
    """

    case: str
    state: State
    skipped: bool
    record: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether there is a label map."""
        return self.state in ("done", "empty")

    @property
    def code(self) -> str:
        """Of the error, else empty."""
        return str(self.record["code"])

    @property
    def message(self) -> str:
        """Of the error, else empty."""
        return str(self.record["message"])


@dataclass(frozen=True)
class Summary:
    """What became of all inputs.

    Attributes:
        cases: in the order of the inputs.
        ignored: how many other files there were, by what they are.
        notice: what the bundle's makers want said.
        fail_on_empty: count a scan without abdomen as one that is not done.
        warnings: about files of other runs.
    """

    cases: tuple[CaseStatus, ...]
    ignored: Mapping[str, int]
    notice: str
    fail_on_empty: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """See :func:`cfseg.errors.exit_code`."""
        if not self.cases:  # every input is one: none fell to this share
            return EXIT_OK
        good = ("done",) if self.fail_on_empty else ("done", "empty")
        codes = [case.code for case in self.cases if case.state not in good]
        return exit_code(len(self.cases) - len(codes), codes)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds."""
        counts = Counter(case.state for case in self.cases)
        return {
            "inputs": len(self.cases),
            **{state: counts.get(state, 0) for state in STATES},
            "ignored": sum(self.ignored.values()),
            "ignored_because": dict(self.ignored),
            "notice": self.notice,
            "warnings": list(self.warnings),
            "cases": {case.case: case.record for case in self.cases},
        }

    def as_csv(self) -> str:
        """Return what ``summary.csv`` holds: a line for each input."""
        return csv_text(COLUMNS, [_row(case.record) for case in self.cases])

    def write(self, folder: Path, name: str = "summary") -> None:
        """Write ``summary.json`` and ``summary.csv``.

        Raises:
            ResourceError: the disk refuses.
        """
        write_json(folder / f"{name}.json", self.as_dict())
        write_text(folder / f"{name}.csv", self.as_csv())


def _row(record: dict[str, Any]) -> list[Any]:
    """Return what a status says, in the order of :data:`COLUMNS`."""
    notes = "; ".join(record.get("notes", []))
    told = {"notes": notes, "seconds": record.get("seconds", {}).get("total", "")}
    return [(record | told).get(name, "") for name in COLUMNS]
