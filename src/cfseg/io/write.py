"""Label maps out: onto the input's own grid, under a temporary name, checked, then renamed."""

import errno
import gzip
import math
import os
import uuid
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import escape

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Extension

from cfseg.errors import InputError, ResourceError, UsageError
from cfseg.io.atomic import TEMPORARY_PREFIX, remove_quietly, writing
from cfseg.io.itk import save_itk
from cfseg.io.scan import read_stored
from cfseg.io.segments import segment_fields
from cfseg.io.source import SourceGrid
from cfseg.labels import LABELS
from cfseg.volume import LabelMap

FORMATS = ("nii.gz", "nii", "nrrd", "mha", "seg.nrrd")
"""Suffixes of label maps that are written, the usual one first."""
_XML_CODE = 0
"""Extension code under which other tools look for label names (unknown, its text is XML)."""


def to_source_array(label_map: LabelMap, source: SourceGrid) -> npt.NDArray[np.uint8]:
    """Return the labels on the stored axes of the input, (I, J, K) uint8.

    Raises:
        ValueError: the label map does not lie on the canonical grid of ``source``.
    """
    return source.to_stored(label_map.ids)


def label_image(label_map: LabelMap, source: SourceGrid) -> nib.Nifti1Image:
    """Return the label map as a nibabel image with the input's affine, codes and label names."""
    header = source.header.copy()
    header.extensions.append(Nifti1Extension(_XML_CODE, _label_xml()))
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # The header's own affine: anything else would make nibabel write qform and sform anew.
    affine = header.get_best_affine()
    return kind(to_source_array(label_map, source), affine, header)  # type: ignore[no-untyped-call]


def write_label_map(path: Path, label_map: LabelMap, source: SourceGrid) -> None:
    """Write a label map; the file appears under its name whole and checked or not at all.

    Args:
        path: ends in one of :data:`FORMATS`, which decides; its folder is made if needed.
        label_map: on the canonical grid of ``source``.
        source: grid of the input.

    Raises:
        UsageError: another suffix; or ``E_EXTRA``, a format for which SimpleITK is missing.
        ResourceError: ``E_DISK`` if the disk is full or may not be written, ``E_WRITE`` if what
            was written does not read back as it should.
    """
    path = Path(path)
    if not is_label_map_name(path):
        raise UsageError(f"{path}: a label map is written as one of {', '.join(FORMATS)}")
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(temporary, label_map, source)
            _sync(temporary)
            _verify(temporary, to_source_array(label_map, source), source)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        remove_quietly(temporary)


def is_label_map_name(path: Path) -> bool:
    """Say whether a label map can be written under this name."""
    return path.name.lower().endswith(tuple(f".{name}" for name in FORMATS))


def writing_bytes(source: SourceGrid) -> int:
    """Return the memory that :func:`write_label_map` takes at its peak, beside the label map."""
    # Read back: as stored and in HU, then compared; sheared ones are made anew for that.
    return (5 if source.shear is not None else 4) * math.prod(source.shape)


def _write(path: Path, label_map: LabelMap, source: SourceGrid) -> None:
    if path.suffix.lower() in (".nii", ".gz"):
        _save(label_image(label_map, source), path)
        return
    path.touch()  # ITK does not say why it cannot write a file; this does
    values = to_source_array(label_map, source)
    is_segmentation = path.name.lower().endswith(".seg.nrrd")
    save_itk(path, values, source.affine, segment_fields(values) if is_segmentation else {})


def _save(image: nib.Nifti1Image, path: Path) -> None:
    if not path.name.lower().endswith(".gz"):
        nib.save(image, path)
        return
    with path.open("wb") as file, _compressed(file) as stream:
        image.to_file_map(image.make_file_map({"image": stream}))


def _compressed(file: BinaryIO) -> gzip.GzipFile:
    """Return a gzip stream into a file, without a name or a time in it; isal's is the faster."""
    try:
        from isal.igzip import IGzipFile
    except ImportError:
        return gzip.GzipFile("", "wb", 1, file, mtime=0)
    return IGzipFile("", "wb", 2, file, mtime=0)  # type: ignore[no-untyped-call]


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; the data itself was synced before.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _verify(path: Path, expected: npt.NDArray[np.uint8], source: SourceGrid) -> None:
    try:
        stored = read_stored(path, source.options.for_labels())
    except InputError as error:
        raise ResourceError(
            f"the label map that was just written is damaged: {error.message}", code="E_WRITE"
        ) from error
    # A NIfTI header rounds the affine of other formats to single precision.
    if not np.allclose(stored.source.affine, source.affine, rtol=1e-6, atol=1e-6):
        raise ResourceError("the label map just written has another affine", code="E_WRITE")
    if not np.array_equal(stored.values, expected):
        raise ResourceError("the label map just written has other voxels", code="E_WRITE")


def _label_xml() -> bytes:
    rows = []
    for label in LABELS:
        red, green, blue = (f"{value / 255:.4f}" for value in label.color)
        rows.append(
            f'<Label Key="{label.id}" Red="{red}" Green="{green}" Blue="{blue}" Alpha="1">'
            f"<![CDATA[{escape(label.name)}]]></Label>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<CaretExtension><VolumeInformation Index="0">'
        f"<LabelTable>{''.join(rows)}</LabelTable><VolumeType><![CDATA[Label]]></VolumeType>"
        "</VolumeInformation></CaretExtension>"
    ).encode()
