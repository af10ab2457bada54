"""The score files: scores of cases, the official ``scores.txt``, tables."""

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy

from cfseg.evaluation.cells import plain
from cfseg.evaluation.lesions import CaseLesions
from cfseg.evaluation.overview import Estimates, detection, estimates, head, tables
from cfseg.evaluation.scores import METRICS, CaseScores, Metric, Summary
from cfseg.io import make_folder, write_text
from cfseg.labels import NAMES
from cfseg.tables import csv_text, markdown

_DISTANCES: tuple[Metric, ...] = ("dsc", "nsd", "hd95_mm", "hd95_with_misses_mm")


def write_scores(folder: Path, summary: Summary) -> None:
    """Write all score files; each appears whole or not at all.

    Raises:
        ResourceError: the folder cannot be written.
    """
    make_folder(folder)
    found = estimates(summary)
    write_text(folder / "scores.csv", cases_csv(summary))
    write_text(folder / "scores.json", json_text(summary, found))
    write_text(folder / "scores.txt", official_text(summary))
    write_text(folder / "lesions.csv", lesions_csv(summary))
    write_text(folder / "tables.csv", tables_csv(found))
    page = markdown("Scores", head(summary), tables(summary, found), summary.notes)
    write_text(folder / "tables.md", page)


def official_text(summary: Summary) -> str:
    """Return the means as the official script writes them, ``Key: 0.1234`` on each line."""
    return "".join(f"{key}: {mean:.4f}\n" for key, mean in summary.means.items())


def cases_csv(summary: Summary) -> str:
    """Return one row per case and label; cases that could not be judged have none."""
    rows = (
        (
            case.case,
            case.state,
            NAMES[label],
            *(case.value(label, metric) for metric in _DISTANCES),
            case.volume_ml.get(label, float("nan")),
            case.reference_ml.get(label, float("nan")),
            "; ".join(case.notes),
        )
        for case in summary.cases
        for label in case.dsc
    )
    header = ("case", "state", "label", *_DISTANCES, "volume_ml", "reference_ml", "notes")
    return csv_text(header, rows)


def lesions_csv(summary: Summary) -> str:
    """Return one row per lesion of the references."""
    rows = (
        (
            case.case,
            number,
            lesion.volume_ml,
            lesion.diameter_mm,
            lesion.covered,
            int(lesion.found),
        )
        for case, lesions in _with_lesions(summary)
        for number, lesion in enumerate(lesions.lesions, start=1)
    )
    header = ("case", "lesion", "volume_ml", "diameter_mm", "covered", "found")
    return csv_text(header, rows)


def tables_csv(found: Estimates) -> str:
    """Return one row per label with the estimates of each metric, in the metric's own unit."""
    parts = ("mean", "sd", "low", "high")
    header = ["target", *(f"{m}_{part}" for m in METRICS for part in ("n", *parts))]
    rows = []
    for name, of_name in found.items():
        values = [asdict(of_name[metric]) for metric in METRICS]
        rows.append((name, *(one[part] for one in values for part in ("n", *parts))))
    return csv_text(header, rows)


def json_text(summary: Summary, found: Estimates) -> str:
    """Return everything, with null where a score is not defined."""
    lesions = detection(summary)
    record = {
        "mode": summary.mode,
        "labels": [NAMES[label] for label in summary.labels],
        "counts": summary.counts,
        "ignored": summary.ignored,
        "notes": summary.notes,
        "means": summary.means,
        "sds": summary.sds,
        "counted": summary.counted,
        "estimates": {
            name: {metric: asdict(one) for metric, one in of_name.items()}
            for name, of_name in found.items()
        },
        "detection": None if lesions is None else asdict(lesions),
        "cases": [_case(case) for case in summary.cases],
        "unpaired_predictions": list(summary.unpaired),
        "versions": versions(),
    }
    return json.dumps(plain(record), indent=2, allow_nan=False) + "\n"


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on."""
    return {
        "cfseg": _own_version(),
        "python": platform.python_version(),
        "nibabel": nib.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def _own_version() -> str:
    try:
        return version("cfseg")
    except PackageNotFoundError:
        return "not installed"


def _case(case: CaseScores) -> dict[str, Any]:
    record: dict[str, Any] = {"case": case.case, "state": case.state}
    if case.message:
        record |= {"code": case.code, "message": case.message}
    record |= {
        "notes": case.notes,
        "absent": [NAMES[label] for label in case.absent],
        "missed": [NAMES[label] for label in case.missed],
    }
    metric: Metric
    for metric in METRICS:
        record[metric] = {NAMES[label]: case.value(label, metric) for label in case.dsc}
    if case.lesions is not None:
        record["lesions"] = [asdict(lesion) for lesion in case.lesions.lesions]
        record["false_positives"] = case.lesions.false_positives
    return record


def _with_lesions(summary: Summary) -> Iterator[tuple[CaseScores, CaseLesions]]:
    for case in summary.judged:
        if case.lesions is not None:
            yield case, case.lesions
