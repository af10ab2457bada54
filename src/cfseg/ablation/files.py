"""The files of an ablation: tables as Markdown, the cases' scores as CSV, everything as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cfseg.ablation.ablation import Ablation, as_record
from cfseg.ablation.tables import (
    comparisons,
    head,
    scores_of,
    tables,
)
from cfseg.evaluation.cells import plain
from cfseg.evaluation.scores import ORGANS, SHARES
from cfseg.evaluation.statistics import spread
from cfseg.io import make_folder, write_json, write_text
from cfseg.labels import LABELS, NAMES
from cfseg.tables import csv_text, markdown


def write_tables(folder: Path, ablation: Ablation) -> None:
    """Write ``ablation.md``, ``ablation.csv`` and ``ablation.json``, each whole or not at all.

    Raises:
        ResourceError: the folder cannot be written.
    """
    make_folder(folder)
    write_text(folder / "ablation.md", page(ablation))
    write_text(folder / "ablation.csv", cases_csv(ablation))
    write_json(folder / "ablation.json", as_json(ablation))


def page(ablation: Ablation) -> str:
    """Return the tables as Markdown."""
    title = f"Ablation of {ablation.model}"
    return markdown(title, head(ablation), tables(ablation), ablation.notes)


def cases_csv(ablation: Ablation) -> str:
    """Return one line per row, case and label; an empty cell is not defined."""
    rows = (
        (row, case.case, NAMES[label], dsc, case.rows[row].nsd[label])
        for row in ablation.rows
        for case in ablation.judged
        for label, dsc in case.rows[row].dsc.items()
    )
    return csv_text(("row", "case", "label", "dsc", "nsd"), rows)


def as_json(ablation: Ablation) -> dict[str, Any]:
    """Return everything, with null where a number is not defined; fractions of 1."""
    return {
        "model": ablation.model,
        "digest": ablation.digest,
        "backend": ablation.backend,
        "notes": list(ablation.notes),
        "rows": {row: _summary(ablation, row) for row in ablation.rows},
        "comparisons": [plain(asdict(c)) for c in comparisons(ablation)],
        "cases": [as_record(case) for case in ablation.cases],
    }


def _summary(ablation: Ablation, row: str) -> dict[str, Any]:
    names = [ORGANS, *(label.name for label in LABELS)]
    found = {
        name: {m: asdict(spread(scores_of(ablation, row, name, m))) for m in SHARES}
        for name in names
    }
    summary: dict[str, Any] = plain(found)
    return summary
