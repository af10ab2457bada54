"""What counts as a scan in a folder, and what a case is called."""

from pathlib import Path

import pytest

from cfseg.errors import InputError, UsageError
from cfseg.io import case_id, find_scans, is_scan_name, read_scan

DICOM = bytes(128) + b"DICM" + bytes(20)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("FLARE23_0001_0000.nii.gz", "FLARE23_0001"),
        ("a_0000.nii", "a"),
        ("a.NII.GZ", "a"),
        ("a.nii.gz.gz", "a"),
        ("a_0001.nii.gz", "a_0001"),
        ("a b;c.nii.gz", "a_b_c"),
        ("scan.v2.nii.gz", "scan.v2"),
        ("..nii.gz", "case"),
        ("ü1.nii", "ü1"),
    ],
)
def test_case_of_a_file(name, case):
    assert case_id(Path("folder") / name) == case


def test_case_of_a_folder_is_its_name(tmp_path: Path, monkeypatch):
    folder = tmp_path / "PAT 7_0000.nii"
    folder.mkdir()
    assert case_id(folder) == "PAT_7_0000.nii"
    monkeypatch.chdir(folder)
    assert case_id(Path()) == "PAT_7_0000.nii"


def test_every_entry_of_a_folder_is_a_scan_or_counted(tmp_path: Path):
    for name in ("b_0000.nii.gz", "a.NII", "notes.txt", "list.csv", ".tmp-1-x.nii.gz", "._b.nii"):
        (tmp_path / name).touch()
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "missing")
    for folder in ("series", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "series" / "IM1").write_bytes(DICOM)
    scans, ignored = find_scans([tmp_path])
    assert [path.name for path in scans] == ["a.NII", "b_0000.nii.gz", "gone.nii.gz", "series"]
    assert ignored == 3


def test_a_dicom_folder_is_one_scan(tmp_path: Path):
    for name in ("1", "2", "README"):
        (tmp_path / name).write_bytes(DICOM if name != "README" else b"text")
    assert find_scans([tmp_path]) == ([tmp_path], 0)
    assert is_scan_name(tmp_path)


def test_dicom_without_a_preamble_is_recognized(tmp_path: Path):
    (tmp_path / "old").write_bytes(b"\x08\x00\x05\x00" + bytes(200))
    assert is_scan_name(tmp_path)


def test_a_file_that_is_named_counts_whatever_it_is(tmp_path: Path):
    text = tmp_path / "notes.txt"
    text.touch()
    assert find_scans([text, text]) == ([text], 0)
    assert not is_scan_name(text)


def test_inputs_of_which_none_exists_are_an_error_of_usage(tmp_path: Path):
    gone = [tmp_path / "gone.nii", tmp_path / "lost.nii"]
    with pytest.raises(UsageError, match=r"gone\.nii.*lost\.nii"):
        find_scans(gone)


def test_one_input_that_does_not_exist_is_a_scan_to_be_refused(tmp_path: Path):
    there = tmp_path / "a.nii"
    there.touch()
    assert find_scans([there, tmp_path / "gone.nii"]) == ([there, tmp_path / "gone.nii"], 0)
    with pytest.raises(InputError, match="there is no") as caught:
        read_scan(tmp_path / "gone.nii")
    assert caught.value.code == "E_MISSING"
