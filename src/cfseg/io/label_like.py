"""Is a file a label map? Below a folder of scans, label maps lie among them."""

from pathlib import Path
from zlib import error as ZlibError  # noqa: N812 - it is an exception

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError

from cfseg.errors import InputError
from cfseg.io.stream import CHUNK, CheckedStream, open_regular

_SEGMENTATIONS = (".seg.nrrd", ".seg.nhdr")
MOST_LABEL = 255


def is_label_map(path: Path) -> bool:
    """Say whether a file holds whole numbers from 0 to 255 alone, as no CT in HU does.

    A CT is told by its first voxels, so label maps alone are read to their end. What cannot be read
    is none: reading it as a scan will say what is wrong.
    """
    name = path.name.lower()
    if name.endswith(_SEGMENTATIONS):
        return True
    if ".nii" not in name:
        return False
    try:
        image = nib.load(path)
        stored = image.dataobj if isinstance(image, nib.Nifti1Image) else None
        return isinstance(stored, ArrayProxy) and _holds_labels(path, stored)
    except (OSError, EOFError, ValueError, KeyError, ZlibError, ImageFileError, InputError):
        return False


def _holds_labels(path: Path, stored: ArrayProxy) -> bool:
    dtype = stored.dtype
    if dtype.kind not in "iuf":
        return False
    if dtype.itemsize == 1:
        return True  # a byte cannot hold HU
    slope, inter = float(stored.slope), float(stored.inter)
    with open_regular(path) as handle:
        stream = CheckedStream(handle, path)
        stream.skip(int(stored.offset))
        chunk = bytearray(CHUNK)
        while count := stream.read_into(memoryview(chunk)):
            values = np.frombuffer(chunk, dtype, count // dtype.itemsize) * slope + inter
            whole = np.rint(values)
            if not (np.abs(values - whole) < 1e-3).all():
                return False
            if whole.min(initial=0) < 0 or whole.max(initial=0) > MOST_LABEL:
                return False
    return True
