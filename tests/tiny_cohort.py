"""A cohort of six tiny scans from all of the paper's groups, and a recipe that fits them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from cfseg.labels import ORGAN_IDS
from cfseg.recipes.recipe import Recipe

EDGE = 24
FIVE = (1, 2, 3, 4, 13)
PLACES = (2, 13, 12, 7, 6, 5, 1, 3, 4, 8, 9, 11, 10, 14)
"""Labels from below, from the front and from the right, on their sides of each other in a body."""
ANNOTATED = {
    "full_a": ORGAN_IDS,
    "full_b": ORGAN_IDS,
    "partial": FIVE,
    "tumor_a": (*ORGAN_IDS, 14),
    "tumor_b": (*FIVE, 14),
    "unlabelled": (),
}


def blocks() -> np.ndarray:
    """Return 14 cubes, one of each label, in a (Z, Y, X) array of EDGE voxels a side."""
    ids = np.zeros((EDGE, EDGE, EDGE), dtype=np.uint8)
    for place, label in enumerate(PLACES):
        i, j, k = np.unravel_index(place, (3, 3, 2))
        ids[2 + 7 * i : 8 + 7 * i, 2 + 7 * j : 8 + 7 * j, 3 + 10 * k : 11 + 10 * k] = label
    return ids


def write(folder: Path) -> Path:
    """Write the cohort and return its folder."""
    rng = np.random.default_rng(0)
    for name, annotated in ANNOTATED.items():
        ids = blocks()
        hu = rng.normal(-60 + 15 * ids.astype(float), 5).round().astype(np.int16)
        _save(folder / "imagesTr" / f"{name}_0000.nii.gz", hu)
        if annotated:
            _save(folder / "labelsTr" / f"{name}.nii.gz", ids * np.isin(ids, annotated))
    manifest = {name: list(annotated) for name, annotated in ANNOTATED.items()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def recipe(**training: object) -> Recipe:
    """Return a recipe of seconds: narrow networks of one epoch, a teacher of two rounds."""
    stage = {"epochs": 1, "patch": (16, 16, 16), "spacing_mm": (4.0, 4.0, 4.0)}
    stage |= {"features": (4, 6, 8), "n_conv_encoder": 1, "n_conv_decoder": 1}
    values = {
        "iterations_per_epoch": 2,
        "validation_cases": 2,
        "rare_label_exponent": 0.5,
        "coarse": stage,
        "tumor": stage | {"weights": 2, "tumor_focus": 0.5},
        "organ": stage,
        "organ_labels": "teacher",
        "teacher": stage | {"rounds": 2, "drop_fraction": 0.25},
    }
    return Recipe.model_validate({"name": "tiny", "training": values | training})


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), np.diag([-4.0, -4.0, 4.0, 1.0])), path)
