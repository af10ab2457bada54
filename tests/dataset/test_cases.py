import json

import nibabel as nib
import numpy as np
import pytest

from cfseg.dataset.cases import (
    Case,
    each,
    phantom_notice,
    read_cases,
    read_labels,
    voxel_counts,
)
from cfseg.dataset.groups import group
from cfseg.dataset.label_names import IGNORE
from cfseg.errors import InputError, UsageError
from cfseg.labels import ORGAN_IDS


@pytest.fixture
def cohort(tmp_path):
    """Four cases, one of each of groups 1, 4, 5 and 6, with a manifest."""
    manifest = {"a": [], "b": [1, 2], "c": list(ORGAN_IDS), "d": [1, 14]}
    for name, annotated in manifest.items():
        _save(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", np.zeros((4, 4, 4), np.int16))
        if annotated:
            ids = np.zeros(64, np.uint8)
            ids[: len(annotated)] = annotated
            _save(tmp_path / "labelsTr" / f"{name}.nii.gz", ids.reshape(4, 4, 4))
    _write(tmp_path, manifest)
    return tmp_path


def test_groups_partition_the_cohort(cohort):
    groups = group(read_cases(cohort))
    names = [[c.name for c in part] for part in vars(groups).values()]
    assert names == [["a"], ["d"], ["b"], ["c"]]


def test_without_a_manifest_what_is_present_is_annotated(cohort):
    with_manifest = read_cases(cohort)
    (cohort / "manifest.json").unlink()
    assert read_cases(cohort) == with_manifest


def test_an_annotated_organ_may_be_absent(cohort):
    _write(cohort, {"a": [], "b": list(ORGAN_IDS), "c": list(ORGAN_IDS), "d": [1, 14]})
    assert [c.name for c in group(read_cases(cohort)).full] == ["b", "c"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"a": []}, "does not name the case b"),
        ({"a": [1], "b": [], "c": [], "d": []}, "no file in labelsTr"),
        ({"a": [], "b": [15], "c": [], "d": []}, "ids other than"),
        ([1, 2], "expected {case:"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(cohort, manifest, message):
    _write(cohort, manifest)
    with pytest.raises(UsageError, match=message):
        read_cases(cohort)


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(InputError, match="no scans found") as caught:
        read_cases(tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("E_NO_CASES", 4)


def test_phantoms_bring_their_notice(cohort):
    assert phantom_notice(cohort) == ""
    (cohort / "cohort.json").write_text("{}")
    assert "synthetic" in phantom_notice(cohort)


def test_phantoms_bring_their_notice_through_a_manifest_elsewhere(cohort, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "manifest.json"
    elsewhere.write_text(json.dumps({"a": {"image": str(cohort / "imagesTr/a_0000.nii.gz")}}))
    assert phantom_notice(elsewhere) == ""
    (cohort / "cohort.json").write_text("{}")
    assert "synthetic" in phantom_notice(elsewhere)


def test_labels_are_read_in_flare_order(tmp_path):
    ids = np.array([0, 1, 2, 7], np.uint8).repeat(16).reshape(4, 4, 4)
    _save(tmp_path / "a" / "x.nii.gz", ids)
    case = Case("x", tmp_path, tmp_path / "a/x.nii.gz", frozenset(), label_map={1: 3, 2: 14, 7: 0})
    counts = voxel_counts(read_labels(case).ids)
    assert {int(i): int(counts[i]) for i in np.flatnonzero(counts)} == {0: 32, 3: 16, 14: 16}


@pytest.mark.parametrize("label_map", [None, {1: 1}])
def test_a_value_that_means_nothing_is_refused(tmp_path, label_map):
    ids = np.zeros((4, 4, 4), np.uint8)
    ids[0, 0, :3] = 15
    _save(tmp_path / "a" / "x.nii.gz", ids)
    case = Case("x", tmp_path, tmp_path / "a/x.nii.gz", frozenset(), label_map=label_map)
    with pytest.raises(InputError, match=r"15 \(3 voxels\)") as error:
        read_labels(case)
    assert error.value.code == "E_LABELS"


def test_voxels_to_be_ignored_are_neither_a_label_nor_unknown(cohort):
    ids = np.zeros(64, np.uint8)
    ids[:3] = 1, 2, 255
    _save(cohort / "labelsTr/b.nii.gz", ids.reshape(4, 4, 4))
    (cohort / "manifest.json").write_text(
        json.dumps({"a": [], "b": {"ignore": 255}, "c": {}, "d": {}})
    )
    case = next(case for case in read_cases(cohort) if case.name == "b")
    assert (case.annotated, case.ignore) == ({1, 2}, 255)
    assert np.unique(read_labels(case, keep_ignored=True).ids).tolist() == [0, 1, 2, IGNORE]
    with pytest.raises(InputError, match="value 255") as caught:
        read_labels(case)
    assert caught.value.code == "E_IGNORE"


def test_an_unlabelled_case_has_no_labels_to_read(tmp_path):
    with pytest.raises(ValueError, match="no label map"):
        read_labels(Case("x", tmp_path, None, frozenset()))


def test_an_absent_organ_counts_as_annotated(cohort):
    (cohort / "manifest.json").write_text(
        json.dumps({"a": [], "b": [1, 2], "c": {"absent": [9]}, "d": [1, 14]})
    )
    _save(cohort / "labelsTr/c.nii.gz", _with(set(ORGAN_IDS) - {9}))
    case = next(c for c in read_cases(cohort) if c.name == "c")
    assert case.has_all_organs
    assert case.absent == {9}
    assert case.perhaps_absent is None


@pytest.mark.parametrize("annotated", [[1, 2], [1, 2, 14]])
def test_an_absent_tumor_is_known_and_not_annotated(cohort, annotated):
    said = {"a": [], "b": {"annotated": annotated, "absent": [14]}, "c": [1], "d": [1, 14]}
    (cohort / "manifest.json").write_text(json.dumps(said))
    cases = {case.name: case for case in read_cases(cohort)}
    assert [name for name, case in cases.items() if case.is_tumor_free] == ["b"]
    assert [name for name, case in cases.items() if case.has_tumor] == ["d"]
    assert (cases["b"].annotated, cases["b"].known) == ({1, 2}, {1, 2, 14})


def test_one_missing_organ_is_flagged(cohort):
    _write(cohort, {"a": [], "b": [1, 2], "c": [i for i in ORGAN_IDS if i != 9], "d": [1, 14]})
    assert [c.perhaps_absent for c in read_cases(cohort)] == [None, None, 9, None]


def test_each_keeps_the_order():
    assert list(each(lambda n: n * n, range(50), workers=3)) == [n * n for n in range(50)]


def _with(ids):
    found = np.zeros(64, np.uint8)
    found[: len(ids)] = sorted(ids)
    return found.reshape(4, 4, 4)


def _write(folder, manifest):
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _save(path, array):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), path)
