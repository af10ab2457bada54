"""What a user may decide where a NIfTI file would be refused: id, input, option, what comes out."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import SHAPE, ct, image
from test_nifti_refusals import (
    PIXDIM,
    QFORM_CODE,
    SFORM_CODE,
    UNITS,
    patched,
    plain,
    sheared,
    spaced,
    with_nan,
)

from cfseg.errors import InputError, UsageError
from cfseg.io import ReadingOptions, read_label_map, read_scan, scan_from_image, write_label_map
from cfseg.volume import LabelMap

NO_FORM = patched(plain(), (SFORM_CODE, "h", 0), (QFORM_CODE, "h", 0))
LOST = plain((ct() + 1024).clip(0).astype(np.uint16))
TWO = plain(np.stack([ct(), ct(seed=1)], axis=-1))

DECIDED = [
    ("N02", plain(affine=sheared(0.1)), {}, "affine_sheared: axes off the right angle by 5.7"),
    ("N04", plain(affine=spaced(2, 2, 25)), {"force_spacing": True}, "spacing_forced: .* is 25 mm"),
    ("N04-m", patched(plain(), (UNITS, "B", 1)), {"force_spacing": True}, "spacing_forced: taken"),
    ("N05", NO_FORM, {"assume_orientation": "las"}, "orientation_assumed: LAS"),
    ("N09", TWO, {"volume_index": 1}, "volume_index: volume 1 of 2, counted from 0"),
    ("N15", plain(with_nan()), {"nonfinite": "air"}, "nonfinite_as_air: 2 voxels"),
    ("N17", LOST, {"hu_offset": -1024}, "hu_offset: -1024 added"),
]


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "ct_0000.nii"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "options", "note"), [row[1:] for row in DECIDED], ids=[row[0] for row in DECIDED]
)
def test_what_was_decided_is_noted_and_the_output_lies_on_the_input(
    tmp_path: Path, content, options, note
):
    import re

    path = written(tmp_path, content)
    given = ReadingOptions(**options)
    scan = read_scan(path, options=given)
    assert any(re.match(note, found) for found in scan.notes), scan.notes
    ids = (scan.volume.hu > 0).astype(np.uint8)
    out = tmp_path / "out.nii.gz"
    write_label_map(out, LabelMap(ids, scan.volume.geometry), scan.source)
    made, source = nib.load(out), nib.load(path)
    assert made.shape == SHAPE
    for field in ("sform_code", "qform_code", "xyzt_units"):
        assert int(made.header[field]) == int(source.header[field])
    np.testing.assert_array_equal(made.header.get_sform(), source.header.get_sform())
    again, _ = read_label_map(out, given)
    assert again.geometry.matches(scan.volume.geometry)


def test_options_change_nothing_where_none_is_needed(tmp_path: Path):
    path = written(tmp_path, plain())
    options = ReadingOptions(
        assume_orientation="RPI", force_spacing=True, volume_index=0, nonfinite="air",
        hu_offset=-1024, allow_gaps=True, all_series=True, force_modality=True,
        strict_geometry=True,
    )  # fmt: skip
    one, other = read_scan(path), read_scan(path, options=options)
    assert other.notes == ()
    np.testing.assert_array_equal(one.volume.hu, other.volume.hu)
    np.testing.assert_array_equal(one.volume.geometry.affine, other.volume.geometry.affine)


@pytest.mark.parametrize("letters", ["LAS", "RAS", "LPI", "SAR", "PSL"])
def test_n05_an_assumed_orientation_is_that_of_a_file_that_says_it(tmp_path: Path, letters):
    scan = read_scan(written(tmp_path, NO_FORM), options=ReadingOptions(assume_orientation=letters))
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    axes = nib.orientations.axcodes2ornt(letters)
    for stored, ((axis, sign), mm) in enumerate(zip(axes, (2, 2.5, 3), strict=True)):
        affine[int(axis), stored] = sign * mm
    coded = image(affine=affine)
    expected = scan_from_image(coded).volume
    np.testing.assert_array_equal(scan.volume.hu, expected.hu)
    np.testing.assert_allclose(scan.volume.geometry.affine, expected.geometry.affine)


def test_n02_a_small_file_makes_no_huge_grid(tmp_path: Path):
    affine = spaced(5e-5, 2, 3)
    affine[0, 1] = 0.4
    with pytest.raises(InputError, match="1000 times as large") as caught:
        read_scan(
            written(tmp_path, plain(affine=affine)), options=ReadingOptions(force_spacing=True)
        )
    assert caught.value.code == "E_TOO_LARGE"


@pytest.mark.parametrize("mm", [1e-45, 3e38])
def test_n03_an_assumed_orientation_makes_no_grid_of_any_voxel_size(tmp_path: Path, mm: float):
    path = written(tmp_path, patched(NO_FORM, (PIXDIM + 4, "f", mm)))
    with pytest.raises(InputError) as caught:
        read_scan(path, options=ReadingOptions(assume_orientation="LAS", force_spacing=True))
    assert caught.value.code == "E_GEOMETRY"


def test_n09_the_volume_that_was_asked_for_and_no_other(tmp_path: Path):
    path = written(tmp_path, TWO)
    for index, seed in enumerate((0, 1)):
        options = ReadingOptions(volume_index=index)
        expected = scan_from_image(image(ct(seed=seed))).volume.hu
        np.testing.assert_array_equal(read_scan(path, options=options).volume.hu, expected)
        in_memory = scan_from_image(nib.load(path), options=options)
        np.testing.assert_array_equal(in_memory.volume.hu, expected)
    with pytest.raises(InputError, match=r"no volume 2.*0\.\.1"):
        read_scan(path, options=ReadingOptions(volume_index=2))


def test_n09_the_other_volumes_are_checked_too(tmp_path: Path):
    path = written(tmp_path, TWO[:-100])
    with pytest.raises(InputError, match="truncated") as caught:
        read_scan(path, options=ReadingOptions(volume_index=0))
    assert caught.value.code == "E_CORRUPT"


def test_n15_only_what_is_not_finite_becomes_air():
    options = ReadingOptions(nonfinite="air")
    hu = scan_from_image(image(with_nan()), options=options).volume.hu
    expected = scan_from_image(image()).volume.hu.astype(np.float32)
    changed = np.argwhere(hu != expected)
    assert len(changed) == 2
    assert {float(hu[tuple(index)]) for index in changed} == {-1024.0}


def test_n15_the_image_of_a_caller_stays_as_it_is():
    given = image(with_nan())
    scan_from_image(given, options=ReadingOptions(nonfinite="air"))
    assert np.isnan(np.asarray(given.dataobj)).sum() == 1


def test_n17_the_offset_gives_hounsfield_units(tmp_path: Path):
    scan = read_scan(written(tmp_path, LOST), options=ReadingOptions(hu_offset=-1024))
    np.testing.assert_array_equal(scan.volume.hu, scan_from_image(image()).volume.hu)
    assert scan.volume.hu.dtype == np.int16


def test_n17_an_offset_that_does_not_help_is_refused(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        read_scan(written(tmp_path, LOST), options=ReadingOptions(hu_offset=3))
    assert caught.value.code == "E_NOT_HU"


def test_n02_strict_geometry_refuses_what_would_be_resampled(tmp_path: Path):
    path = written(tmp_path, plain(affine=sheared(0.1)))
    with pytest.raises(InputError, match=r"5\.71 degrees.*--strict-geometry") as caught:
        read_scan(path, options=ReadingOptions(strict_geometry=True))
    assert caught.value.code == "E_GEOMETRY"


@pytest.mark.parametrize("letters", ["LA", "LAX", "LRS", "LASS", ""])
def test_an_orientation_that_is_none(letters):
    with pytest.raises(UsageError, match="one letter of each"):
        ReadingOptions(assume_orientation=letters)


def test_other_values_that_cannot_be():
    with pytest.raises(UsageError, match="refuse or air"):
        ReadingOptions(nonfinite="zero")
    with pytest.raises(UsageError, match="counted from 0"):
        ReadingOptions(volume_index=-1)


def test_what_was_given():
    assert ReadingOptions().given() == {}
    assert ReadingOptions(hu_offset=-1024, allow_gaps=True).given() == {
        "hu_offset": -1024, "allow_gaps": True,
    }  # fmt: skip
