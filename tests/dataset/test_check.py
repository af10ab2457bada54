import csv
import json

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
    import nibabel as nib

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

    def fail(path, case):
        raise MemoryError("too much")

    monkeypatch.setattr(module, "read_scan", fail)
    assert {code for _, code in codes(check(folder))} == {"E_INTERNAL"}


def _without_orientation(path):
    import nibabel as nib

    stored = nib.load(path)
    data = np.asarray(stored.dataobj)
    made = nib.Nifti1Image(data, None, stored.header)
    made.header["sform_code"] = made.header["qform_code"] = 0
    nib.save(made, path)
