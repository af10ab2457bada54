"""Which case an input becomes, and that it stays one."""

import json
import zipfile
from pathlib import Path

import pytest

from cfseg.batch import find_input, name_inputs, plan_jobs, predict_many
from cfseg.batch.places import remember_inputs
from cfseg.errors import InputError, UsageError
from cfseg.io import Input, list_inputs
from cfseg.segmenter import Segmenter
from tiny_ct import ct


def inputs(root: Path, *names: str) -> list[Input]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [Input(root / name) for name in names]


def names(out: Path, found: list[Input], naming="folder") -> list[str]:
    return [remember_inputs(out, found, naming)[one] for one in found]


def test_a_name_once_given_stays(tmp_path):
    out = tmp_path / "out"
    one, other, third = inputs(tmp_path, "s1/ct.nii", "s2/ct.nii", "s3/ct.nii")
    assert names(out, [one]) == ["ct"]
    assert names(out, [other, one]) == ["s2__ct", "ct"]
    assert names(out, [other]) == ["s2__ct"]
    assert names(out, [third]) == ["s3__ct"]
    assert names(out, [third, other, one], "number") == ["s3__ct", "s2__ct", "ct"]


def test_the_name_of_an_input_that_is_gone_is_free(tmp_path):
    (one,) = inputs(tmp_path, "s1/ct.nii")
    assert names(tmp_path / "out", [one]) == ["ct"]
    one.path.rename(tmp_path / "moved.nii")
    assert names(tmp_path / "out", inputs(tmp_path, "s2/ct.nii")) == ["ct"]


def test_numbers_go_on_and_tell_nothing(tmp_path):
    out = tmp_path / "out"
    found = inputs(tmp_path, "DOE/ct.nii", "ROE/ct.nii", "POE/ct.nii")
    assert names(out, found[:2], "number") == ["case_0001", "case_0002"]
    assert names(out, found, "number") == ["case_0001", "case_0002", "case_0003"]
    assert {path.name for path in out.rglob("*")} == {
        ".inputs", "case_0001", "case_0002", "case_0003",
    }  # fmt: skip
    assert all((out / ".inputs" / n).stat().st_mode & 0o077 == 0 for n in ("case_0001",))


def test_what_an_older_version_wrote_down_counts(tmp_path):
    (found,) = inputs(tmp_path, "s1/ct.nii")
    (tmp_path / "out" / ".inputs").mkdir(parents=True)
    (tmp_path / "out" / ".inputs" / "mine").write_text(str(found.path))
    assert names(tmp_path / "out", [found]) == ["mine"]
    assert find_input(tmp_path / "out", "mine").path == found.path


@pytest.mark.parametrize(
    "damaged",
    ["{", "[1]", '{"path": 3}', '{"path": "x", "acquisition": "a"}', "\udcff", "{" * 9999],
)
def test_a_damaged_note_costs_nothing(tmp_path, damaged):
    (found,) = inputs(tmp_path, "ct.nii")
    out = tmp_path / "out"
    (out / ".inputs").mkdir(parents=True)
    (out / ".inputs" / "ct").write_text(damaged, errors="surrogateescape")
    with pytest.raises(InputError, match="--images"):
        find_input(out, "ct")
    assert names(out, [found]) == ["ct"]
    assert find_input(out, "ct").path == found.path


def test_a_series_is_found_again_among_others(tmp_path):
    pytest.importorskip("pydicom")
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
    try:
        from small_series import save, second_series
    finally:
        sys.path.pop(0)
    from cfseg.io import ReadingOptions

    second_series(save(tmp_path / "PAT"))
    both = list_inputs([tmp_path / "PAT"], ReadingOptions(all_series=True)).inputs
    assert names(tmp_path / "out", list(both)) == ["PAT_volume1", "PAT_volume2"]
    for number, one in enumerate(both, start=1):
        assert find_input(tmp_path / "out", f"PAT_volume{number}").series == one.series


def test_an_input_inside_of_an_archive_keeps_its_name_and_is_found_again(tmp_path):
    (scan,) = inputs(tmp_path, "ct.nii")
    archive = tmp_path / "export" / "scans.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as made:
        made.write(scan.path, "p1/ct.nii")
    (packed,) = list_inputs([archive]).inputs
    out = tmp_path / "out"
    assert names(out, [packed]) == ["ct"]
    assert find_input(out, "ct").shown == archive / "p1" / "ct.nii"
    (other,) = inputs(tmp_path, "p2/ct.nii")
    assert names(out, [other]) == ["p2__ct"]
    archive.unlink()
    with pytest.raises(InputError, match="--images"):
        find_input(out, "ct")


def test_n29_clashes_are_refused_before_any_work(tmp_path):
    one, other = inputs(tmp_path, "a/x.nii.gz", "a/X_0000.nii.gz")
    assert list(name_inputs(tmp_path / "out", [one, other]).values()) == ["x", "X_2"]
    with pytest.raises(UsageError, match="input itself"):
        plan_jobs({one: "x"}, tmp_path / "a")
    with pytest.raises(UsageError, match="names one file"):
        plan_jobs({one: "x", other: "y"}, tmp_path / "mask.nii.gz")
    series = Input(tmp_path / "s", (tmp_path / "s" / "1",), "1.2")
    with pytest.raises(UsageError, match="lies in the input folder"):
        plan_jobs({series: "s"}, tmp_path / "s" / "out")
    assert not (tmp_path / "out").exists()


