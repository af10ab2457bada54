"""Make four large cases to judge: phantoms enlarged to 512 x 512 x 160, and predictions of them.

A prediction is its reference with every voxel moved by a smooth random field of a few voxels.

Example: python benchmarks/judging_cases.py cases
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import map_coordinates, zoom

from cfseg.phantoms.phantom import PhantomSpec, generate

SHAPE = (160, 512, 512)
SPACING_MM = (2.0, 0.75, 0.75)
MOVED_VOXELS = (1.2, 3.0, 3.0)
COARSE = 24


def enlarged(ids):
    """Return a label map of :data:`SHAPE`, with smooth surfaces."""
    factors = [n / m for n, m in zip(SHAPE, ids.shape, strict=True)]
    large = np.zeros(SHAPE, np.uint8)
    for label in range(1, 15):
        mask = (ids == label).astype(np.float32)
        large[zoom(mask, factors, order=1, grid_mode=True, mode="grid-constant") > 0.5] = label
    return large


def degraded(ids, rng):
    """Return a label map whose voxels are moved."""
    places = [np.empty(SHAPE, np.float32) for _ in SHAPE]
    for axis, (place, size) in enumerate(zip(places, MOVED_VOXELS, strict=True)):
        place[:] = np.arange(SHAPE[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
        coarse = rng.normal(size=[max(2, n // COARSE) for n in SHAPE]).astype(np.float32)
        factors = [n / m for n, m in zip(SHAPE, coarse.shape, strict=True)]
        place += size * zoom(coarse, factors, order=1, grid_mode=True, mode="nearest")
    return map_coordinates(ids, places, order=0)


def main(folder: Path) -> None:
    """Write ``ref/`` and ``pred/``."""
    rng = np.random.default_rng(0)
    z, y, x = SPACING_MM
    for number in range(4):
        ref = enlarged(generate(50 + number, 0, PhantomSpec(tumor=True)).label_map.ids)
        for name, ids in (("ref", ref), ("pred", degraded(ref, rng))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(ids.transpose(2, 1, 0), np.diag([-x, -y, z, 1.0]))
            nib.save(image, folder / name / f"case_{number}.nii.gz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
