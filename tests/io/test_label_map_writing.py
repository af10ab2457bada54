"""A label map appears whole, checked and on the input's grid, or it does not appear."""

import errno
import os
import stat
import xml.etree.ElementTree as ET
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import SHAPE, ct, image, labels
from test_nifti_refusals import PIXDIM, QFORM_CODE, SFORM_CODE, patched, plain

from cfseg.errors import ResourceError, UsageError
from cfseg.io import (
    ReadingOptions,
    label_image,
    read_label_map,
    read_scan,
    scan_from_image,
    write,
    write_label_map,
)
from cfseg.labels import LABELS
from cfseg.volume import LabelMap


@pytest.fixture
def scan():
    return scan_from_image(image())


@pytest.fixture
def label_map(scan):
    return LabelMap(scan.source.to_canonical(labels()), scan.volume.geometry)


@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (1, 1), (4, 2)], ids=str)
def test_affine_codes_and_zooms_are_those_of_the_input(ct_file, tmp_path: Path, codes):
    made = image()
    angle = np.eye(4)
    angle[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    affine = angle @ made.affine
    made.set_sform(affine, codes[1])
    made.set_qform(affine, codes[0])
    path, out = tmp_path / "c_0000.nii.gz", tmp_path / "c.nii.gz"
    nib.save(made, path)
    scan = read_scan(path)
    write_label_map(out, LabelMap.empty(scan.volume.geometry), scan.source)
    given, written = nib.load(path).header, nib.load(out).header
    for field in ("qform_code", "sform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b"):
        np.testing.assert_array_equal(written[field], given[field], err_msg=field)
    assert written.get_data_dtype() == np.uint8
    assert written.get_data_shape() == SHAPE
    np.testing.assert_array_equal(nib.load(out).affine, nib.load(path).affine)


@pytest.mark.parametrize(("codes", "written"), [((-1, -9), (0, 0)), ((99, 7), (2, 2))], ids=str)
def test_codes_that_nobody_knows_cost_no_orientation(tmp_path: Path, caplog, codes, written):
    """nibabel sets them to 0, and then what the file says of its axes is another thing."""
    content = patched(plain(), (QFORM_CODE, "h", codes[0]), (SFORM_CODE, "h", codes[1]))
    (tmp_path / "a.nii").write_bytes(content)
    scan = read_scan(tmp_path / "a.nii", options=ReadingOptions(assume_orientation="LAS"))
    write_label_map(tmp_path / "o.nii", LabelMap.empty(scan.volume.geometry), scan.source)
    header = nib.load(tmp_path / "o.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == written
    assert caplog.messages == []


def test_a_voxel_size_with_a_sign_is_written_without_it(tmp_path: Path, caplog):
    (tmp_path / "a.nii").write_bytes(patched(plain(), (PIXDIM + 4, "f", -2)))
    scan = read_scan(tmp_path / "a.nii")
    write_label_map(tmp_path / "o.nii", LabelMap.empty(scan.volume.geometry), scan.source)
    assert nib.load(tmp_path / "o.nii").header["pixdim"][1] == 2
    assert caplog.messages == []


def test_voxels_and_label_names_are_there(tmp_path: Path, scan, label_map):
    out = tmp_path / "new" / "c.nii.gz"
    write_label_map(out, label_map, scan.source)
    written = nib.load(out)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels())
    (extension,) = written.header.extensions
    assert extension.get_code() == 0
    rows = ET.fromstring(extension.get_content().rstrip(b"\0 ")).iter("Label")  # noqa: S314
    assert {int(row.get("Key")): row.text for row in rows} == {x.id: x.name for x in LABELS}


def test_an_old_extension_and_scaling_do_not_leak(ct_file, tmp_path: Path):
    made = image(ct().astype(np.float32) + 0.25)
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"secret"))
    made.header["cal_max"] = 300
    made.header["descrip"] = b"a name"
    scan = scan_from_image(made)
    written = label_image(LabelMap.empty(scan.volume.geometry), scan.source)
    assert b"secret" not in written.to_bytes()
    assert b"a name" not in written.to_bytes()
    assert written.header["cal_max"] == 0


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_s10_of_the_scan_s_header_the_geometry_alone_is_taken_over(kind):
    """Every field of the scan's header is filled; a label map's differs from a blank in none."""
    made = kind(ct(), image().affine)
    made.set_qform(made.affine, code=1)
    geometry = ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "magic", "datatype")
    geometry += ("bitpix", "vox_offset", "sizeof_hdr", "scl_slope", "scl_inter")
    for field in made.header:
        if field in geometry or field.startswith(("quatern", "qoffset", "srow")):
            continue
        text = made.header[field].dtype.kind == "S"
        made.header[field] = b"Doe" if text else 3
    made.header["pixdim"][4:] = 7
    source = scan_from_image(made).source
    written = label_image(LabelMap.empty(source.geometry), source)
    assert b"Doe" not in written.to_bytes()
    blank = kind(np.zeros(SHAPE, np.uint8), made.affine, None)
    blank.header["descrip"] = b"cfseg label map"
    blank.set_sform(made.affine, int(made.header["sform_code"]))
    blank.set_qform(made.affine, code=1)
    for field in blank.header:
        if field not in ("xyzt_units", "scl_slope", "scl_inter"):
            np.testing.assert_array_equal(written.header[field], blank.header[field], err_msg=field)


