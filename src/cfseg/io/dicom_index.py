"""Which CT series lie in a folder, and which files belong to each."""

from collections import defaultdict
from pathlib import Path

from pydicom.dataset import Dataset

from cfseg.errors import InputError
from cfseg.io.dicom_tags import header_of, quiet
from cfseg.io.names import is_dicom_file
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.stream import describe


def series_of(folder: Path, options: ReadingOptions = AS_IS) -> list[str]:
    """Return the UIDs of the CT series of a folder, localizers aside, in order.

    Raises:
        InputError: there is none.
    """
    with quiet():
        images, _ = _headers(folder)
        return sorted(_by_series(folder, images, options)[0])


def files_of(
    folder: Path, options: ReadingOptions = AS_IS, series: int | None = None
) -> tuple[list[Path], list[str]]:
    """Return the files of a CT series of a folder, and notes about what was left aside.

    Args:
        folder: holds its files.
        options: what to do where it would be refused.
        series: which one of several, counted from 1 in the order of :func:`series_of`.

    Raises:
        InputError: there is no single CT series.
    """
    with quiet():
        headers, notes = _headers(folder)
        images, more = _one_series(folder, headers, options, series)
    return [path for path, _ in images], [*notes, *more]


def _headers(folder: Path) -> tuple[list[tuple[Path, Dataset]], list[str]]:
    """Return the image headers of a folder and a note about the files that hold no image."""
    images: list[tuple[Path, Dataset]] = []
    skipped = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        header = header_of(path) if is_dicom_file(path) else None
        if header is None or "Rows" not in header or "Columns" not in header:
            skipped.append(path.name)
        else:
            images.append((path, header))
    if not images:
        raise InputError(f"{folder} is {_what_folder(folder)}", code="E_FORMAT")
    return images, _skip_note("files_skipped", "hold no image", skipped)


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
