"""What is kept of a message: names of cases, no folders."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfseg.io import without_folders

CT = Path("/data/DOE JOHN/ct.nii.gz")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{CT}: the file is cut short", "ct.nii.gz: the file is cut short"),
        (f"{CT} is cut, 3 of 5 mm/voxel", "ct.nii.gz is cut, 3 of 5 mm/voxel"),
        (f"{CT.parent}/other.nii lies elsewhere", "other.nii lies elsewhere"),
        ("No such file: '/mnt/DOE/a b/x.nii'", "No such file: 'x.nii'"),
        (r"C:\scans\DOE\ct.nii is cut", "ct.nii is cut"),
        ("(/mnt/DOE/x.nii)", "(x.nii)"),
        ("/mnt/DOE/: not found", "(folder): not found"),
        ("qform/sform differ by 1/2 mm; pass --shard 1/2", None),
        ("pass --hu-offset -1024. Or not", None),
    ],
)
def test_folders_are_cut_and_names_stay(text, kept):
    assert without_folders(text, CT) == (text if kept is None else kept)


def test_relative_paths_are_known_as_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    series = Path("DOE/series")
    text = f"{series / 'IM1.dcm'} and {series.resolve() / 'IM2.dcm'} differ. So"
    assert without_folders(text, series) == "series/IM1.dcm and series/IM2.dcm differ. So"
    assert without_folders("a. b", Path()) == "a. b"


NAME = st.text("ab .-_^é", min_size=1, max_size=8).map(lambda name: f"x{name}x")


@given(folders=st.lists(NAME, min_size=1, max_size=4), name=NAME)
def test_no_folder_of_a_known_path_stays(folders, name):
    path = Path("/", *(f"secret{folder}" for folder in folders), name)
    kept = without_folders(f"{path}: cut; see {path.parent}/other.nii or '{path}'", path)
    assert "secret" not in kept
    assert kept.startswith(f"{name}: cut")
