"""What the tests of reading and writing share."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import image


@pytest.fixture
def ct_file(tmp_path: Path) -> Callable[..., Path]:
    """Save an image and return its path; header fields can be set on the way."""

    def save(
        data: np.ndarray | None = None,
        affine: np.ndarray | None = None,
        name: str = "ct_0000.nii.gz",
        **fields: object,
    ) -> Path:
        made = image(data, affine)
        for field, value in fields.items():
            made.header[field] = value
        path = tmp_path / name
        nib.save(made, path)
        return path

    return save
