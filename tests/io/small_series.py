"""Small DICOM series for the tests of reading: of single images, enhanced, compressed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from small_scans import ct

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

ROWS, COLUMNS, SLICES = 20, 24, 12
PIXEL_MM, STEP_MM = (0.9, 0.6), 2.5
SERIES = generate_uid(entropy_srcs=["series"])
Edit = Callable[[int, Dataset], None]

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
UPSIDE_DOWN = (-1, 0, 0, 0, 1, 0)
OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0)


def hu_stack() -> np.ndarray:
    """(slice, row, column) in HU."""
    return ct((SLICES, ROWS, COLUMNS))


def make_image(number: int, orientation: tuple[float, ...] = AXIAL) -> Dataset:
    """One CT image of the series, 12 bits stored, intercept -1024."""
    normal = np.cross(orientation[:3], orientation[3:])
    image = FileDataset(None, {}, preamble=bytes(128))
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    uid = generate_uid(entropy_srcs=["image", str(number)])
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = uid
    image.Modality, image.SeriesInstanceUID = "CT", SERIES
    image.StudyInstanceUID = image.FrameOfReferenceUID = generate_uid(entropy_srcs=["study"])
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.Rows, image.Columns, image.InstanceNumber = ROWS, COLUMNS, number + 1
    image.PixelSpacing, image.SliceThickness = list(PIXEL_MM), "3"
    image.ImageOrientationPatient = list(orientation)
    position = np.array([-100.0, -90.0, 50.0]) + number * STEP_MM * normal
    image.ImagePositionPatient = [round(float(p), 6) for p in position]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = "1", "-1024", "HU"
    image.PixelData = (hu_stack()[number].astype(int) + 1024).astype("<u2").tobytes()
    return image


def nothing(number: int, image: Dataset) -> None:
    return


def save(
    folder: Path,
    edit: Edit = nothing,
    *,
    numbers: range | list[int] = range(SLICES),
    orientation: tuple[float, ...] = AXIAL,
    name: str = "IM{}",
) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        image = make_image(number, orientation)
        edit(number, image)
        image.save_as(folder / name.format((number * 7) % 100), enforce_file_format=True)
    return folder


def put(numbers: set[int], **values: object) -> Edit:
    """Set attributes (or delete them, with None) in some images."""

    def edit(number: int, image: Dataset) -> None:
        if number in numbers:
            for name, value in values.items():
                if value is None:
                    delattr(image, name)
                else:
                    setattr(image, name, value)

    return edit


ALL = set(range(SLICES))


GEOMETRY_AND_RESCALE = {
    "PlaneOrientationSequence": ["ImageOrientationPatient"],
    "PixelMeasuresSequence": ["PixelSpacing", "SliceThickness"],
    "PixelValueTransformationSequence": ["RescaleSlope", "RescaleIntercept", "RescaleType"],
}


def series(edit: Edit = nothing, numbers: Sequence[int] = range(SLICES)) -> list[Dataset]:
    """The images of a series, in memory."""
    images = []
    for number in numbers:
        images.append(make_image(number))
        edit(number, images[-1])
    return images


def group(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def enhanced(images: Sequence[Dataset], *, shared: bool = True) -> Dataset:
    """The images as the frames of one enhanced file.

    Args:
        images: of one series.
        shared: say once what all have in common, as the first one has it; else for each frame.
    """
    made = make_image(0)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    made.NumberOfFrames = len(images)
    made.PixelData = b"".join(image.PixelData for image in images)
    for name in (
        "ImagePositionPatient",
        *(n for names in GEOMETRY_AND_RESCALE.values() for n in names),
    ):
        delattr(made, name)
    made.PerFrameFunctionalGroupsSequence = [_own_groups(image, shared) for image in images]
    made.SharedFunctionalGroupsSequence = [_common_groups(images[0])] if shared else []
    return made


def _own_groups(image: Dataset, shared: bool) -> Dataset:
    groups = Dataset() if shared else _common_groups(image)
    groups.PlanePositionSequence = [group(ImagePositionPatient=image.ImagePositionPatient)]
    content = {"FrameAcquisitionNumber": "AcquisitionNumber", "StackID": "StackID"}
    known = {name: image[plain].value for name, plain in content.items() if plain in image}
    groups.FrameContentSequence = [group(**known)]
    groups.CTImageFrameTypeSequence = [group(FrameType=image.ImageType)]
    return groups


def _common_groups(image: Dataset) -> Dataset:
    return group(
        **{
            name: [group(**{n: image[n].value for n in names if n in image})]
            for name, names in GEOMETRY_AND_RESCALE.items()
        }
    )


def save_one(path: Path, image: Dataset) -> Path:
    image.save_as(path, enforce_file_format=True)
    return path


def compressed(image: Dataset, syntax: str, *frames: bytes) -> Dataset:
    """The image with its pixels as these compressed frames."""
    image.file_meta.TransferSyntaxUID = syntax
    image.PixelData = encapsulate(list(frames))
    image["PixelData"].VR = "OB"
    return image


def second_series(folder: Path) -> None:
    save(folder, put(ALL, SeriesInstanceUID=generate_uid()), name="B{}")


def tilted(number: int, image: Dataset) -> None:
    image.ImagePositionPatient = [-100.0, -90.0 + number * 0.67, 50 + number * STEP_MM]


def uneven(number: int, image: Dataset) -> None:
    step = number * 2.5 if number < 6 else 12.5 + (number - 5) * 3.6
    image.ImagePositionPatient = [-100, -90, 50 + step]
