"""Small cohorts on disk, and the published FLARE 2023 one as a manifest."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from cfseg.labels import ORGAN_IDS

ALL = (*ORGAN_IDS, 14)
FIVE = (1, 2, 3, 4, 13)
# How many cases have which labels annotated. The last seven sets stand for the rare ones, of which
# only is known that they are seven, with 12 cases: 2 with a tumor, so that there are 1497.
PUBLISHED = (
    ((), 1800),
    (ALL, 888),
    ((*FIVE, 14), 592),
    (FIVE, 438),
    (ORGAN_IDS, 219),
    (tuple(i for i in ORGAN_IDS if i != 9), 21),
    ((1, 3, 4, 13), 9),
    ((1, 3, 4, 13, 14), 10),
    ((1, 2, 3, 4), 6),
    ((1, 2, 3, 4, 14), 5),
    ((1, 14), 1),
    ((1, 3, 14), 1),
    ((1,), 4),
    ((3,), 2),
    ((4,), 2),
    ((1, 2), 1),
    ((1, 3), 1),
)
PUBLISHED_SIZES = {1: 1800, 2: 2200, 3: 703, 4: 1497, 5: 484, 6: 219}
SHAPE = (20, 18, 16)


def published(folder: Path) -> Path:
    """Write a manifest of 4000 cases whose scans are names only; none is opened to group them."""
    cases = {}
    for ids, count in PUBLISHED:
        for _ in range(count):
            name = f"FLARE23_{len(cases):04d}"
            cases[name] = {"image": f"imagesTr/{name}_0000.nii.gz", "annotated": ids}
            if ids:
                cases[name]["label"] = f"labelsTr/{name}.nii.gz"
    path = folder / "manifest.json"
    path.write_text(json.dumps(cases))
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(path: Path, array: np.ndarray, spacing_mm: float = 3.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nib.Nifti1Image(array, np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0]))
    made.header.set_xyzt_units("mm")
    nib.save(made, path)
    return path


def ct(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Soft tissue with fat around it in air, int16 HU."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    hu = np.where(radius < 0.7, 50.0, np.where(radius < 0.85, -100.0, -1000.0))
    return np.rint(hu + np.random.default_rng(seed).normal(0, 8, shape)).astype(np.int16)


def labels(ids: tuple[int, ...], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A voxel or more of each label."""
    found = np.zeros(shape, np.uint8)
    found.flat[: 3 * len(ids)] = np.repeat(ids, 3)
    return found


def cohort(folder: Path) -> Path:
    """Write four good cases, one each of the groups 1, 4, 5 and 6, in FLARE's folders."""
    for seed, (name, ids) in enumerate({"b": FIVE, "c": ORGAN_IDS, "d": (1, 14)}.items()):
        write(folder / f"imagesTr2200/{name}_0000.nii.gz", ct(seed))
        write(folder / f"labelsTr2200/{name}.nii.gz", labels(ids))
    write(folder / "unlabeledTr1800/a_0000.nii.gz", ct(9))
    return folder
