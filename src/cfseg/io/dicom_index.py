"""Which DICOM files belong together: studies, series, and what is no CT volume.

Only the few elements that say so are read. What a folder's files are called does not count, but for
one thing: a file that is named like its neighbors and cannot be read is missing from their series.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from sys import intern
from typing import Literal

import numpy as np

from cfseg.errors import CfsegError, InputError
from cfseg.io.dicom import count_acquisitions
from cfseg.io.dicom_tags import corrupt, header_of, number, numbers, quiet, text
from cfseg.io.found import Beside, Ignored, Input
from cfseg.io.options import ReadingOptions

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
    "ImageType", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "SeriesNumber", "SeriesDescription", "ConvolutionKernel",
    "PatientID",
)  # fmt: skip
_NO_IMAGES = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "DOC", "REG"}
_SCREEN_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced
}
_SUFFIXES = (".dcm", ".dicom", ".ima")
_FIELDS = ("description", "kernel", "uid")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the header of one DICOM file says of where it belongs.

    Attributes:
        path: of the file.
        study: UID, or the folder where there is none.
        series: UID, or the folder where there is none.
        modality: as it says.
        number: SeriesNumber.
        description: of the series.
        kernel: of the reconstruction.
        frames: 1 but for multi-frame files.
        position: (3,) of the first pixel and (6,) orientation, mm in LPS; None where unusable.
        patient: PatientID, which is compared and never shown.
        kind: why it is no part of a volume: ``localizer``, ``screen capture``, ``no image``, or "".
    """

    path: Path
    study: str
    series: str
    modality: str
    number: str
    description: str
    kernel: str
    frames: int
    position: tuple[float, ...] | None
    patient: str
    kind: str


@dataclass(frozen=True)
class Broken:
    """A file that cannot be read although it should be one of a series.

    Attributes:
        path: of the file.
        why: in words.
    """

    path: Path
    why: str


def look(path: Path) -> IndexEntry:
    """Return what a DICOM file's header says.

    Raises:
        InputError: ``E_CORRUPT``.
    """
    with quiet():
        header = header_of(path, _TAGS)
        folder = str(path.parent)
        if header is None:
            return IndexEntry(path, folder, folder, "", "", "", "", 1, None, "", "DICOM directory")
        position = numbers(header, "ImagePositionPatient", 3)
        orientation = numbers(header, "ImageOrientationPatient", 6)
        modality = text(header, "Modality")
        is_image = number(header, "Rows") is not None and modality not in _NO_IMAGES
        if not is_image and text(header, "SOPClassUID") in _CT_CLASSES:
            raise corrupt(path, "it ends before its image")
        has_place = "ImagePositionPatient" in header or "ImageOrientationPatient" in header
        kind = "" if is_image else f"DICOM {modality or 'object'} without an image"
        if is_image and "LOCALIZER" in text(header, "ImageType").split("\\"):
            kind = "localizer"
        elif is_image and not has_place and text(header, "SOPClassUID").startswith(_SCREEN_CAPTURE):
            kind = "screen capture"
        return IndexEntry(
            path,
            intern(text(header, "StudyInstanceUID") or folder),
            intern(text(header, "SeriesInstanceUID") or folder),
            intern(modality or "unknown"),
            intern(text(header, "SeriesNumber")),
            intern(text(header, "SeriesDescription")),
            intern(text(header, "ConvolutionKernel")),
            int(number(header, "NumberOfFrames") or 1),
            None if position is None or orientation is None else (*position, *orientation),
            intern(text(header, "PatientID")),
            kind,
        )


def should_be_dicom(path: Path, shapes: Iterable[str]) -> bool:
    """Say whether a file that is no DICOM seems to be one of a series that was damaged.

    Args:
        path: of the file.
        shapes: :func:`name_shape` of the DICOM files beside it.
    """
    return path.suffix.lower() in _SUFFIXES or name_shape(path) in set(shapes)


def name_shape(path: Path) -> str:
    """Return a file's name with a ``#`` for each number, as ``IM#.dcm``."""
    return re.sub(r"\d+", "#", path.name).lower()


