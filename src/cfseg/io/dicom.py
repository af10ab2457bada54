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

import nibabel as nib
import numpy as np

from cfseg.errors import InputError, UsageError
from cfseg.io.affine import SNAP_LIMIT
from cfseg.io.names import is_dicom_file
from cfseg.io.nifti import StoredImage
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.shear import angle_error
from cfseg.io.source import SourceGrid
from cfseg.io.stream import CHUNK, describe

try:
    import highdicom  # noqa: F401 - only to say early that it is missing
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.errors import InvalidDicomError
except ImportError as missing:
    raise UsageError(
        f"reading DICOM needs {missing.name}: pip install 'cfseg[dicom]'", code="E_EXTRA"
    ) from missing

from cfseg.io.dicom_pixels import corrupt, offset_note, read_values, stored_pixels
from cfseg.io.dicom_stack import Stack, build_stack, drop_duplicates, make_slice


def series_of(folder: Path, options: ReadingOptions = AS_IS) -> list[str]:
    """Return the UIDs of the CT series of a folder, localizers aside, in order.

    Raises:
        InputError: there is none.
    """
    with _quiet():
        images, _ = _headers(folder)
        return sorted(_by_series(folder, images, options)[0])


def read_series(
    folder: Path, options: ReadingOptions = AS_IS, series: int | None = None
) -> StoredImage:
    """Read a CT series of a folder.

    Args:
        folder: holds its files.
        options: what to do where it would be refused.
        series: which one of several, counted from 1 in the order of :func:`series_of`.

    Returns:
        The image with stored axes (column, row, slice), slices along the normal of the rows and
        columns.

    Raises:
        InputError: there is no single, complete, regular CT series in Hounsfield units.
    """
    with _quiet():
        headers, notes = _headers(folder)
        images, more = _one_series(folder, headers, options, series)
        slices = [make_slice(path, header) for path, header in images]
        slices, duplicates = drop_duplicates(slices, stored_pixels)
        stack, dropped = build_stack(slices, allow_gaps=options.allow_gaps)
        source = SourceGrid.from_header(_header(stack), stack.shape, options)
        values = read_values(stack, options)
    notes = [*notes, *more, *duplicates, *dropped, *offset_note(stack, options)]
    notes += _announced(stack)
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
        raise corrupt(path, str(error)) from error
    if "SOPInstanceUID" not in header and "SeriesInstanceUID" not in header:
        # A DICOMDIR has neither and is no image; what was cut this early has nothing at all.
        if "DirectoryRecordSequence" in header:
            return None
        raise corrupt(path, "it ends before its identifiers")
    return header


def _what_folder(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        return "a folder without files; pass the one that holds the DICOM files"
    with files[0].open("rb") as handle:
        kind = describe(handle.read(512))
    return f"a folder without DICOM images ({files[0].name} is {kind})"


def _one_series(
    folder: Path,
    images: list[tuple[Path, Dataset]],
    options: ReadingOptions,
    series: int | None,
) -> tuple[list[tuple[Path, Dataset]], list[str]]:
    """Return the images of one CT series and notes about what was left aside."""
    by_series, notes = _by_series(folder, images, options)
    uids = sorted(by_series)
    if series is not None and 1 <= series <= len(uids):
        return by_series[uids[series - 1]], [*notes, f"series: {series} of {len(uids)}"]
    if len(by_series) > 1:
        raise InputError(_series_list(folder, by_series), code="E_MULTI_SERIES")
    return by_series[uids[0]], notes


def _by_series(
    folder: Path, images: list[tuple[Path, Dataset]], options: ReadingOptions
) -> tuple[dict[str, list[tuple[Path, Dataset]]], list[str]]:
    """Return the images of each CT series and notes about what was left aside."""
    modality, notes = _modality(folder, images, options)
    other = [path.name for path, header in images if _modality_of(header) != modality]
    images = [item for item in images if _modality_of(item[1]) == modality]
    localizers = [path.name for path, header in images if _is_localizer(header)]
    images = [item for item in images if not _is_localizer(item[1])]
    by_series: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path, header in images:
        by_series[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    if not by_series:
        raise InputError(
            f"{folder} holds localizers only, no CT volume; pass the folder of the scan",
            code="E_FORMAT",
        )
    notes += _skip_note("modality_skipped", "are of another modality", other)
    notes += _skip_note("localizer_skipped", "are localizers", localizers)
    return by_series, notes


def _modality(
    folder: Path, images: list[tuple[Path, Dataset]], options: ReadingOptions
) -> tuple[str, list[str]]:
    """Return the modality of the images to be read: CT, unless another one is forced."""
    found = sorted({_modality_of(header) for _, header in images})
    if "CT" in found:
        return "CT", []
    if options.force_modality and len(found) == 1:
        return found[0], [f"modality_forced: the series says it is {found[0]}, not CT"]
    raise InputError(
        f"{folder} holds images of modality {', '.join(found)}, not CT; cfseg was made for CT "
        "only; pass --force-modality if it is one all the same",
        code="E_MODALITY",
    )


def _modality_of(header: Dataset) -> str:
    return str(header.get("Modality", "") or "unknown")


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
        f"{folder} holds {len(rows)} CT series: {'; '.join(rows)}; put the one you mean into a "
        "folder of its own, or pass --all-series to make a case of each"
    )


def _skip_note(word: str, what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"{word}: {len(names)} files {what}: {shown}"]


def _header(stack: Stack) -> nib.Nifti1Header:
    """Return the NIfTI header of the stack's grid, coded as scanner coordinates.

    A qform cannot say that a gantry was tilted, so the sform alone does.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(stack.shape)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ stack.affine_lps
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code=1)
    if angle_error(affine) <= SNAP_LIMIT:
        header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return header


def _announced(stack: Stack) -> list[str]:
    """Return a note if the headers count more images than there are; missing ends show so alone."""
    announced = max(_count(item.header.get("ImagesInAcquisition")) for item in stack.slices)
    if announced <= len(stack.slices):
        return []
    return [
        f"slices_announced: {len(stack.slices)} of {announced} images of the acquisition are here"
    ]


def _count(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


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