def test_nifti2_stays_nifti2(tmp_path: Path):
    nib.save(nib.Nifti2Image(ct(), image().affine), tmp_path / "a_0000.nii")
    scan = read_scan(tmp_path / "a_0000.nii")
    write_label_map(tmp_path / "a.nii", LabelMap.empty(scan.volume.geometry), scan.source)
    assert isinstance(nib.load(tmp_path / "a.nii"), nib.Nifti2Image)


def test_the_same_label_map_gives_the_same_bytes(tmp_path: Path, scan, label_map):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label_map(tmp_path / name, label_map, scan.source)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_the_usual_permissions_apply(tmp_path: Path, scan, label_map):
    before = os.umask(0o027)
    try:
        write_label_map(tmp_path / "a.nii.gz", label_map, scan.source)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.nii.gz").stat().st_mode) == 0o640


def test_another_suffix_is_refused(tmp_path: Path, scan, label_map):
    with pytest.raises(UsageError, match=r"one of nii\.gz"):
        write_label_map(tmp_path / "a.mhd", label_map, scan.source)


def test_a_label_map_of_another_grid_is_refused(tmp_path: Path, scan):
    other = scan_from_image(image(ct((10, 11, 12)))).volume.geometry
    with pytest.raises(ValueError, match="shape"):
        write_label_map(tmp_path / "a.nii.gz", LabelMap.empty(other), scan.source)
    assert list(tmp_path.iterdir()) == []


def save_shifted(made: nib.Nifti1Image, path: Path) -> None:
    moved = made.affine.copy()
    moved[0, 3] += 1
    nib.save(nib.Nifti1Image(made.dataobj, moved), path)


def save_other_voxels(made: nib.Nifti1Image, path: Path) -> None:
    data = np.array(made.dataobj)
    data[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(data, made.affine, made.header), path)


def save_other_shape(made: nib.Nifti1Image, path: Path) -> None:
    nib.save(nib.Nifti1Image(np.asarray(made.dataobj)[:-1], made.affine), path)


def save_truncated(made: nib.Nifti1Image, path: Path) -> None:
    nib.save(made, path)
    path.write_bytes(path.read_bytes()[:-200])


def save_empty(made: nib.Nifti1Image, path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    "bug", [save_shifted, save_other_voxels, save_other_shape, save_truncated, save_empty]
)
def test_r06_a_writer_bug_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, scan, label_map, monkeypatch, bug
):
    out = tmp_path / "a.nii.gz"
    out.write_bytes(b"the old one")
    monkeypatch.setattr(write, "_save", bug)
    with pytest.raises(ResourceError) as caught:
        write_label_map(out, label_map, scan.source)
    assert caught.value.code == "E_WRITE"
    assert out.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "full"), (errno.EACCES, "permission"), (errno.EIO, "rror")]
)
def test_r05_a_full_disk_leaves_nothing(tmp_path: Path, scan, label_map, monkeypatch, number, says):
    def fail(made: nib.Nifti1Image, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(write, "_save", fail)
    with pytest.raises(ResourceError, match=says) as caught:
        write_label_map(tmp_path / "a.nii.gz", label_map, scan.source)
    assert caught.value.code == "E_DISK"
    assert list(tmp_path.iterdir()) == []


def test_r05_a_file_where_the_folder_should_be(tmp_path: Path, scan, label_map):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResourceError) as caught:
        write_label_map(tmp_path / "out" / "a.nii.gz", label_map, scan.source)
    assert caught.value.code == "E_DISK"


def test_nothing_has_the_final_name_before_it_was_checked(
    tmp_path: Path, scan, label_map, monkeypatch
):
    out, seen = tmp_path / "a.nii.gz", []
    verify = write._verify

    def watch(path: Path, *rest: object) -> None:
        seen.append((path.name.startswith(".tmp-"), path.parent == tmp_path, out.exists()))
        verify(path, *rest)

    monkeypatch.setattr(write, "_verify", watch)
    write_label_map(out, label_map, scan.source)
    assert seen == [(True, True, False)]
    np.testing.assert_array_equal(read_label_map(out)[0].ids, label_map.ids)