def inputs_of(
    images: Sequence[IndexEntry],
    broken: Sequence[Broken],
    aside: Sequence[Ignored],
    options: ReadingOptions,
) -> tuple[list[Input], list[Ignored]]:
    """Sort the DICOM files below one folder into scans and what is left aside.

    Args:
        images: of all files that could be read.
        broken: those that could not.
        aside: what was left aside before.
        options: which series of a study is wanted, and whether another modality is read.

    Returns:
        A scan, or a refusal, for each study or series; and what else is no part of any.
    """
    found: list[Input] = []
    ignored = [Ignored(it.path, it.kind, _note_of(it.kind)) for it in images if it.kind]
    for study in _by("study", (it for it in images if not it.kind)):
        volumes, other = _one_modality(study, options)
        ignored += [Ignored(it.path, f"modality {it.modality}", "modality_skipped") for it in other]
        if isinstance(volumes, InputError):
            files = tuple(image.path for image in study)
            uids = {image.series for image in study}
            uid = study[0].series if len(uids) == 1 else study[0].study
            found.append(Input(_folder(study), files, uid, refusal=volumes))
            continue
        forced = () if volumes[0].modality == "CT" else (_forced(volumes[0].modality),)
        several = sorted(_by("series", volumes), key=_order)
        chosen = _chosen(several, ignored, options)
        found += [replace(it, notes=forced) for it in chosen]
    found = _told_apart(_without_lost(found, broken), images)
    beside = Beside([*aside, *ignored])
    return [replace(it, notes=(*it.notes, *beside.notes(_folders(it)))) for it in found], ignored


def _forced(modality: str) -> str:
    return f"modality_forced: the series says it is {modality}, not CT"


def _note_of(kind: str) -> str:
    return "localizer_skipped" if kind == "localizer" else "files_skipped"


def _by(name: Literal["study", "series"], images: Iterable[IndexEntry]) -> list[list[IndexEntry]]:
    """Return the images in groups of the same study or series, in order of their first path."""
    groups: dict[str, list[IndexEntry]] = defaultdict(list)
    for image in images:
        groups[getattr(image, name)].append(image)
    return list(groups.values())


def _order(series: list[IndexEntry]) -> tuple[float, str]:
    """Return by what the series of a study are sorted: their numbers, then their UIDs."""
    number = series[0].number.strip()
    return (float(number) if number.isdecimal() else math.inf, series[0].series)


def _one_modality(
    study: list[IndexEntry], options: ReadingOptions
) -> tuple[list[IndexEntry] | InputError, list[IndexEntry]]:
    """Return a study's images that are read, CT unless another modality is forced, and the rest."""
    there = sorted({image.modality for image in study})
    wanted = "CT" if "CT" in there else there[0]
    if wanted != "CT" and not (options.force_modality and len(there) == 1):
        return InputError(
            f"{_folder(study)} holds images of modality {', '.join(there)}, not CT; cfseg was made "
            "for CT only; pass --force-modality if it is one all the same",
            code="E_MODALITY",
        ), []
    return (
        [image for image in study if image.modality == wanted],
        [image for image in study if image.modality != wanted],
    )


def _chosen(
    several: list[list[IndexEntry]], ignored: list[Ignored], options: ReadingOptions
) -> list[Input]:
    """Return the series of a study that are wanted, or its refusal."""
    volumes = [series for series in several if sum(image.frames for image in series) > 1]
    if volumes and len(volumes) < len(several):
        single = [series[0] for series in several if series not in volumes]
        ignored += [Ignored(it.path, "single image", "files_skipped") for it in single]
    volumes = volumes or several
    if options.series is not None:
        fitting = [series for series in volumes if _fits(series, options.series)]
        if len(fitting) != 1:
            what = "no series fits" if not fitting else f"{len(fitting)} series fit"
            return [_refused_study(fitting or volumes, f"{what} --series {options.series}")]
        return _acquisitions(fitting[0], options)
    if len(volumes) > 1 and not options.all_series:
        return [_refused_study(volumes, f"there are {len(volumes)} CT series")]
    return [found for series in volumes for found in _acquisitions(series, options)]


def _told_apart(found: list[Input], images: Sequence[IndexEntry]) -> list[Input]:
    """Give the scans of one folder suffixes: the numbers of their series, where these differ."""
    numbers = {image.series: re.sub(r"\W", "", image.number) for image in images}
    there: dict[Path, set[str]] = defaultdict(set)
    for one in found:
        there[one.path].add(one.series)
    words = {folder: _words(sorted(series), numbers) for folder, series in there.items()}
    return [replace(it, suffix=words[it.path][it.series] + it.suffix) for it in found]


def _words(series: list[str], numbers: Mapping[str, str]) -> dict[str, str]:
    """Return the suffix of each series of a folder, none for the only one."""
    if len(series) == 1:
        return {series[0]: ""}
    known = [numbers.get(uid, "") for uid in series]
    if "" in known or len(set(known)) < len(known):
        return {uid: f"_volume{place}" for place, uid in enumerate(series, start=1)}
    return {uid: f"_series{number}" for uid, number in zip(series, known, strict=True)}