def test_cases_of_folders_at_any_depth_and_their_rerun(tmp_path, tiny_bundle):
    segmenter = Segmenter(tiny_bundle, device="cpu", threads=1)
    scans, out = tmp_path / "scans", tmp_path / "scans" / "masks"
    for name in ("s1", "s2"):
        ct(scans / name / "ct.nii.gz", seed=ord(name[1]))
    first = predict_many([scans / "s1", scans / "s2"], out, segmenter, statistics=True)
    assert [case.case for case in first.cases] == ["s1__ct", "s2__ct"]
    ct(scans / "s0" / "ct.nii.gz", seed=9)
    (scans / "s1" / "ct.nii.gz").write_bytes(b"damaged")
    again = predict_many([scans], out, segmenter, statistics=True)
    states = {case.case: (case.state, case.skipped) for case in again.cases}
    assert states.keys() == {"s0__ct", "s1__ct", "s2__ct"}
    assert states["s1__ct"] == ("refused", False)
    assert states["s2__ct"][1]
    assert {path.stem for path in (out / "statistics").iterdir()} >= {"s0__ct", "s2__ct"}
    assert json.loads((out / "summary.json").read_text())["ignored_because"] == {
        "the output folder": 1
    }


def test_with_numbers_nothing_that_is_kept_names_a_file(tmp_path, tiny_bundle):
    segmenter = Segmenter(tiny_bundle, device="cpu", threads=1)
    (tmp_path / "DOE").mkdir()
    (tmp_path / "DOE" / "JOHN.nii.gz").write_bytes(b"damaged")
    ct(tmp_path / "DOE" / "JANE.nii.gz")
    out = tmp_path / "out"
    summary = predict_many([tmp_path / "DOE"], out, segmenter, statistics=True, naming="number")
    assert [case.state for case in summary.cases] != ["refused", "refused"]
    kept = [path for path in out.rglob("*") if path.is_file() and path.parent.name != ".inputs"]
    for path in kept:
        assert not any(word in path.name for word in ("DOE", "JOHN", "JANE"))
        assert not any(word in path.read_bytes() for word in (b"DOE", b"JOHN", b"JANE")), path


def test_numbered_cases_name_no_file_in_notes_and_messages(tmp_path, tiny_bundle):
    """Not even a folder called like a part of a word, or a file beside the slices."""
    pytest.importorskip("pydicom")
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
    try:
        from small_series import ALL, put, save
    finally:
        sys.path.pop(0)
    segmenter = Segmenter(tiny_bundle, device="cpu", threads=1)
    (tmp_path / "in").mkdir()
    (save(tmp_path / "in" / "e") / "DOE_JOHN.txt").write_text("words")
    other = put(ALL, SeriesInstanceUID="1.9", StudyInstanceUID="1.8")
    gap = save(tmp_path / "in" / "2", other, numbers=[0, 1, 2, 4, 5, 6])
    out = tmp_path / "out"
    summary = predict_many([gap.parent], out, segmenter, naming="number")
    (done,) = (case for case in summary.cases if case.ok)
    assert "files_skipped: 1 files hold no image" in done.record["notes"]
    (refused,) = (case for case in summary.cases if not case.ok)
    assert "1 slices are missing inside the series, at" in refused.message
    for path in (it for it in out.rglob("*") if it.is_file() and it.parent.name != ".inputs"):
        assert b"DOE" not in path.read_bytes(), path
    again = predict_many([gap.parent], out, segmenter)
    assert [case.case for case in again.cases] == [case.case for case in summary.cases]
    assert sum(case.skipped for case in again.cases) == 1


def test_a_study_that_was_refused_hands_its_name_on(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    files = (folder / "1",)
    study = Input(folder, files, "study", refusal=InputError("which?", code="E_MULTI_SERIES"))
    assert names(tmp_path / "out", [study]) == ["s"]
    assert names(tmp_path / "out", [Input(folder, files, "1.2")]) == ["s"]


def test_no_input_in_a_share_is_no_failure(tmp_path, tiny_bundle):
    segmenter = Segmenter(tiny_bundle, device="cpu", threads=1)
    scan = ct(tmp_path / "x.nii.gz")
    assert predict_many([scan], tmp_path / "out", segmenter, shard=(3, 4)).exit_code == 0


@pytest.mark.parametrize("name", ["notes.txt", "x.mhd", "x.dcm"])
def test_an_output_that_is_neither_folder_nor_label_map(tmp_path, tiny_bundle, name):
    segmenter = Segmenter(tiny_bundle, device="cpu", threads=1)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="neither a folder nor a name"):
        predict_many([ct(tmp_path / "in" / "x.nii.gz")], tmp_path / name, segmenter)
