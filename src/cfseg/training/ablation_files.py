"""The files of an ablation: tables as Markdown, the cases' scores as CSV, everything as JSON."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cfseg.batch import make_folder
from cfseg.evaluation.statistics import spread
from cfseg.io import write_json, write_text
from cfseg.labels import LABELS, NAMES
from cfseg.training.ablation import Ablation, as_record
from cfseg.training.ablation_tables import (
    METRICS,
    ORGANS,
    comparisons,
    head,
    scores_of,
    tables,
)


def write_tables(folder: Path, ablation: Ablation) -> None:
    """Write ``ablation.md``, ``ablation.csv`` and ``ablation.json``, each whole or not at all.

    Raises:
        ResourceError: the folder cannot be written.
    """
    make_folder(folder)
    write_text(folder / "ablation.md", markdown(ablation))
    write_text(folder / "ablation.csv", csv_text(ablation))
    write_json(folder / "ablation.json", as_json(ablation))


def markdown(ablation: Ablation) -> str:
    """Return the tables as Markdown."""
    lines = [f"# Ablation of {ablation.model}", "", head(ablation), ""]
    for table in tables(ablation):
        lines += [f"## {table.title}", "", _markdown_row(table.header)]
        lines.append(_markdown_row(("---", *("---:" for _ in table.header[1:]))))
        lines += [_markdown_row(row) for row in table.rows]
        lines += ["", table.note, ""]
    lines += [f"- {note}" for note in ablation.notes]
    return "\n".join(lines).rstrip() + "\n"


def csv_text(ablation: Ablation) -> str:
    """Return one line per row, case and label; an empty cell is not defined."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("row", "case", "label", "dsc", "nsd"))
    for row in ablation.rows:
        for case in ablation.judged:
            scores = case.rows[row]
            for label, dsc in scores.dsc.items():
                pair = ["" if math.isnan(s) else s for s in (dsc, scores.nsd[label])]
                writer.writerow((row, case.case, NAMES[label], *pair))
    return stream.getvalue()


def as_json(ablation: Ablation) -> dict[str, Any]:
    """Return everything, with null where a number is not defined; fractions of 1."""
    return {
        "model": ablation.model,
        "digest": ablation.digest,
        "notes": list(ablation.notes),
        "rows": {row: _summary(ablation, row) for row in ablation.rows},
        "comparisons": [_plain(asdict(c)) for c in comparisons(ablation)],
        "cases": [as_record(case) for case in ablation.cases],
    }


def _summary(ablation: Ablation, row: str) -> dict[str, Any]:
    names = [ORGANS, *(label.name for label in LABELS)]
    found = {
        name: {m: asdict(spread(scores_of(ablation, row, name, m))) for m in METRICS}
        for name in names
    }
    summary: dict[str, Any] = _plain(found)
    return summary


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
