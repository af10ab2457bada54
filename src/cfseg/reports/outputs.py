"""A folder that ``cfseg predict`` wrote, case by case, with what else is known about each."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cfseg.errors import InputError, UsageError
from cfseg.io import files_in, names_of, without_paths
from cfseg.io.status_file import read_status

T = TypeVar("T")


@dataclass(frozen=True)
class CaseOutput:
    """One case of a folder of results.

    Attributes:
        case: its id.
        page: file name of its page.
        status: what ``status/CASE.json`` holds; of a damaged one, no more than the case.
        label_map: its file, None if there is none.
        reference: the file of its reference, None if there is none.
        scores: DSC and NSD by label name, under ``dsc`` and ``nsd``; empty without a reference,
            and 0 where there is no label map to be judged by one.
        absent: names of labels that the reference does not have.
        missed: of labels that it has and the label map misses, or all but misses.
        problem: what is wrong with the status file, else empty.
    """

    case: str
    page: str
    status: Mapping[str, Any]
    label_map: Path | None = None
    reference: Path | None = None
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    problem: str = ""

    @property
    def message(self) -> str:
        """What went wrong, without the paths that may name a patient."""
        return without_paths(str(self.status.get("message", "")))


def read_outputs(
    out: Path, reference: Path | None = None, scores: Mapping[str, Any] | None = None
) -> list[CaseOutput]:
    """Return the cases of a folder, sorted.

    Args:
        out: a folder that ``cfseg predict`` wrote.
        reference: folder of references, ``CASE.nii.gz`` each.
        scores: what ``scores.json`` of ``cfseg evaluate`` holds.

    Raises:
        UsageError: there is no such folder.
        InputError: ``E_NO_CASES``, there is nothing that predict wrote.
    """
    if not out.is_dir():
        raise UsageError(f"there is no folder {out}; give one that cfseg predict wrote (its -o)")
    files = sorted(out.glob("status/[!.]*.json"))
    if not files:
        raise InputError(
            f"{out} holds no status files; give a folder that cfseg predict wrote (its -o)",
            code="E_NO_CASES",
        )
    references = _by_case(reference)
    by_case = _named((Path(row["case"]), row) for row in (scores or {}).get("cases", []))
    found: list[CaseOutput] = []
    for path in files:
        status, problem = _read(path)
        case = str(status["case"])
        label_map = out / (status.get("output") or f"{path.stem}.nii.gz")
        row = by_case.get(case, {})
        judged = row.get("state", "failed") != "failed"
        found.append(
            CaseOutput(
                case=case,
                page=_page_name(case, [other.page for other in found]),
                status=status,
                label_map=label_map if label_map.is_file() else None,
                reference=references.get(case),
                scores={key: row[key] for key in ("dsc", "nsd")} if judged else {},
                absent=tuple(row.get("absent", ())),
                missed=tuple(row.get("missed", ())) if row.get("state") == "scored" else (),
                problem=problem,
            )
        )
    return found


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """Return a status and what is wrong with its file."""
    try:
        return read_status(path), ""
    except (OSError, ValueError) as error:
        reason = without_paths(getattr(error, "strerror", None) or str(error))
        return {"case": path.stem, "state": "unknown", "notice": ""}, (
            f"Its status file is damaged ({reason}): run cfseg predict on this scan again."
        )


def _by_case(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    return _named((path, path) for path in files_in(folder))


def _named(pairs: Iterable[tuple[Path, T]]) -> dict[str, T]:
    """Return what belongs to each case id; a name that fits whole goes before one that is cut."""
    known = list(pairs)
    short = {name: value for path, value in known for name in names_of(path)[1:]}
    return short | {names_of(path)[0]: value for path, value in known}


def _page_name(case: str, taken: list[str]) -> str:
    """Return a file name that is safe in any link, and not taken."""
    stem = re.sub(r"[^\w.-]", "_", case, flags=re.ASCII).lstrip(".") or "case"
    name, number = f"{stem}.html", 2
    while name in taken:
        name, number = f"{stem}_{number}.html", number + 1
    return name
