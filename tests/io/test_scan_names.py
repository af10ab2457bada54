"""What a case is called, and which names are those of scans."""

from pathlib import Path

import pytest

from cfseg.errors import InputError, UsageError
from cfseg.io import Input, case_id, case_names, files_in, is_scan_name, names_of, read_scan


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
        ("a_0000.mha", "a"),
        ("a.seg.nrrd", "a"),
        ("a.zip", "a"),
        ("a.tar.gz", "a"),
        ("CON.nii", "_CON"),
        ("a\u202eb\x1b[31m.nii", "a_b__31m"),
        ("a\udcff.nii.gz", "a_"),
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


def test_a_long_name_is_cut_and_stays_its_own():
    one, other = (case_id(Path(f"{'ä' * 110}{end}.nii.gz")) for end in "ab")
    assert one != other
    assert max(len(name.encode()) for name in (one, other)) <= 120
    assert names_of(Path(f"{one}.nii.gz"))[0] == one


def names(*paths: str) -> list[str]:
    inputs = [Input(Path("/data") / path) for path in paths]
    return [case_names(inputs)[found] for found in inputs]


def test_parent_folders_come_in_front_where_names_repeat():
    assert names("s1/ct.nii.gz", "s2/ct.nii.gz", "s2/mr.nii.gz") == ["s1__ct", "s2__ct", "mr"]
    assert names("a/x/ct.nii", "b/x/ct.nii", "b/y/CT.nii") == ["a__x__ct", "b__x__ct", "y__CT"]


def test_a_name_that_is_made_may_not_be_another_ones():
    assert names("s1/ct.nii", "s2/ct.nii", "q/s1__ct.nii") == [
        "data__s1__ct",
        "s2__ct",
        "q__s1__ct",
    ]


def test_n29_scans_that_no_folder_tells_apart_are_numbered():
    assert names("a/x.nii.gz", "a/X_0000.nii", "a/x.mha") == ["x", "X_2", "x_3"]
    assert names("a/x.nii", "a/x.nii.gz", "b/x.nii") == ["a__x", "x_2", "b__x"]
    assert names("a b/x.nii", "a_b/x.nii") == ["data__a_b__x", "data__a_b__x_2"]


def test_a_series_is_called_by_its_folder_and_what_tells_it_apart():
    files = (Path("/p/s/1"), Path("/p/s/2"))
    two = [Input(Path("/p/s"), files, uid, suffix=f"_series{uid}") for uid in "34"]
    assert list(case_names(two).values()) == ["s_series3", "s_series4"]


def test_images_of_a_folder_and_nothing_else(tmp_path: Path):
    for name in ("b_0000.nii.gz", "a.NII", "c.mha", "notes.txt", ".tmp-1-x.nii.gz", "._b.nii"):
        (tmp_path / name).touch()
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "missing")
    (tmp_path / "folder.nii").mkdir()
    found = [path.name for path in files_in(tmp_path)]
    assert found == ["a.NII", "b_0000.nii.gz", "c.mha", "gone.nii.gz"]
    assert files_in(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    assert not is_scan_name(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="there is no"):
        files_in(tmp_path / "nowhere")


def test_an_input_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="there is no") as caught:
        read_scan(tmp_path / "gone.nii")
    assert caught.value.code == "E_MISSING"
