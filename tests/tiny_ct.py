"""A CT of a few voxels, for whoever needs a file and not an anatomy."""

from pathlib import Path

import nibabel as nib
import numpy as np


def ct(path: Path, seed: int = 0, shape: tuple[int, int, int] = (30, 28, 26)) -> Path:
    """A small CT: a body of noise in air."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[4:-4, 4:-4] = rng.normal(60, 60, (shape[0] - 8, shape[1] - 8, shape[2])).astype(np.int16)
    image = nib.Nifti1Image(hu, np.diag([-4.8, -4.8, 4.8, 1.0]))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path
