"""Is a file a label map? Below a folder of scans, label maps lie among them."""

from pathlib import Path

import numpy as np

from cfseg.errors import InputError
from cfseg.io.itk import is_itk, itk_dtype
from cfseg.io.nifti import stored_pieces

_SEGMENTATIONS = (".seg.nrrd", ".seg.nhdr")
MOST_LABEL = 255


def is_label_map(path: Path) -> bool:
    """Say whether a file holds whole numbers from 0 to 255 alone, as no CT in HU does.

    A CT in NIfTI is told by its first voxels, so label maps alone are read to their end; of other
    formats the type of the voxels alone is looked at. What cannot be read is no label map: reading
    it as a scan says what is wrong.
    """
    if path.name.lower().endswith(_SEGMENTATIONS):
        return True
    try:
        if is_itk(path):
            return itk_dtype(path).itemsize == 1
        for values in stored_pieces(path):
            if values.dtype.itemsize == 1:
                return True  # a byte cannot hold HU
            if not np.isfinite(values).all():
                return False
            whole = np.rint(values)
            if not (np.abs(values - whole) < 1e-3).all():
                return False
            if whole.min(initial=0) < 0 or whole.max(initial=0) > MOST_LABEL:
                return False
    except InputError:
        return False
    return True
