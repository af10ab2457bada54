"""A folder as ``cfseg predict`` leaves it, made by hand: no network runs."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from cfseg.batch.places import remember_inputs
from cfseg.io import Input, file_digest
from cfseg.io.scan import read_scan

SHAPE = (40, 32, 24)
"""Voxels along x (to the left), y (to the back) and z (up)."""
SPACING_MM = 4.0
LIVER_AT, SPLEEN_AT = (10, 16, 12), (31, 18, 12)
"""The liver is on the patient's right, the spleen on the left; indices (x, y, z)."""
NOTICE = "Made by hand. Not for clinical use."


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])), path)
    return path


def patient() -> tuple[np.ndarray, np.ndarray]:
    """Return HU and labels: liver, spleen, a lesion in the liver, an aorta from end to end."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[2:38, 3:29] = 40
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[5:16, 8:24, 6:18] = 1
    ids[28:35, 14:23, 7:17] = 3
    ids[7:10, 18:22, 13:16] = 14
    ids[20:22, 20:22] = 5
    return hu, ids


def write_output(
    out: Path,
    case: str,
    ids: np.ndarray,
    ct: Path | None,
    file: str | None = None,
    **status: object,
) -> None:
    """Write label map, status and where the CT lies."""
    file = file or case
    made = save(out / f"{file}.nii.gz", ids)
    record = {
        "case": case, "state": "done", "code": "", "message": "", "notice": NOTICE,
        "finished": "2026-01-02T03:04:05+00:00", "device": "cpu",
        "versions": {"torch": "2", "numpy": "2", "python": "3"},
        "settings": {"bundle": "by-hand", "bundle_sha256": "ab" * 32, "cfseg": "0"},
        "notes": [], "seconds": {"read": 0.5, "coarse": 1.5, "total": 2.0},
        "agreement": {"liver": 0.95, "spleen": 0.42, "aorta": 0.9},
        "input_sha256": read_scan(ct).sha256 if ct else "",
        "output": made.name, "output_sha256": file_digest(made),
    } | status  # fmt: skip
    (out / "status").mkdir(parents=True, exist_ok=True)
    (out / "status" / f"{file}.json").write_text(json.dumps(record), encoding="utf-8")
    if ct is not None:
        remember_inputs(out, [Input(ct)])


def small_output(folder: Path, case: str = "one", **status: object) -> Path:
    """Return a folder of results of one case; CT in ``ct``, reference in ``reference``."""
    hu, ids = patient()
    ct = save(folder / "ct" / f"{case}_0000.nii.gz", hu)
    save(folder / "reference" / f"{case}.nii.gz", ids)
    predicted = ids.copy()
    predicted[28:31, 14:23, 7:17] = 0
    write_output(folder / "out", case, predicted, ct, **status)
    return folder / "out"
