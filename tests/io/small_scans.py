"""Small scans for the tests of reading and writing; all made here, none from outside."""

import nibabel as nib
import numpy as np

from cfseg.labels import LABELS

SHAPE = (24, 20, 16)


def ct(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """An ellipsoid of soft tissue with a fat rim in air, int16 HU."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    hu = np.where(radius < 0.7, 50.0, np.where(radius < 0.85, -100.0, -1000.0))
    return np.rint(hu + rng.normal(0, 8, shape)).clip(-1024).astype(np.int16)


def labels(shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(LABELS) + 1, shape).astype(np.uint8)


def image(data: np.ndarray | None = None, affine: np.ndarray | None = None) -> nib.Nifti1Image:
    data = ct() if data is None else data
    made = nib.Nifti1Image(data, np.diag([2.0, 2.5, 3.0, 1.0]) if affine is None else affine)
    made.header.set_xyzt_units("mm")
    return made
