"""What became of the cases that ``cfseg pseudo-label`` was asked to label."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cfseg.errors import exit_code
from cfseg.foreign import read_object

State = Literal["done", "refused", "failed"]
FILE = "pseudo_labels.json"


@dataclass(frozen=True)
class Labelled:
    """What became of one case.

    Attributes:
        case: its name.
        state: ``done``, ``refused`` (bad input) or ``failed``.
        skipped: it was done before and nothing changed.
        record: all of ``status/CASE.json``.
    """

    case: str
    state: State
    skipped: bool
    record: dict[str, Any]


OnCase = Callable[[Labelled, int, int], None]
"""Called after each case with what became of it, the cases done and the cases in all."""


@dataclass(frozen=True)
class LabelSummary:
    """What became of all cases."""

    cases: tuple[Labelled, ...]
    settings: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """See :func:`cfseg.errors.exit_code`."""
        codes = [str(case.record["code"]) for case in self.cases if case.state != "done"]
        return exit_code(len(self.cases) - len(codes), codes)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``pseudo_labels.json`` holds."""
        counts = Counter(case.state for case in self.cases)
        states: tuple[State, ...] = ("done", "refused", "failed")
        return {
            **self.settings,
            "counts": {state: counts.get(state, 0) for state in states},
            "cases": {case.case: case.record for case in self.cases},
        }


def with_earlier(summary: LabelSummary, file: Path) -> LabelSummary:
    """Add the cases that earlier runs, of other groups, labelled with the same settings.

    Args:
        summary: of this run.
        file: ``pseudo_labels.json`` of earlier runs.
    """
    try:
        earlier = read_object(file)
        before = {
            name: Labelled(name, record["state"], True, record)
            for name, record in earlier["cases"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return summary
    if any(earlier.get(key) != value for key, value in summary.settings.items()):
        return summary
    now = {case.case: case for case in summary.cases}
    merged = before | now
    return LabelSummary(tuple(merged[name] for name in sorted(merged)), summary.settings)
