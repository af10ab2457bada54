import json

import pytest
from small_cohorts import touch

from cfseg.dataset.layouts import list_cohort
from cfseg.errors import UsageError
from cfseg.labels import LABELS


def found(root):
    """Return what was listed: scan, label map and label order by case, paths relative to root."""
    return {
        entry.name: (
            entry.image.relative_to(root).as_posix(),
            None if entry.label is None else entry.label.relative_to(root).as_posix(),
            entry.label_map,
        )
        for entry in list_cohort(root).entries
    }


def describe(root, **about):
    (root / "dataset.json").write_text(json.dumps(about))


def test_flare_folders(tmp_path):
    touch(tmp_path, "imagesTr2200/x_1_0000.nii.gz", "imagesTr2200/x_2_0000.nii.gz")
    touch(tmp_path, "labelsTr2200/x_1.nii.gz", "unlabeledTr1800/x_3_0000.nii.gz")
    touch(tmp_path, "unlabelled/images/x_4.nii", "imagesTr2200/.tmp-x.nii.gz", "imagesTs/t.nii.gz")
    assert found(tmp_path) == {
        "x_1": ("imagesTr2200/x_1_0000.nii.gz", "labelsTr2200/x_1.nii.gz", None),
        "x_2": ("imagesTr2200/x_2_0000.nii.gz", None, None),
        "x_3": ("unlabeledTr1800/x_3_0000.nii.gz", None, None),
        "x_4": ("unlabelled/images/x_4.nii", None, None),
    }
    assert list_cohort(tmp_path).layout == "FLARE"


def test_a_label_map_without_a_scan_is_an_orphan(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/b.nii.gz")
    assert [path.name for path in list_cohort(tmp_path).orphans] == ["b.nii.gz"]


def test_nnunet_names_give_the_label_order(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    describe(tmp_path, file_ending=".nii.gz", labels={"background": 0, "spleen": 1, "liver": 2})
    assert found(tmp_path) == {"a": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", {1: 3, 2: 1})}
    assert list_cohort(tmp_path).layout == "nnU-Net"


def test_nnunet_in_flare_order_needs_no_label_map(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    names = {"background": 0} | {label.name: label.id for label in LABELS}
    describe(tmp_path, file_ending=".nii.gz", labels=names)
    assert found(tmp_path)["a"][2] is None


def test_nnunet_with_explicit_files(tmp_path):
    touch(tmp_path, "scans/one.nii.gz", "truth/eins.nii.gz")
    files = {"a": {"images": ["scans/one.nii.gz"], "label": "truth/eins.nii.gz"}}
    describe(tmp_path, file_ending=".nii.gz", labels={"liver": 1}, dataset=files)
    assert found(tmp_path) == {"a": ("scans/one.nii.gz", "truth/eins.nii.gz", {1: 1})}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"file_ending": ".mha"}, "convert them"),
        ({"file_ending": ".nii.gz", "channel_names": {"0": "CT", "1": "PET"}}, "2 channels"),
        ({"file_ending": ".nii.gz", "labels": {"bladder": 1}}, "'bladder'"),
        ({"training": [{"label": "x"}]}, "expected {image, label}"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(tmp_path, about, message):
    touch(tmp_path, "imagesTr/a_0000.nii.gz")
    describe(tmp_path, **about)
    with pytest.raises(UsageError, match=message):
        list_cohort(tmp_path)


def test_decathlon(tmp_path):
    touch(tmp_path, "imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", "imagesTs/liver_1.nii.gz")
    describe(
        tmp_path,
        labels={"0": "background", "1": "liver", "2": "cancer"},
        training=[{"image": "./imagesTr/liver_0.nii.gz", "label": "./labelsTr/liver_0.nii.gz"}],
        test=["./imagesTs/liver_1.nii.gz"],
    )
    assert found(tmp_path) == {
        "liver_0": ("imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", {1: 1, 2: 14}),
        "liver_1": ("imagesTs/liver_1.nii.gz", None, None),
    }


def test_the_old_nnunet_leaves_the_channel_out_of_its_list(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    pair = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    describe(tmp_path, labels={"0": "background", "1": "liver"}, training=[pair])
    assert found(tmp_path)["a"][0] == "imagesTr/a_0000.nii.gz"


def test_a_name_twice_is_a_problem_of_the_second(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "unlabelled/a_0000.nii.gz", "unlabelled/B.nii.gz")
    touch(tmp_path, "imagesTr/b_0000.nii.gz")
    entries = list_cohort(tmp_path).entries
    assert [entry.code for entry in entries if entry.problem] == ["E_USAGE", "E_USAGE"]
    assert len(entries) == 4


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no cohort"):
        list_cohort(tmp_path / "none")


def test_a_case_may_be_called_like_a_channel(tmp_path):
    touch(tmp_path, "imagesTr/test_1_0000_0000.nii.gz", "labelsTr/test_1_0000.nii.gz")
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a_0000.nii.gz")
    assert found(tmp_path) == {
        "a": ("imagesTr/a_0000.nii.gz", "labelsTr/a_0000.nii.gz", None),
        "test_1_0000": ("imagesTr/test_1_0000_0000.nii.gz", "labelsTr/test_1_0000.nii.gz", None),
    }
