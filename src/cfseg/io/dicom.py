"""A folder with one DICOM CT series: which files belong to it, and what their voxels are.

pydicom reads, highdicom gives the affine; the geometry is judged in :mod:`cfseg.io.dicom_stack`.
Readers that take what they find turn a missing slice, a tilt or a localizer into a wrong spacing.
"""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from cfseg.errors import InputError, UsageError
from cfseg.io.hounsfield import AIR_HU
from cfseg.io.names import is_dicom_file
from cfseg.io.nifti import MAX_VOXELS, StoredImage
from cfseg.io.source import SourceGrid
from cfseg.io.stream import CHUNK, describe

try:
    import highdicom  # noqa: F401 - only to say early that it is missing
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.errors import InvalidDicomError
    from pydicom.pixels import get_decoder  # type: ignore[attr-defined]
except ImportError as missing:
    raise UsageError(
        f"reading DICOM needs {missing.name}: pip install 'cfseg[dicom]'", code="E_EXTRA"
    ) from missing

from cfseg.io.dicom_stack import Slice, Stack, build_stack, drop_duplicates, make_slice

_Pixels = npt.NDArray[np.int16] | npt.NDArray[np.float32]


def read_series(folder: Path) -> StoredImage:
    """Read the one CT series of a folder.

    Returns:
        The image with stored axes (column, row, slice), slices along the normal of the rows and
        columns.

    Raises:
        InputError: there is no single, complete, regular CT series in Hounsfield units.
    """
    with _quiet():
        headers, notes = _headers(folder)
        series, more = _one_series(folder, headers)
        slices = [make_slice(path, header) for path, header in series]
        slices, duplicates = drop_duplicates(slices, _stored_pixels)
        stack, dropped = build_stack(slices)
        values = _read_values(stack)
    notes = [*notes, *more, *duplicates, *dropped]
    source = SourceGrid.from_header(_header(stack), values.shape)
    return StoredImage(values, source, (*notes, *source.notes), _digest(stack))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's remarks on irregular but readable values off the user's screen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def _headers(folder: Path) -> tuple[list[tuple[Path, Dataset]], list[str]]:
    """Return the image headers of a folder and a note about the files that hold no image."""
    images: list[tuple[Path, Dataset]] = []
    skipped = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        header = _header_of(path) if is_dicom_file(path) else None
        if header is None or "Rows" not in header or "Columns" not in header:
            skipped.append(path.name)
        else:
            images.append((path, header))
    if not images:
        raise InputError(f"{folder} is {_what_folder(folder)}", code="E_FORMAT")
    return images, _skip_note("files_skipped", "hold no image", skipped)


def _header_of(path: Path) -> Dataset | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except (InvalidDicomError, EOFError, OSError, ValueError, AttributeError) as error:
        raise _corrupt(path, str(error)) from error
    if "SOPInstanceUID" not in header and "SeriesInstanceUID" not in header:
        # A DICOMDIR has neither and is no image; what was cut this early has nothing at all.
        if "DirectoryRecordSequence" in header:
            return None
        raise _corrupt(path, "it ends before its identifiers")
    return header


