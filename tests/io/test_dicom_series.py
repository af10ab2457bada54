"""DICOM series made with pydicom: what is read is right, what is wrong is refused by its code."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import ct

from cfseg.errors import InputError, UsageError
from cfseg.io import (
    ReadingOptions,
    read_label_map,
    read_scan,
    scan_from_image,
    to_source_array,
    write_label_map,
)
from cfseg.volume import LabelMap

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    generate_uid,
)

REAL = Path(__file__).parents[3] / "shared" / "real-ct"
ROWS, COLUMNS, SLICES = 20, 24, 12
PIXEL_MM, STEP_MM = (0.9, 0.6), 2.5
SERIES = generate_uid(entropy_srcs=["series"])
Edit = Callable[[int, Dataset], None]

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
UPSIDE_DOWN = (-1, 0, 0, 0, 1, 0)
OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0)
ORIENTATIONS = [AXIAL, CORONAL, SAGITTAL, UPSIDE_DOWN, OBLIQUE]


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


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_a_good_series_agrees_with_simpleitk(tmp_path: Path, orientation):
    sitk = pytest.importorskip("SimpleITK")
    folder = save(tmp_path / "s", orientation=orientation)
    scan = read_scan(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    values = sitk.GetArrayFromImage(image)
    for index in np.ndindex(2, 2, 2):
        corner = [int(i * (n - 1)) for i, n in zip(index, values.shape, strict=True)]
        x, y, z = image.TransformIndexToPhysicalPoint([int(i) for i in reversed(corner)])
        there = np.linalg.inv(scan.volume.geometry.affine) @ [z, y, x, 1]
        voxel = np.rint(there[:3]).astype(int)
        np.testing.assert_allclose(there[:3], voxel, atol=1e-4)
        assert scan.volume.hu[tuple(voxel)] == values[tuple(corner)]
    assert np.sort(values.ravel()).tolist() == np.sort(scan.volume.hu.ravel()).tolist()


def test_the_stored_axes_are_column_row_slice(tmp_path: Path):
    scan = read_scan(save(tmp_path / "PAT 1"))
    assert scan.case == "PAT_1"
    assert scan.source.shape == (COLUMNS, ROWS, SLICES)
    assert scan.volume.hu.dtype == np.int16
    np.testing.assert_array_equal(scan.volume.hu, hu_stack())
    assert scan.volume.geometry.spacing_mm == pytest.approx((STEP_MM, *PIXEL_MM))
    np.testing.assert_allclose(scan.volume.geometry.affine[:3, 3], (50, -90, -100))


def test_a_label_map_is_written_in_the_series_geometry(tmp_path: Path):
    scan = read_scan(save(tmp_path / "s", orientation=OBLIQUE))
    ids = (scan.volume.hu > 0).astype(np.uint8)
    label_map = LabelMap(ids, scan.volume.geometry)
    write_label_map(tmp_path / "s.nii.gz", label_map, scan.source)
    again, source = read_label_map(tmp_path / "s.nii.gz")
    assert again.geometry.matches(scan.volume.geometry)
    np.testing.assert_array_equal(again.ids, ids)
    assert to_source_array(label_map, scan.source).shape == (COLUMNS, ROWS, SLICES)
    assert (int(source.header["qform_code"]), int(source.header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(source.header.get_qform(), source.affine, atol=1e-4)


def test_file_names_and_order_do_not_matter(tmp_path: Path):
    one = read_scan(save(tmp_path / "a"))
    two = read_scan(save(tmp_path / "b", numbers=list(reversed(range(SLICES))), name="z{}.dcm"))
    np.testing.assert_array_equal(one.volume.hu, two.volume.hu)
    assert one.sha256 == two.sha256


def second_series(folder: Path) -> None:
    save(folder, put(ALL, SeriesInstanceUID=generate_uid()), name="B{}")


def truncate(folder: Path) -> None:
    path = folder / "IM21"
    path.write_bytes(path.read_bytes()[:-300])


def cut_early(folder: Path) -> None:
    path = folder / "IM21"
    path.write_bytes(path.read_bytes()[:140])


def other_pixels_twice(folder: Path) -> None:
    save(folder, put({3}, PixelData=bytes(ROWS * COLUMNS * 2)), numbers=[3], name="twice{}")


def leave(folder: Path) -> None:
    return


def tilted(number: int, image: Dataset) -> None:
    image.ImagePositionPatient = [-100.0, -90.0 + number * 0.67, 50 + number * STEP_MM]


def leaning(number: int, image: Dataset) -> None:
    image.ImagePositionPatient = [-100.0, -90.0 + 0.1 * number**2, 50 + number * STEP_MM]


def uneven(number: int, image: Dataset) -> None:
    step = number * 2.5 if number < 6 else 12.5 + (number - 5) * 3.6
    image.ImagePositionPatient = [-100, -90, 50 + step]


def jpeg_ls(number: int, image: Dataset) -> None:
    from pydicom.encaps import encapsulate

    image.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    image["PixelData"].VR = "OB"
    image.file_meta.TransferSyntaxUID = JPEGLSLossless


BROKEN: list[tuple[str, Edit, list[int], Callable[[Path], None], str, str]] = [
    (
        "D01",
        nothing,
        [i for i in ALL if i not in (4, 5)],
        leave,
        "E_MISSING_SLICES",
        "60.0, 62.5.*--allow-gaps",
    ),
    ("D02", nothing, sorted(ALL), other_pixels_twice, "E_DUPLICATE_SLICES", "twice"),
    ("D03", nothing, sorted(ALL), second_series, "E_MULTI_SERIES", "2 CT series.*--all-series"),
    ("D05", leaning, sorted(ALL), leave, "E_GEOMETRY", "beside the others"),
    ("D06", uneven, sorted(ALL), leave, "E_SPACING_IRREGULAR", "2.50 to 3.60.*--allow-gaps"),
    (
        "D08-none",
        put(ALL, RescaleSlope=None),
        sorted(ALL),
        leave,
        "E_NOT_HU",
        "RescaleSlope.*--hu-offset",
    ),
    ("D08-one", put({5}, RescaleIntercept=None), sorted(ALL), leave, "E_NOT_HU", "IM35"),
    ("D08-unit", put(ALL, RescaleType="OD"), sorted(ALL), leave, "E_NOT_HU", "OD"),
    ("D08-raw", put(ALL, RescaleIntercept="0"), sorted(ALL), leave, "E_NOT_HU", "intercept"),
    ("D10", jpeg_ls, sorted(ALL), leave, "E_DECODER", "JPEG-LS"),
    ("D10-frames", put(ALL, NumberOfFrames=2), sorted(ALL), leave, "E_FORMAT", "multi-frame"),
    (
        "D12-position",
        put({2}, ImagePositionPatient=None),
        sorted(ALL),
        leave,
        "E_GEOMETRY",
        "ImagePositionPatient",
    ),
    (
        "D12-empty",
        put({2}, ImageOrientationPatient=""),
        sorted(ALL),
        leave,
        "E_GEOMETRY",
        "ImageOrientationPatient",
    ),
    ("D13", nothing, sorted(ALL), truncate, "E_CORRUPT", "IM21"),
    ("D13-early", nothing, sorted(ALL), cut_early, "E_CORRUPT", "IM21"),
    ("N26", put(ALL, Modality="MR"), sorted(ALL), leave, "E_MODALITY", "MR.*--force-modality"),
    (
        "matrix",
        put({4}, Rows=10, PixelData=bytes(10 * COLUMNS * 2)),
        sorted(ALL),
        leave,
        "E_GEOMETRY",
        "24 x 10",
    ),
    ("one", nothing, [0], leave, "E_TOO_FEW_SLICES", "1 slice"),
]


@pytest.mark.parametrize(
    ("edit", "numbers", "after", "code", "says"),
    [row[1:] for row in BROKEN],
    ids=[row[0] for row in BROKEN],
)
def test_refused(tmp_path: Path, monkeypatch, edit, numbers, after, code, says):
    if code == "E_DECODER":  # whatever the machine can decode
        from cfseg.io import dicom_pixels

        monkeypatch.setattr(
            dicom_pixels, "get_decoder", lambda _: type("No", (), {"is_available": False})
        )
    folder = save(tmp_path / "s", edit, numbers=numbers)
    after(folder)
    with pytest.raises(InputError) as caught:
        read_scan(folder)
    assert caught.value.code == code
    assert re.search(says, caught.value.message), caught.value.message


def test_a_broken_compressed_file_is_corrupt(tmp_path: Path):
    from pydicom.pixels import get_decoder

    if not get_decoder(JPEGLSLossless).is_available:
        pytest.skip("no JPEG-LS decoder installed")
    with pytest.raises(InputError) as caught:
        read_scan(save(tmp_path / "s", jpeg_ls))
    assert caught.value.code == "E_CORRUPT"


def test_d02_an_identical_copy_is_dropped(tmp_path: Path):
    folder = save(tmp_path / "s")
    (folder / "copy").write_bytes((folder / "IM21").read_bytes())
    scan = read_scan(folder)
    assert scan.volume.hu.shape == (SLICES, ROWS, COLUMNS)
    assert any(note.startswith("duplicates_dropped: 1") for note in scan.notes)


def test_d04_what_is_no_part_of_the_volume_is_skipped_and_noted(tmp_path: Path):
    folder = save(tmp_path / "s")
    (folder / "DICOMDIR.txt").write_text("index")
    save(folder, put({0}, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), numbers=[0], name="loc")
    save(folder, put({1}, Modality="OT", SeriesInstanceUID="1.2.3"), numbers=[1], name="capture")
    save(folder, numbers=[0], orientation=CORONAL, name="scout")
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.volume.hu, hu_stack())
    notes = " | ".join(scan.notes)
    for says in ("files_skipped: 1", "modality_skipped: 1", "localizer_skipped: 1 files are"):
        assert says in notes
    assert "1 slices of another orientation: scout" in notes


def test_d06_small_jitter_is_accepted(tmp_path: Path):
    def jitter(number: int, image: Dataset) -> None:
        image.ImagePositionPatient = [-100, -90, 50 + number * STEP_MM + 0.02 * (number % 2)]

    assert read_scan(save(tmp_path / "s", jitter)).volume.geometry.spacing_mm[0] == pytest.approx(
        STEP_MM, abs=0.01
    )


def test_d08_every_slice_has_its_own_rescale(tmp_path: Path):
    def vary(number: int, image: Dataset) -> None:
        slope = 1 + number % 2
        raw = (hu_stack()[number].astype(int) + 1024) * 2 // slope
        image.PixelData = raw.astype("<u2").tobytes()
        image.RescaleSlope, image.RescaleIntercept = f"{slope / 2}", "-1024"

    hu = read_scan(save(tmp_path / "s", vary)).volume.hu
    np.testing.assert_array_equal(hu, hu_stack())


def test_d08_fractions_become_float32(tmp_path: Path):
    scan = read_scan(save(tmp_path / "s", put({7}, RescaleSlope="0.7")))
    assert scan.volume.hu.dtype == np.float32
    np.testing.assert_array_equal(scan.volume.hu[:7], hu_stack()[:7])


def test_d09_padding_becomes_air_and_signed_pixels_are_read(tmp_path: Path):
    def pad(number: int, image: Dataset) -> None:
        raw = hu_stack()[number].astype("<i2")
        raw[0] = -2000
        image.PixelData = raw.tobytes()
        image.PixelRepresentation, image.RescaleIntercept = 1, "0"
        image.BitsStored, image.HighBit = 16, 15
        image.add_new("PixelPaddingValue", "SS", -2000)

    hu = read_scan(save(tmp_path / "s", pad)).volume.hu
    assert (hu[:, 0] == -1024).all()
    np.testing.assert_array_equal(hu[:, 1:], hu_stack()[:, 1:])


def test_d01_missing_slices_are_interpolated_and_noted_if_asked_for(tmp_path: Path):
    folder = save(tmp_path / "s", numbers=[i for i in sorted(ALL) if i not in (4, 5, 9)])
    scan = read_scan(folder, options=ReadingOptions(allow_gaps=True))
    assert "gaps_filled: 3 of 12 slices are interpolated" in scan.notes
    expected = hu_stack().astype(float)
    expected[4] = (2 * expected[3] + expected[6]) / 3
    expected[5] = (expected[3] + 2 * expected[6]) / 3
    expected[9] = (expected[8] + expected[10]) / 2
    assert scan.volume.hu.dtype == np.int16
    np.testing.assert_allclose(scan.volume.hu, expected, atol=0.51)
    assert scan.volume.geometry.spacing_mm[0] == pytest.approx(STEP_MM)


def test_d06_an_even_stack_over_uneven_slices(tmp_path: Path):
    """Slices at 0 2.5 ... 12.5 16.1 ... mm: the median distance is 2.5, or 3.6, or between."""

    def ramp(number: int, image: Dataset) -> None:
        uneven(number, image)
        mm = float(image.ImagePositionPatient[2]) - 50
        plane = np.full((ROWS, COLUMNS), round(10 * mm) - 200 + 1024)
        image.PixelData = plane.astype("<u2").tobytes()

    folder = save(tmp_path / "s", ramp)
    scan = read_scan(folder, options=ReadingOptions(allow_gaps=True))
    step = scan.volume.geometry.spacing_mm[0]
    assert 2.5 <= step <= 3.6
    along = 10 * step * np.arange(len(scan.volume.hu)) - 200
    np.testing.assert_allclose(scan.volume.hu[:, 3, 3], along, atol=10 * 0.1 + 0.6)
    assert any(note.startswith("gaps_filled") for note in scan.notes)


def test_d05_a_tilted_gantry_is_resampled_and_its_labels_come_back(tmp_path: Path):
    folder = save(tmp_path / "s", tilted)
    scan = read_scan(folder)
    assert any(
        note.startswith("affine_sheared: axes off the right angle by 15.0") for note in scan.notes
    )
    assert scan.volume.geometry.spacing_mm == pytest.approx((STEP_MM, *PIXEL_MM))
    assert scan.volume.hu.shape[0] == SLICES
    np.testing.assert_array_equal(scan.volume.hu[0, :ROWS], hu_stack()[0])
    ids = np.ones(scan.volume.hu.shape, np.uint8)
    write_label_map(tmp_path / "s.nii.gz", LabelMap(ids, scan.volume.geometry), scan.source)
    made = nib.load(tmp_path / "s.nii.gz")
    assert made.shape == (COLUMNS, ROWS, SLICES)
    assert (np.asarray(made.dataobj) == 1).all()
    last = made.affine @ [0, 0, SLICES - 1, 1]
    np.testing.assert_allclose(last[:3], (100, 90 - 0.67 * 11, 50 + STEP_MM * 11), atol=1e-4)
    with pytest.raises(InputError, match="--strict-geometry"):
        read_scan(folder, options=ReadingOptions(strict_geometry=True))


def test_d08_an_intercept_where_there_is_no_rescale(tmp_path: Path):
    gone = put(ALL, RescaleSlope=None, RescaleIntercept=None, RescaleType=None)
    scan = read_scan(save(tmp_path / "s", gone), options=ReadingOptions(hu_offset=-1024))
    np.testing.assert_array_equal(scan.volume.hu, hu_stack())
    assert "hu_offset: -1024 as the intercept of 12 slices without any" in scan.notes
    half = save(tmp_path / "half", put({5}, RescaleIntercept=None))
    with pytest.raises(InputError, match="RescaleIntercept None"):
        read_scan(half, options=ReadingOptions(hu_offset=-1024))


def test_n26_another_modality_if_forced(tmp_path: Path):
    folder = save(tmp_path / "s", put(ALL, Modality="OT"))
    scan = read_scan(folder, options=ReadingOptions(force_modality=True))
    assert "modality_forced: the series says it is OT, not CT" in scan.notes
    np.testing.assert_array_equal(scan.volume.hu, hu_stack())


def test_d11_the_first_pixel_spacing_is_that_between_rows(tmp_path: Path):
    _, y, x = read_scan(save(tmp_path / "s")).volume.geometry.spacing_mm
    assert (y, x) == pytest.approx(PIXEL_MM)


def test_d14_a_missing_last_slice_cannot_be_seen(tmp_path: Path):
    assert len(read_scan(save(tmp_path / "s", numbers=range(SLICES - 1))).volume.hu) == SLICES - 1


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch):
    folder = save(tmp_path / "s")
    for name in ("cfseg.io.dicom", "cfseg.io.dicom_pixels", "cfseg.io.dicom_stack"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError, match=r"cfseg\[dicom\]"):
        read_scan(folder)


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real CT scans are not here")
def test_a_real_series_lies_where_its_label_file_says():
    scan = read_scan(REAL / "ts-slab-dicom" / "dicom")
    label_map, _ = read_label_map(REAL / "ts-slab-dicom" / "label.nii.gz")
    assert label_map.geometry.matches(scan.volume.geometry)
    liver = scan.volume.hu[label_map.ids == 1]
    assert 40 < np.median(liver) < 160


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real CT scans are not here")
@pytest.mark.parametrize("name", ["ts-example/ct.nii.gz", "tcga-ov/ct_2mm.nii.gz"])
def test_real_nifti_scans_are_accepted(name):
    assert read_scan(REAL / name).volume.hu.min() <= -1000


def test_scan_from_image_needs_no_dicom(monkeypatch):
    from small_scans import image

    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert scan_from_image(image()).case == "image"
