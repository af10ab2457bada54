"""The voxels of a DICOM series in HU."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder  # type: ignore[attr-defined]

from cfseg.errors import InputError
from cfseg.io.dicom_stack import Slice, Stack
from cfseg.io.dicom_tags import corrupt
from cfseg.io.hounsfield import AIR_HU
from cfseg.io.memory import check_memory
from cfseg.io.nifti import MAX_VOXELS, reading_bytes
from cfseg.io.options import ReadingOptions

_Pixels = npt.NDArray[np.int16] | npt.NDArray[np.float32]


def read_values(stack: Stack, options: ReadingOptions) -> _Pixels:
    """Return (column, row, slice) in HU: int16 if every slice allows it, else float32."""
    columns, rows, count = stack.shape
    voxels = columns * rows * count
    if voxels > MAX_VOXELS:
        raise InputError(
            f"the series has {voxels / 1e9:.1f}e9 voxels; at most {MAX_VOXELS / 1e9:.1f}e9 are "
            "read; crop or resample it",
            code="E_TOO_LARGE",
        )
    check_memory(f"reading a series of {stack.shape} voxels", reading_bytes(voxels, np.dtype("f4")))
    volume: npt.NDArray[Any] = np.empty((len(stack.slices), rows, columns), dtype=np.int16)
    for index, item in enumerate(stack.slices):
        plane = _hu(item, options.hu_offset)
        if volume.dtype == np.int16 and not _fits_int16(plane):
            volume = volume.astype(np.float32)
        volume[index] = plane
    if stack.filling is not None:
        volume = stack.filling.fill(volume)
    return volume.transpose(2, 1, 0)


def _fits_int16(plane: npt.NDArray[np.float64]) -> bool:
    bounds = np.iinfo(np.int16)
    inside = bounds.min <= plane.min() and plane.max() <= bounds.max
    return bool(inside and (plane == np.rint(plane)).all())


def _hu(item: Slice, offset: float | None) -> npt.NDArray[np.float64]:
    """Return one slice in HU; its own slope and intercept, its padding as air.

    Args:
        item: the slice.
        offset: takes the place of an intercept where the slice has no rescale at all.
    """
    header = item.header
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    unit = str(header.get("RescaleType") or "HU")
    if offset is not None and _lacks_rescale(item):
        slope, intercept = 1.0, offset
    if slope is None or intercept is None or unit not in ("HU", "US"):
        raise InputError(
            f"{item.path} gives no way to Hounsfield units (RescaleSlope {slope}, "
            f"RescaleIntercept {intercept}, RescaleType {unit}); export the original series, or "
            f"pass the intercept if it lacks both, as in --hu-offset {AIR_HU}",
            code="E_NOT_HU",
        )
    stored = stored_pixels(item)
    hu = stored * float(slope) + float(intercept)
    padding = header.get("PixelPaddingValue")
    if padding is not None:
        limit = header.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((int(padding), int(limit)))
        hu[(stored >= low) & (stored <= high)] = AIR_HU
    return np.asarray(hu, dtype=np.float64)


def _lacks_rescale(item: Slice) -> bool:
    found = (item.header.get(f"Rescale{name}") for name in ("Slope", "Intercept"))
    return all(value in (None, "") for value in found)


def offset_note(stack: Stack, options: ReadingOptions) -> list[str]:
    """Return a note if slices without any rescale were given an intercept."""
    count = sum(map(_lacks_rescale, stack.slices))
    if not count or options.hu_offset is None:
        return []
    return [f"hu_offset: {options.hu_offset:+g} as the intercept of {count} slices without any"]


def stored_pixels(item: Slice) -> npt.NDArray[Any]:
    """Return the stored values of one file, (row, column)."""
    try:
        dataset = pydicom.dcmread(item.path, force=True)
    except (EOFError, OSError, ValueError) as error:
        raise corrupt(item.path, str(error)) from error
    if "PixelData" not in dataset:
        raise corrupt(item.path, "its pixels are missing")
    _check_decoder(item.path, dataset)
    try:
        pixels = np.asarray(dataset.pixel_array)
    except (ValueError, AttributeError, RuntimeError, EOFError, TypeError) as error:
        raise corrupt(item.path, " ".join(str(error).split())[:200]) from error
    if pixels.shape != (item.rows, item.columns):
        raise corrupt(item.path, f"its pixels have shape {pixels.shape}")
    return pixels


def _check_decoder(path: Path, dataset: Dataset) -> None:
    syntax = dataset.file_meta.get("TransferSyntaxUID") if "file_meta" in dir(dataset) else None
    if syntax is None:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        return
    if not syntax.is_compressed or syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise InputError(
            f"{path} is compressed as {syntax.name}, for which no decoder is installed; "
            "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg",
            code="E_DECODER",
        )
