"""The score files: ``scores.csv``, ``scores.json`` and the official ``scores.txt``."""

import csv
import io
import json
import math
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy

from cfseg.errors import ResourceError
from cfseg.evaluation.scores import CaseScores, Summary
from cfseg.io import write_text
from cfseg.labels import NAMES


def write_scores(folder: Path, summary: Summary) -> None:
    """Write the three files; each appears whole or not at all.

    Raises:
        ResourceError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "scores.csv", csv_text(summary))
        write_text(folder / "scores.json", json_text(summary))
        write_text(folder / "scores.txt", official_text(summary))
    except OSError as error:
        raise ResourceError(
            f"the scores cannot be written to {folder}: {error.strerror or error}", code="E_DISK"
        ) from error


def official_text(summary: Summary) -> str:
    """Return the means as the official script writes them, ``Key: 0.1234`` on each line."""
    return "".join(f"{key}: {mean:.4f}\n" for key, mean in summary.means.items())


def csv_text(summary: Summary) -> str:
    """Return one row per case and label; cases that could not be judged have none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("case", "label", "dsc", "nsd"))
    for case in summary.cases:
        for label, dsc in case.dsc.items():
            writer.writerow((case.case, NAMES[label], dsc, case.nsd[label]))
    return stream.getvalue()


def json_text(summary: Summary) -> str:
    """Return everything, with null where a score is not defined."""
    record = {
        "mode": summary.mode,
        "labels": [NAMES[label] for label in summary.labels],
        "counts": summary.counts,
        "means": _by_key(summary.means),
        "sds": _by_key(summary.sds),
        "cases": [_case(case) for case in summary.cases],
        "unpaired_predictions": list(summary.unpaired),
        "versions": {
            "cfseg": _own_version(),
            "python": platform.python_version(),
            "nibabel": nib.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def _own_version() -> str:
    try:
        return version("cfseg")
    except PackageNotFoundError:
        return "not installed"


def _case(case: CaseScores) -> dict[str, Any]:
    record: dict[str, Any] = {"case": case.case, "state": case.state}
    if case.message:
        record |= {"code": case.code, "message": case.message}
    for metric, scores in (("dsc", case.dsc), ("nsd", case.nsd)):
        record[metric] = _by_key({NAMES[label]: score for label, score in scores.items()})
    return record


def _by_key(scores: dict[str, float]) -> dict[str, float | None]:
    return {key: score if math.isfinite(score) else None for key, score in scores.items()}
