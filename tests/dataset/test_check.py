import csv
import json
import os
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest
from small_cohorts import SHAPE, cohort, ct, labels, write

from cfseg.dataset.cases import read_cases
from cfseg.dataset.check import check
from cfseg.labels import ORGAN_IDS


@pytest.fixture
def folder(tmp_path):
    return cohort(tmp_path / "in")


def image(folder, name):
    return folder / f"imagesTr2200/{name}_0000.nii.gz"


def label(folder, name):
    return folder / f"labelsTr2200/{name}.nii.gz"


def codes(summary):
    return [(problem.case, problem.code) for problem in summary.problems]


def test_a_good_cohort(folder, tmp_path):
    summary = check(folder, tmp_path / "out")
    assert codes(summary) == []
    assert [case.name for case in summary.good] == ["a", "b", "c", "d"]
    assert summary.exit_code == 0
    assert summary.good == read_cases(folder)


def test_every_fault_has_its_code_and_none_stops_the_others(folder, tmp_path):
    faults = {
        "corrupt": (lambda p: p.write_bytes(image(folder, "b").read_bytes()[:-40]), "E_CORRUPT"),
        "empty": (lambda p: p.write_bytes(b""), "E_FORMAT"),
        "link": (lambda p: p.symlink_to(folder / "nowhere"), "E_FORMAT"),
        "nan": (lambda p: write(p, np.where(ct() > 0, np.nan, ct()).astype(np.float32)),
                "E_NONFINITE"),
        "raw": (lambda p: write(p, ct().clip(-900) + np.int16(1024)), "E_NOT_HU"),
        "slice": (lambda p: write(p, ct()[:, :, :1]), "E_TOO_FEW_SLICES"),
        "spacing": (lambda p: write(p, ct(), spacing_mm=30.0), "E_SPACING"),
    }  # fmt: skip
    for name, (make, _) in faults.items():
        make(image(folder, name))
    flat = write(image(folder, "unoriented"), ct())
    _without_orientation(flat)
    write(image(folder, "value"), ct())
    write(label(folder, "value"), labels((1, 15)))
    write(image(folder, "grid"), ct())
    write(label(folder, "grid"), labels((1,)), spacing_mm=3.1)
    write(image(folder, "shape"), ct())
    write(label(folder, "shape"), labels((1,), (*SHAPE[:2], SHAPE[2] - 1)))
    write(image(folder, "probability"), ct())
    write(label(folder, "probability"), np.full(SHAPE, 0.5, np.float32))
    write(label(folder, "orphan"), labels((1,)))

    summary = check(folder, tmp_path / "out", workers=2)

    expected = {name: code for name, (_, code) in faults.items()}
    expected |= {"unoriented": "E_ORIENTATION", "value": "E_LABELS", "grid": "E_GRID"}
    expected |= {"shape": "E_GRID", "probability": "E_NOT_LABELS", "orphan": "E_MISSING"}
    assert codes(summary) == sorted(expected.items())
    assert [case.name for case in summary.good] == ["a", "b", "c", "d"]
    assert summary.exit_code == 3
    record = json.loads((tmp_path / "out/check.json").read_text())
    assert (record["cases"], record["good"], record["bad"]) == (17, 4, 13)
    with (tmp_path / "out/check.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors = [(row["case"], row["code"]) for row in rows if row["severity"] == "error"]
    assert errors == sorted(expected.items())
    assert all(row["message"] and row["file"] for row in rows)


def test_scan_and_label_map_of_one_case_can_both_be_bad(folder):
    image(folder, "b").write_bytes(b"x")
    label(folder, "b").write_bytes(b"")
    summary = check(folder)
    assert codes(summary) == [("b", "E_FORMAT"), ("b", "E_FORMAT")]
    assert summary.bad == 1


def test_other_axes_are_the_same_grid(folder):
    stored = nib.load(label(folder, "b"))
    nib.save(nib.as_closest_canonical(stored), label(folder, "b"))
    assert codes(check(folder)) == []


def test_the_manifest_of_the_good_cases_leaves_the_bad_ones_out(folder, tmp_path):
    image(folder, "c").write_bytes(b"")
    check(folder, tmp_path / "out", manifest=True)
    again = read_cases(tmp_path / "out/manifest.json")
    assert [case.name for case in again] == ["a", "b", "d"]
    assert [case.annotated for case in again] == [
        case.annotated for case in read_cases(folder) if case.name != "c"
    ]


def test_an_organ_that_is_called_absent_but_labelled_is_a_problem(folder):
    said = {"a": [], "b": {}, "c": {"absent": [9]}, "d": {}}
    (folder / "manifest.json").write_text(json.dumps(said))
    assert codes(check(folder)) == [("c", "E_MANIFEST")]


def test_annotated_but_empty_is_an_error(folder, tmp_path):
    said = {"a": [], "b": {}, "c": list(ORGAN_IDS), "d": {"absent": [1, 14]}}
    (folder / "manifest.json").write_text(json.dumps(said))
    write(label(folder, "c"), labels(()))
    write(label(folder, "d"), labels(()))
    summary = check(folder, tmp_path / "out")
    assert codes(summary) == [("c", "E_EMPTY_LABELS")]
    assert "liver, right_kidney" in summary.problems[0].message
    assert summary.exit_code == 3
    assert "c," in (tmp_path / "out/check.csv").read_text()
    assert summary.warnings == ()


def test_warnings_are_named_counted_and_leave_a_case_good(folder, tmp_path):
    said = {"a": [], "b": {"annotated": [1, 2, 9]}, "c": {}, "d": {}}
    (folder / "manifest.json").write_text(json.dumps(said))
    write(label(folder, "d"), labels(()))
    summary = check(folder, tmp_path / "out")
    assert [case.name for case in summary.good] == ["a", "b", "c", "d"]
    assert summary.exit_code == 0
    names = ["annotated_not_present", "present_not_annotated", "empty_label"]
    assert summary.warning_codes == dict.fromkeys(names, 1)
    record = json.loads((tmp_path / "out/check.json").read_text())
    assert (record["problems"], record["codes"]) == ([], {})
    assert record["warning_codes"] == summary.warning_codes
    assert {row["severity"] for row in record["warnings"]} == {"warning"}
    with (tmp_path / "out/check.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "file", "code", "message", "severity"]
    assert [(row["case"], row["code"]) for row in rows] == [
        ("b", "annotated_not_present"), ("b", "present_not_annotated"), ("d", "empty_label"),
    ]  # fmt: skip
    assert rows[0]["message"].endswith(": gallbladder")


@pytest.mark.parametrize("copied", ["compressed", "turned", "as floats"])
def test_the_same_scan_under_two_names_is_said_of_both(folder, copied):
    stored = nib.load(image(folder, "b"))
    target = folder / "unlabeledTr1800/e_0000.nii"
    if copied == "turned":
        stored = nib.as_closest_canonical(stored)
    if copied == "as floats":
        stored = nib.Nifti1Image(stored.get_fdata(dtype=np.float32), stored.affine)
    nib.save(stored, target)
    (warning,) = check(folder, workers=2).warnings
    assert (warning.case, warning.code, warning.severity) == ("e", "duplicate_scan", "warning")
    assert "e_0000.nii is voxel for voxel the scan of b" in warning.message


def test_one_other_voxel_is_another_scan(folder):
    changed = ct(0)
    changed[0, 0, 0] += 1
    write(folder / "unlabeledTr1800/e_0000.nii.gz", changed)
    assert check(folder).warnings == ()


def test_mirrored_organs_are_warned_of(folder):
    ids = np.zeros(SHAPE, np.uint8)
    ids[2:8], ids[12:18] = 3, 1  # x grows to the left: the liver lies there
    write(label(folder, "b"), ids)
    (warning,) = check(folder).warnings
    assert (warning.case, warning.code) == ("b", "situs")
    assert "the liver is 30 mm to the left of the spleen" in warning.message
    write(label(folder, "b"), ids[::-1])
    assert check(folder).warnings == ()


def test_every_file_is_opened_once(folder, monkeypatch):
    from cfseg.io import nifti

    opened, really = [], nifti.open_regular
    monkeypatch.setattr(nifti, "open_regular", lambda path: opened.append(path) or really(path))
    check(folder)
    assert len(opened) == len(set(opened)) == 7


def test_what_is_unusual_is_noted(folder):
    said = {"a": [], "b": {"annotated": [1, 2, 9]}, "c": {}, "d": {}}
    (folder / "manifest.json").write_text(json.dumps(said))
    write(label(folder, "c"), labels(tuple(i for i in ORGAN_IDS if i != 9)))
    write(label(folder, "d"), labels(()))
    notes = check(folder).as_dict()["notes"]
    assert "annotated_not_present: gallbladder" in notes["b"]
    assert "present_not_annotated: spleen, pancreas, left_kidney" in notes["b"]
    assert "perhaps_absent: gallbladder" in notes["c"]
    assert any(note.startswith("empty_label") for note in notes["d"])


def test_all_bad_and_none_found_have_their_exit_code(tmp_path):
    assert check(tmp_path).exit_code == 4
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr/a.nii.gz").touch()
    assert check(tmp_path).exit_code == 4


def test_an_error_of_our_own_is_the_case_s_alone(folder, monkeypatch):
    from cfseg.dataset import check as module

    for error, code, exit_code in ((KeyError("x"), "E_INTERNAL", 4), (MemoryError(), "E_OOM", 6)):
        monkeypatch.setattr(module, "read_scan", Mock(side_effect=error))
        summary = check(folder)
        assert {code for _, code in codes(summary)} == {code}
        assert summary.exit_code == exit_code


def test_a_name_that_is_not_utf8_or_not_seen_costs_nothing(folder, tmp_path):
    bad = os.fsdecode(b"\xff\n=x")
    for old, new in ((image(folder, "b"), image(folder, bad)), (label(folder, "b"), None)):
        try:
            old.rename(new or label(folder, bad))
        except OSError:
            pytest.skip("this file system takes no such name")
    label(folder, bad).write_bytes(b"broken")
    summary = check(folder, tmp_path / "out", manifest=True)
    assert codes(summary) == [(bad, "E_FORMAT")]
    assert summary.problems[0].line.startswith("\\udcff\\x0a=x: E_FORMAT: ")
    assert "\\udcff\\x0a=x" in (tmp_path / "out/check.csv").read_text("utf-8")


def _without_orientation(path):
    stored = nib.load(path)
    data = np.asarray(stored.dataobj)
    made = nib.Nifti1Image(data, None, stored.header)
    made.header["sform_code"] = made.header["qform_code"] = 0
    nib.save(made, path)