def _fits(series: list[IndexEntry], wanted: str) -> bool:
    """Say whether a series is the wanted one: its number, or ``FIELD~TEXT``."""
    first = series[0]
    field, tilde, part = wanted.partition("~")
    if not tilde:
        return first.number.strip() == wanted.strip()
    values = {"description": first.description, "kernel": first.kernel, "uid": first.series}
    return part.strip().lower() in values[field.strip().lower()].lower()


def _acquisitions(series: list[IndexEntry], options: ReadingOptions) -> list[Input]:
    """Return a series as one input, or as one for each volume that it repeats."""
    files = tuple(image.path for image in series)
    one = Input(_folder(series), files, series[0].series)
    patients = {image.patient for image in series} - {""}
    if len(patients) > 1:
        return [replace(one, refusal=_mixed(one.path, len(patients)))]
    places = [image.position for image in series]
    repeats = len(set(places)) < len(places) or any(image.frames > 1 for image in series)
    if not (options.all_series and repeats):
        return [one]
    try:
        with quiet():
            count = count_acquisitions(files)
    except CfsegError as error:
        return [replace(one, refusal=error)]
    if count < 2:
        return [one]
    return [replace(one, acquisition=k, suffix=f"_acq{k}") for k in range(1, count + 1)]


def _mixed(folder: Path, patients: int) -> InputError:
    return InputError(
        f"{folder}: files of one series name {patients} different patients, as where an anonymizer "
        "gave them the same UIDs; keep the files of one patient in a folder of their own and name "
        "that",
        code="E_MULTI_SERIES",
    )


def _refused_study(several: list[list[IndexEntry]], why: str) -> Input:
    images = [image for series in several for image in series]
    folder = _folder(images)
    error = InputError(
        f"{folder}: {why}; choose one with --series NUMBER or --series 'description~TEXT', or pass "
        "--all-series to make a case of each",
        code="E_MULTI_SERIES",
    )
    error.details = (_HEAD, *map(_row, several))
    files = tuple(image.path for image in images)
    return Input(folder, files, images[0].study, refusal=error)


_HEAD = "series | description | kernel | slices | spacing | extent"


def _row(series: list[IndexEntry]) -> str:
    """Return a series as a row of the table from which one is to be chosen."""
    first, slices = series[0], sum(image.frames for image in series)
    spacing, extent = "-", "-"
    if all(image.position is not None and image.frames == 1 for image in series):
        found = np.array([image.position for image in series])
        normal = np.cross(found[0, 3:6], found[0, 6:9])
        along = np.unique(np.round(found[:, :3] @ normal, 2))
        if along.size > 1:
            spacing = f"{float(np.median(np.diff(along))):.4g} mm"
            extent = f"{float(np.ptp(along)):.0f} mm"
    words = (first.number, first.description, first.kernel)
    return " | ".join([*(word or "-" for word in words), str(slices), spacing, extent])


def _without_lost(found: list[Input], broken: Sequence[Broken]) -> list[Input]:
    """Refuse each series beside which a file lies that should be one of its own.

    It is one of the series that its name is like, or else it may be one of any in its folder; where
    there is none, the folder is refused.
    """
    if not broken:
        return found
    refused = list(found)
    places: dict[Path, list[int]] = defaultdict(list)
    for index, one in enumerate(found):
        for folder in _folders(one):
            places[folder].append(index)
    shapes = [{name_shape(path) for path in one.files} for one in found]
    alone: dict[Path, Broken] = {}
    for lost in broken:
        near = places.get(lost.path.parent, [])
        like = [index for index in near if name_shape(lost.path) in shapes[index]]
        for index in like or near:
            if refused[index].refusal is None:
                refused[index] = replace(found[index], refusal=_damaged(lost))
        if not near:
            alone.setdefault(lost.path.parent, lost)
    return refused + [Input.refused(folder, _damaged(alone[folder])) for folder in sorted(alone)]


def _damaged(lost: Broken) -> InputError:
    return InputError(
        f"{lost.path} is damaged: {lost.why}; it seems to be one of the series' files: copy it "
        "again, or take it out of the folder if it is not",
        code="E_CORRUPT",
    )


def _folders(found: Input) -> set[Path]:
    return {path.parent for path in found.files} or {found.path}


def _folder(images: Sequence[IndexEntry]) -> Path:
    """Return the folder that holds all files of the images, however deep."""
    return Path(commonpath([str(image.path.parent) for image in images]))
