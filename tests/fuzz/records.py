"""Mutants of text: recipes, descriptions of cohorts, what earlier runs left behind."""

import json
import random
import shutil
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from small_cohorts import FIVE, cohort
from small_models import dataset_json
from test_damaged_records import RECORD
from tests.fuzz.damage import damaged, rewritten

from cfseg.findings.files import case_file
from cfseg.recipes import recipe
from mutants import mutant

STATUS = {
    "case": "x", "state": "done", "code": "", "message": "", "notes": ["a: note"], "notice": "No.",
    "again": [], "attempt": 1, "started": "2026-01-01", "finished": "2026-01-02", "device": "cpu",
    "versions": {"torch": "2"}, "input_stamp": [1, 2], "input_sha256": "ab" * 32,
    "settings": {"bundle": "b", "bundle_sha256": "ab" * 32, "cfseg": "0"}, "output": "x.nii.gz",
    "output_sha256": "ab" * 32, "volumes_ml": {"liver": 1500.5}, "agreement": {"liver": 0.9},
    "seconds": {"read": 1.0, "total": 3.0},
}  # fmt: skip
MANIFEST = {
    "label_map": {"1": 1, "14": 14}, "ignore": 200,
    "a": [], "b": [*FIVE], "d": {"annotated": [1, 14], "label": "labelsTr2200/d.nii.gz"},
    "c": {
        "image": "imagesTr2200/c_0000.nii.gz", "label": "labelsTr2200/c.nii.gz",
        "annotated": [1, 2, 3], "absent": [9], "label_map": {"1": 2, "2": 0}, "ignore": 15,
    },
}  # fmt: skip
DECATHLON = {
    "name": "x", "labels": {"0": "background", "1": "liver", "2": "cancer"}, "numTraining": 2,
    "training": [
        {"image": "./imagesTr2200/b.nii.gz", "label": "./labelsTr2200/b.nii.gz"},
        {"image": "./imagesTr2200/c.nii.gz", "label": "./labelsTr2200/c.nii.gz"},
    ],
    "test": ["./unlabeledTr1800/a.nii.gz"],
}  # fmt: skip
NNUNET: dict[str, Any] = dataset_json() | {
    "dataset": {
        "b": {"images": ["imagesTr2200/b_0000.nii.gz"], "label": "labelsTr2200/b.nii.gz"},
        "c": {"images": ["imagesTr2200/c_0000.nii.gz"], "label": "labelsTr2200/c.nii.gz"},
    }
}
DESCRIPTIONS = (
    ("manifest.json", MANIFEST), ("manifest.json", MANIFEST), ("dataset.json", DECATHLON),
    ("dataset.json", NNUNET), ("dataset.json", dataset_json(["background", "liver", "ignore"])),
)  # fmt: skip


def recipe_file(folder: Path, rng: random.Random) -> Path:
    """Write a recipe with lines or bytes that are others."""
    name = rng.choice(recipe.names())
    text = resources.files(recipe.__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    made = damaged(text.encode(), rng) if rng.random() < 0.3 else rewritten(text, rng)
    (folder / "x.toml").write_bytes(made)
    return folder / "x.toml"


@cache
def whole_cohort() -> tempfile.TemporaryDirectory[str]:
    """A folder with a small cohort, gone at the end of the program."""
    made = tempfile.TemporaryDirectory()
    cohort(Path(made.name))
    return made


def described_cohort(folder: Path, rng: random.Random) -> Path:
    """Write a cohort with a damaged description, and now and then a damaged label map."""
    made = folder / "cohort"
    shutil.copytree(whole_cohort().name, made)
    name, values = rng.choice(DESCRIPTIONS)
    (made / name).write_bytes(mutant(values, rng.getrandbits(32)))
    if rng.random() < 0.2:
        path = rng.choice(sorted((made / "labelsTr2200").iterdir()))
        path.write_bytes(damaged(path.read_bytes(), rng, head=30))
    return made / name if name == "manifest.json" and rng.random() < 0.5 else made


def status(folder: Path, rng: random.Random) -> Path:
    """Write a damaged status file."""
    (folder / "x.json").write_bytes(_damaged_json(STATUS, rng))
    return folder / "x.json"


def statistics(folder: Path, rng: random.Random) -> Path:
    """Write damaged findings of a case called x, and return the folder of results."""
    case_file(folder, "x").parent.mkdir()
    case_file(folder, "x").write_bytes(_damaged_json(RECORD, rng))
    return folder


def _damaged_json(values: dict[str, Any], rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return damaged(json.dumps(values).encode(), rng)
    return mutant(values, rng.getrandbits(32))
