import json

import nibabel as nib
import numpy as np
import pytest

from cfseg.dataset.cases import group, phantom_notice, read_cases
from cfseg.errors import UsageError
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
    with pytest.raises(UsageError, match="no scans in imagesTr"):
        read_cases(tmp_path)


def test_phantoms_bring_their_notice(cohort):
    assert phantom_notice(cohort) == ""
    (cohort / "cohort.json").write_text("{}")
    assert "synthetic" in phantom_notice(cohort)


def _write(folder, manifest):
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _save(path, array):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), path)