def _what_folder(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        return "a folder without files; pass the one that holds the DICOM files"
    with files[0].open("rb") as handle:
        kind = describe(handle.read(512))
    return f"a folder without DICOM images ({files[0].name} is {kind})"


def _one_series(
    folder: Path, images: list[tuple[Path, Dataset]]
) -> tuple[list[tuple[Path, Dataset]], list[str]]:
    """Return the images of the only CT series and notes about what was left aside."""
    modalities = {str(header.get("Modality", "") or "unknown") for _, header in images}
    if "CT" not in modalities:
        raise InputError(
            f"{folder} holds images of modality {', '.join(sorted(modalities))}, not CT; cfseg "
            "was made for CT only",
            code="E_MODALITY",
        )
    other = [path.name for path, header in images if header.get("Modality") != "CT"]
    images = [item for item in images if item[1].get("Modality") == "CT"]
    localizers = [path.name for path, header in images if _is_localizer(header)]
    images = [item for item in images if not _is_localizer(item[1])]
    by_series: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path, header in images:
        by_series[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    if len(by_series) > 1:
        raise InputError(_series_list(folder, by_series), code="E_MULTI_SERIES")
    if not by_series:
        raise InputError(f"{folder} holds localizers only, no CT volume", code="E_FORMAT")
    notes = _skip_note("modality_skipped", "are of another modality", other)
    return images, [*notes, *_skip_note("localizer_skipped", "are localizers", localizers)]


def _is_localizer(header: Dataset) -> bool:
    kind = header.get("ImageType") or []
    return "LOCALIZER" in ([kind] if isinstance(kind, str) else list(kind))


def _series_list(folder: Path, by_series: dict[str, list[tuple[Path, Dataset]]]) -> str:
    rows = [
        f"{uid} ({len(items)} images, {items[0][1].get('SliceThickness') or 'unknown'} mm thick, "
        f"first file {items[0][0].name})"
        for uid, items in sorted(by_series.items())
    ]
    return (
        f"{folder} holds {len(rows)} CT series: {'; '.join(rows)}; put each into a folder of its "
        "own and pass the one you mean"
    )


def _skip_note(word: str, what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"{word}: {len(names)} files {what}: {shown}"]


def _header(stack: Stack) -> nib.Nifti1Header:
    """Return the NIfTI header of the stack's grid; both forms coded as scanner coordinates."""
    header = nib.Nifti1Header()
    header.set_data_shape(stack.shape)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ stack.affine_lps
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return header


def _read_values(stack: Stack) -> _Pixels:
    """Return (column, row, slice) in HU: int16 if every slice allows it, else float32."""
    columns, rows, count = stack.shape
    if columns * rows * count > MAX_VOXELS:
        raise InputError(
            f"the series has {columns * rows * count / 1e9:.1f}e9 voxels; at most "
            f"{MAX_VOXELS / 1e9:.1f}e9 are read",
            code="E_TOO_LARGE",
        )
    volume: npt.NDArray[Any] = np.empty((count, rows, columns), dtype=np.int16)
    for index, item in enumerate(stack.slices):
        plane = _hu(item)
        if volume.dtype == np.int16 and not _fits_int16(plane):
            volume = volume.astype(np.float32)
        volume[index] = plane
    return volume.transpose(2, 1, 0)


def _fits_int16(plane: npt.NDArray[np.float64]) -> bool:
    bounds = np.iinfo(np.int16)
    inside = bounds.min <= plane.min() and plane.max() <= bounds.max
    return bool(inside and (plane == np.rint(plane)).all())


def _hu(item: Slice) -> npt.NDArray[np.float64]:
    """Return one slice in HU; its own slope and intercept, its padding as air."""
    header = item.header
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    unit = str(header.get("RescaleType") or "HU")
    if slope is None or intercept is None or unit not in ("HU", "US"):
        raise InputError(
            f"{item.path} gives no way to Hounsfield units (RescaleSlope {slope}, "
            f"RescaleIntercept {intercept}, RescaleType {unit}); export the original series",
            code="E_NOT_HU",
        )
    stored = _stored_pixels(item)
    hu = stored * float(slope) + float(intercept)
    padding = header.get("PixelPaddingValue")
    if padding is not None:
        limit = header.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((int(padding), int(limit)))
        hu[(stored >= low) & (stored <= high)] = AIR_HU
    return np.asarray(hu, dtype=np.float64)


def _stored_pixels(item: Slice) -> npt.NDArray[Any]:
    """Return the stored values of one file, (row, column)."""
    try:
        dataset = pydicom.dcmread(item.path, force=True)
    except (EOFError, OSError, ValueError) as error:
        raise _corrupt(item.path, str(error)) from error
    if "PixelData" not in dataset:
        raise _corrupt(item.path, "its pixels are missing")
    _check_decoder(item.path, dataset)
    try:
        pixels = np.asarray(dataset.pixel_array)
    except (ValueError, AttributeError, RuntimeError, EOFError, TypeError) as error:
        raise _corrupt(item.path, " ".join(str(error).split())[:200]) from error
    if pixels.shape != (item.rows, item.columns):
        raise _corrupt(item.path, f"its pixels have shape {pixels.shape}")
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


def _digest(stack: Stack) -> str:
    """Return one digest of the files of the series, whatever they are called."""
    parts = []
    for item in stack.slices:
        digest = hashlib.sha256()
        with item.path.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                digest.update(chunk)
        parts.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def _corrupt(path: Path, what: str) -> InputError:
    return InputError(f"{path} is damaged: {what}; copy it again", code="E_CORRUPT")
