"""The list of inputs, row by row: what has no test of its own elsewhere, and that all have one."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import ct, image

from cfseg.errors import InputError
from cfseg.io import read_scan, scan_from_image

NIFTI = [f"N{number:02d}" for number in range(1, 31)]
DICOM = [f"D{number:02d}" for number in range(1, 16)]
ELSEWHERE = {
    "N07": "tests/io/test_orientation.py",
    "D07": "tests/io/test_dicom_series.py",
}
"""Rows that a whole file is about, or a test without the number in its name."""


@pytest.mark.parametrize("row", NIFTI + DICOM)
def test_every_row_of_the_list_has_a_test(row):
    root = Path(__file__).parents[1]
    if row in ELSEWHERE:
        assert (root.parent / ELSEWHERE[row]).is_file()
        return
    text = "\n".join(path.read_text(encoding="utf-8") for path in root.rglob("test_*.py"))
    assert re.search(rf'"{row}|test_\w*{row.lower()}_', text), f"{row} has no test"


@pytest.mark.parametrize(
    ("row", "content", "says"),
    [
        ("D15-zip", b"PK\x03\x04" + bytes(600), "ZIP archive; unpack it"),
    ],
)
def test_other_formats_are_named(tmp_path, row, content, says):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_scan(path)
    assert caught.value.code == "E_FORMAT"


def test_n10_a_signal_of_true_and_false_is_no_ct(tmp_path):
    with pytest.raises(InputError):
        scan_from_image(nib.Nifti1Image((ct() > 0).astype(np.uint8), image().affine))


def test_d14_a_header_that_counts_more_images_is_noted(tmp_path):
    pytest.importorskip("pydicom")
    from small_series import ALL, SLICES, put, save

    whole = save(tmp_path / "whole", put(ALL, ImagesInAcquisition=str(SLICES)))
    assert not [note for note in read_scan(whole).notes if "images" in note]
    cut = save(
        tmp_path / "cut", put(ALL, ImagesInAcquisition=str(SLICES)), numbers=range(SLICES - 1)
    )
    assert "slices_announced: 11 of 12 images of the acquisition are here" in read_scan(cut).notes


@pytest.mark.parametrize("syntax", ["DeflatedExplicitVRLittleEndian", "RLELossless"])
def test_d10_other_ways_to_store_the_same_pixels(tmp_path, syntax):
    pytest.importorskip("pydicom")
    import pydicom
    from small_series import SLICES, hu_stack, make_image

    (tmp_path / "s").mkdir()
    for number in range(SLICES):
        made = make_image(number)
        uid = getattr(pydicom.uid, syntax)
        if syntax == "RLELossless":
            made.compress(uid, generate_instance_uid=False)
        else:
            made.file_meta.TransferSyntaxUID = uid
        made.save_as(tmp_path / "s" / f"{number}", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "s").volume.hu, hu_stack())
