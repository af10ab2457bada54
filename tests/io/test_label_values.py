"""Label maps that were stored with a slope, and refusals whose advice fits a label map."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import image, labels
from test_nifti_refusals import (
    QFORM_CODE,
    SFORM_CODE,
    UNITS,
    patched,
    plain,
    sheared,
    spaced,
    with_nan,
)

from cfseg.errors import InputError
from cfseg.io import ReadingOptions, read_label_map


def saved(tmp_path: Path, values: np.ndarray, dtype: type) -> Path:
    """What nibabel makes of labels that were loaded as floats: integers with a slope."""
    path = tmp_path / "labels.nii.gz"
    made = nib.Nifti1Image(values.astype(np.float64), image().affine)
    made.set_data_dtype(dtype)
    nib.save(made, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_labels_in_16_bits_with_a_slope_are_rounded_and_noted(tmp_path: Path, dtype):
    path = saved(tmp_path, labels(), dtype)
    slope = float(nib.load(path).dataobj.slope)
    assert 0 < slope < 1e-3
    read, source = read_label_map(path)
    np.testing.assert_array_equal(source.to_stored(read.ids), labels())
    (note,) = source.notes
    assert note.startswith("labels_rounded: ")
    assert f"slope {slope:g}" in note


def test_a_slope_that_is_too_coarse_is_refused_and_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"slope 0\.0549.*, intercept 0.*too coarse") as caught:
        read_label_map(saved(tmp_path, labels(), np.uint8))
    assert caught.value.code == "E_NOT_LABELS"


def test_interpolated_labels_are_refused(tmp_path: Path):
    between = labels().astype(np.float32)
    between[3, 4, 5] = 1.4
    with pytest.raises(InputError, match=r"1 values are up to 0\.4 off .*interpolated") as caught:
        read_label_map(saved(tmp_path, between, np.float32))
    assert caught.value.code == "E_NOT_LABELS"


def test_whole_numbers_give_no_note(ct_file):
    for values in (labels(), labels().astype(np.float32)):
        assert read_label_map(ct_file(values))[1].notes == ()


def test_notes_of_reading_come_with_the_grid(tmp_path: Path):
    path = tmp_path / "l.nii.gz"
    path.write_bytes(plain(labels()[..., None]))
    notes = read_label_map(path)[1].notes
    assert [note.split(":")[0] for note in notes] == ["name_mismatch", "squeezed"]


NO_FORM = ((SFORM_CODE, "h", 0), (QFORM_CODE, "h", 0))
REFUSED = {
    "N05": (patched(plain(labels()), *NO_FORM), "E_ORIENTATION"),
    "N04-meter": (patched(plain(labels()), (UNITS, "B", 1)), "E_SPACING"),
    "N09": (plain(np.stack([labels()] * 2, axis=-1)), "E_NDIM"),
    "N15": (plain(with_nan()), "E_NONFINITE"),
    "N02": (plain(labels(), sheared(0.7)), "E_GEOMETRY"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_no_refusal_of_a_label_map_names_an_option_of_scans(tmp_path: Path, row: str):
    """Commands that read label maps alone have none of these options."""
    content, code = REFUSED[row]
    path = tmp_path / "l.nii"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_label_map(path)
    assert caught.value.code == code
    assert "--" not in caught.value.message
    assert path.name in caught.value.message


def test_n15_nan_is_no_label_even_where_a_scan_s_is_air(tmp_path: Path):
    path = tmp_path / "l.nii"
    path.write_bytes(REFUSED["N15"][0])
    with pytest.raises(InputError, match="save the label map again") as caught:
        read_label_map(path, ReadingOptions(nonfinite="air"))
    assert caught.value.code == "E_NONFINITE"


def test_a_label_map_may_lie_on_a_grid_that_no_ct_has(tmp_path: Path):
    """Its spacing and slices are its scan's, which was read or refused before."""
    path = tmp_path / "l.nii"
    path.write_bytes(plain(labels((12, 12, 1)), spaced(2, 2, 25)))
    assert read_label_map(path)[0].ids.shape == (1, 12, 12)
