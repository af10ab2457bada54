"""Enhanced multi-frame CT: the frames of a file are read as the images of a series are."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from pydicom.dataset import Dataset
from small_series import (
    CORONAL,
    PIXEL_MM,
    SLICES,
    STEP_MM,
    enhanced,
    hu_stack,
    make_image,
    put,
    save,
    save_one,
    series,
)

from cfseg.errors import InputError
from cfseg.io.dicom import count_acquisitions, read_series
from cfseg.io.nifti import StoredImage
from cfseg.io.options import ReadingOptions


def hu_of(stored: StoredImage) -> np.ndarray:
    """(slice, row, column)."""
    return stored.values.transpose(2, 1, 0)


@pytest.mark.parametrize("shared", [True, False])
def test_d10_frames_in_any_order(tmp_path: Path, shared):
    images = series()
    np.random.default_rng(0).shuffle(images)
    path = save_one(tmp_path / "e", enhanced(images, shared=shared))
    stored = read_series([path])
    np.testing.assert_array_equal(hu_of(stored), hu_stack())
    single = read_series(sorted(save(tmp_path / "s").iterdir()))
    np.testing.assert_allclose(stored.source.affine, single.source.affine)
    assert stored.notes == single.notes


def test_each_frame_has_its_own_rescale_and_padding(tmp_path: Path):
    def edit(number: int, image: Dataset) -> None:
        raw = (hu_stack()[number].astype(int) + 1000 + number).clip(0)
        raw[0] = 4000
        image.PixelData = raw.astype("<u2").tobytes()
        image.RescaleIntercept = str(-1000 - number)

    made = enhanced(series(edit), shared=False)
    made.add_new("PixelPaddingValue", "US", 4000)
    hu = hu_of(read_series([save_one(tmp_path / "e", made)]))
    expected = np.maximum(hu_stack(), -1000 - np.arange(SLICES)[:, None, None])
    np.testing.assert_array_equal(hu[:, 1:], expected[:, 1:])
    assert (hu[:, 0] == -1024).all()


def test_one_volume_over_several_files(tmp_path: Path):
    images = series()
    files = [
        save_one(tmp_path / f"part{n}", enhanced(images[n::2][: 99 if n else 4])) for n in (0, 1)
    ]
    files += [save_one(tmp_path / "last", enhanced(images[0::2][4:]))]
    np.testing.assert_array_equal(hu_of(read_series(files)), hu_stack())


def test_several_volumes_in_one_file(tmp_path: Path):
    phases = [
        put(set(range(SLICES)), AcquisitionNumber=n, RescaleIntercept=str(-1024 + n))
        for n in (1, 2)
    ]
    images = [image for phase in phases for image in series(phase)]
    path = save_one(tmp_path / "e", enhanced(images[::-1], shared=False))
    assert count_acquisitions([path]) == 1  # the same pixels twice are a copy
    for image in images[SLICES:]:
        image.PixelData = bytes(2) + image.PixelData[2:]
    path = save_one(tmp_path / "e", enhanced(images[::-1], shared=False))
    assert count_acquisitions([path]) == 2
    for number in (1, 2):
        stored = read_series([path], acquisition=number)
        np.testing.assert_array_equal(hu_of(stored)[:, 1:], hu_stack()[:, 1:] + number)
        assert f"acquisition: {number} of 2" in stored.notes
    assert read_series([path], acquisition=1).sha256 != stored.sha256


@pytest.mark.parametrize(("apart_mm", "count"), [(200.0, 2), (0.0, 1)])
def test_stacks_are_volumes_of_their_own_unless_they_make_one(tmp_path: Path, apart_mm, count):
    images = series()
    for number, image in enumerate(images):
        image.add_new("StackID", "SH", "1" if number < 6 else "2")
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, z + (apart_mm if number >= 6 else 0)]
    path = save_one(tmp_path / "e", enhanced(images))
    assert count_acquisitions([path]) == count
    if count == 2:
        np.testing.assert_array_equal(hu_of(read_series([path], acquisition=2)), hu_stack()[6:])


def test_frames_that_are_localizers_are_skipped_and_noted(tmp_path: Path):
    scout = make_image(3, CORONAL)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    stored = read_series([save_one(tmp_path / "e", enhanced([scout, *series()], shared=False))])
    np.testing.assert_array_equal(hu_of(stored), hu_stack())
    assert stored.notes[0] == "localizer_skipped: 1 frames are localizers: e (frame 1)"


def broken(edit):
    def build(folder: Path) -> list[Path]:
        made = enhanced(series())
        edit(made)
        return [save_one(folder / "e", made)]

    return build


def one_group_less(made: Dataset) -> None:
    made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence[1:]


def no_positions(made: Dataset) -> None:
    for item in made.PerFrameFunctionalGroupsSequence:
        del item.PlanePositionSequence


def text_for_a_group(made: Dataset) -> None:
    made.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient = [0, 0]


def no_rescale(made: Dataset) -> None:
    del made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence


def coronal_half(made: Dataset) -> None:
    for item in made.PerFrameFunctionalGroupsSequence[:5]:
        orientation = Dataset()
        orientation.ImageOrientationPatient = list(CORONAL)
        item.PlaneOrientationSequence = [orientation]


def all_localizers(made: Dataset) -> None:
    for item in made.PerFrameFunctionalGroupsSequence:
        item.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (one_group_less, "E_CORRUPT", "announces 12 frames and describes 11"),
        (no_positions, "E_GEOMETRY", "ImagePositionPatient is missing"),
        (text_for_a_group, "E_GEOMETRY", r"ImagePositionPatient is 0.0\\0.0, not 3 numbers"),
        (no_rescale, "E_NOT_HU", "RescaleSlope missing.*--hu-offset -1024"),
        (coronal_half, "E_GEOMETRY", "2 different orientations"),
        (all_localizers, "E_FORMAT", "localizers only"),
    ],
)
def test_refused(tmp_path: Path, edit, code, says):
    with pytest.raises(InputError, match=says) as caught:
        read_series(broken(edit)(tmp_path))
    assert caught.value.code == code


def test_a_missing_frame_is_a_missing_slice(tmp_path: Path):
    path = save_one(tmp_path / "e", enhanced([i for n, i in enumerate(series()) if n != 5]))
    with pytest.raises(InputError, match=r"62.5 mm.*--allow-gaps") as caught:
        read_series([path])
    assert caught.value.code == "E_MISSING_SLICES"
    assert read_series([path], ReadingOptions(allow_gaps=True)).values.shape[2] == SLICES


def test_legacy_converted_images(tmp_path: Path):
    legacy = pytest.importorskip("highdicom.legacy")
    images = series()
    for image in images:
        image.PatientName = image.PatientID = image.PatientBirthDate = image.PatientSex = ""
        image.StudyDate = image.StudyTime = image.AccessionNumber = image.StudyID = ""
        image.ReferringPhysicianName = image.PositionReferenceIndicator = ""
        image.Manufacturer, image.AcquisitionDateTime = "", "20200101120000"
        image.AcquisitionNumber = 4
    made = legacy.LegacyConvertedEnhancedCTImage(images[::-1], "1.2.3", 1, "1.2.3.4", 1)
    stored = read_series([save_one(tmp_path / "legacy", made)])
    np.testing.assert_array_equal(hu_of(stored), hu_stack())
    assert stored.source.geometry.spacing_mm == pytest.approx((STEP_MM, *PIXEL_MM))
