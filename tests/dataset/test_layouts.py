import json
from pathlib import Path

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
        ({"training": ["x.nii.gz"], "test": 3}, "test: expected a list, found 3"),
        ({"channel_names": 1}, "channel_names: expected an object, found 1"),
        ({"labels": {"a" * 5000: 1}}, "label names 'aaaa"),
        ({"labels": {"9" * 5000: "liver"}}, "has the id '9999"),
        ({"labels": {"9" * 4000: "liver"}}, "has the id '9999"),
        ({"labels": {"liver": 300}}, "from 0 to 255"),
        ({"labels": {"liver": -1}}, "from 0 to 255"),
        ({"labels": {"liver": 10**30}}, "more than 64 bits"),
        ({"training": [{"name": "\ud800", "image": "a.nii"}]}, "half a character"),
    ],
    ids=range(13),
)
def test_a_description_that_cannot_be_used_is_refused(tmp_path, about, message):
    touch(tmp_path, "imagesTr/a_0000.nii.gz")
    describe(tmp_path, **about)
    with pytest.raises(UsageError, match=message) as caught:
        list_cohort(tmp_path)
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(("name", "image"), [("a" * 5000, "a.nii.gz"), ("a", "a\0.nii.gz")])
def test_names_that_no_file_can_have_are_problems_of_their_cases(tmp_path, name, image):
    describe(tmp_path, training=[{"name": name, "image": image}])
    (entry,) = list_cohort(tmp_path).entries
    assert entry.code == "E_USAGE"
    assert len(entry.problem) < 600


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


def test_four_digits_belong_to_the_name_unless_a_first_channel_is_there(tmp_path):
    touch(tmp_path, "imagesTr/a_0003.nii.gz", "imagesTr/a_0004.nii.gz", "labelsTr/a_0003.nii.gz")
    touch(tmp_path, "unlabelled/b_0001.nii.gz", "imagesTr/c_0000.nii.gz", "imagesTr/d_0002.nii.gz")
    assert {name: (image, label) for name, (image, label, _) in found(tmp_path).items()} == {
        "a_0003": ("imagesTr/a_0003.nii.gz", "labelsTr/a_0003.nii.gz"),
        "a_0004": ("imagesTr/a_0004.nii.gz", None),
        "b_0001": ("unlabelled/b_0001.nii.gz", None),
        "c": ("imagesTr/c_0000.nii.gz", None),
        "d_0002": ("imagesTr/d_0002.nii.gz", None),
    }
    assert not any(entry.problem for entry in list_cohort(tmp_path).entries)


@pytest.mark.parametrize("folder", ["imagesTr", "unlabelled"])
def test_two_channels_of_a_case_are_its_problem_alone(tmp_path, folder):
    touch(tmp_path, f"{folder}/a_0000.nii.gz", f"{folder}/a_0001.nii.gz", "imagesTr/b_0000.nii.gz")
    a, b = list_cohort(tmp_path).entries
    assert (a.name, a.code, b.problem) == ("a", "E_CHANNELS", "")
    assert "a_0000.nii.gz, a_0001.nii.gz are named as the channels of one case" in a.problem
    assert '{"a_0001": []}' in a.problem


def test_a_label_map_or_a_manifest_tells_that_a_number_is_a_name(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a_0001.nii.gz")
    assert [entry.name for entry in list_cohort(tmp_path).entries] == ["a", "a_0001"]
    (tmp_path / "manifest.json").write_text(json.dumps({"a_0000": [], "a_0001": [1]}))
    entries = list_cohort(tmp_path).entries
    assert [(entry.name, entry.image.name, entry.problem) for entry in entries] == [
        ("a_0000", "a_0000.nii.gz", ""),
        ("a_0001", "a_0001.nii.gz", ""),
    ]


def test_two_label_maps_of_a_case_are_its_problem(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr2/a.nii")
    (entry,) = list_cohort(tmp_path).entries
    assert (entry.code, "label maps of one case" in entry.problem) == ("E_USAGE", True)


def test_suffixes_in_capitals_count(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.NII.GZ", "labelsTr/a.Nii")
    assert found(tmp_path) == {"a": ("imagesTr/a_0000.NII.GZ", "labelsTr/a.Nii", None)}


@pytest.mark.parametrize("fault", ["loop", "dangling", "no permission"])
def test_a_folder_that_cannot_be_read_costs_no_other(tmp_path, monkeypatch, fault):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz")
    touch(tmp_path, "unlabelled/c.nii.gz")
    bad = tmp_path / "labelsTr2"
    if fault == "no permission":
        bad.mkdir()
        listed = Path.iterdir
        denied = PermissionError(13, "Permission denied")

        def iterdir(folder):
            if folder == bad:
                raise denied
            return listed(folder)

        monkeypatch.setattr(Path, "iterdir", iterdir)
    else:
        bad.symlink_to(bad if fault == "loop" else tmp_path / "nowhere")
    cohort = list_cohort(tmp_path)
    # Nobody knows whether b has a label map there; a and c are not concerned.
    assert [(e.name, e.code) for e in cohort.entries] == [("a", ""), ("b", "E_READ"), ("c", "")]
    assert [(p.case, p.code) for p in cohort.problems] == [("labelsTr2", "E_READ")]


def test_an_image_folder_that_cannot_be_read_is_said(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz")
    (tmp_path / "imagesTr2").symlink_to("imagesTr2")
    cohort = list_cohort(tmp_path)
    assert [(e.name, e.code) for e in cohort.entries] == [("a", "")]
    assert [problem.case for problem in cohort.problems] == ["imagesTr2"]


def test_amos_with_a_label_map_for_the_names_that_flare_lacks(tmp_path):
    touch(tmp_path, "imagesTr/amos_0001.nii.gz", "labelsTr/amos_0001.nii.gz")
    touch(tmp_path, "imagesTs/amos_0008.nii.gz")
    names = {"0": "background", "1": "spleen", "14": "bladder", "15": "prostate/uterus"}
    pair = {"image": "./imagesTr/amos_0001.nii.gz", "label": "./labelsTr/amos_0001.nii.gz"}
    describe(tmp_path, labels=names, training=[pair], test=["./imagesTs/amos_0008.nii.gz"])
    said = {"label_map": {"1": 3, "14": 0, "15": 0}, "amos_0001": {}, "amos_0008": []}
    (tmp_path / "manifest.json").write_text(json.dumps(said))
    assert found(tmp_path) == {
        "amos_0001": (
            "imagesTr/amos_0001.nii.gz", "labelsTr/amos_0001.nii.gz", {1: 3, 14: 0, 15: 0}
        ),
        "amos_0008": ("imagesTs/amos_0008.nii.gz", None, {1: 3, 14: 0, 15: 0}),
    }  # fmt: skip


def test_totalsegmentator_through_a_manifest(tmp_path):
    touch(tmp_path, "s0000/ct.nii.gz", "s0000/segmentations/all.nii.gz")
    said = {"image": "s0000/ct.nii.gz", "label": "s0000/segmentations/all.nii.gz"}
    (tmp_path / "manifest.json").write_text(json.dumps({"s0000": said}))
    assert found(tmp_path) == {"s0000": ("s0000/ct.nii.gz", "s0000/segmentations/all.nii.gz", None)}


def test_the_label_ignore_is_no_label(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "unlabelled/b.nii.gz")
    names = {"background": 0, "spleen": 1, "liver": 2, "ignore": 3}
    describe(tmp_path, file_ending=".nii.gz", labels=names)
    a, b = list_cohort(tmp_path).entries
    assert (a.label_map, a.ignore, b.ignore) == ({1: 3, 2: 1}, 3, None)
    (tmp_path / "manifest.json").write_text(json.dumps({"label_map": {"1": 3, "3": 0}, "b": []}))
    assert [entry.ignore for entry in list_cohort(tmp_path).entries] == [None, None]


def test_a_key_twice_in_a_description_is_named(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": {"liver": 1, "liver": 2}}')
    with pytest.raises(UsageError, match='"liver" twice'):
        list_cohort(tmp_path)


def test_a_file_that_is_no_manifest_is_said_to_be_none(tmp_path):
    touch(tmp_path, "ct.nii.gz")
    with pytest.raises(UsageError, match=r"ct\.nii\.gz is a file but no manifest; expected"):
        list_cohort(tmp_path / "ct.nii.gz")


def test_a_case_that_is_called_like_a_path_is_a_problem(tmp_path):
    touch(tmp_path, "imagesTr/_0000.nii.gz", "scans/one.nii.gz", "labels/one.nii.gz")
    files = {"images": ["scans/one.nii.gz"], "label": "labels/one.nii.gz"}
    describe(tmp_path, file_ending=".nii.gz", dataset={"../../up": files, "a": files})
    codes = {entry.name: entry.code for entry in list_cohort(tmp_path).entries}
    assert codes == {"../../up": "E_USAGE", "a": ""}
    (tmp_path / "dataset.json").unlink()
    assert [(entry.name, entry.code) for entry in list_cohort(tmp_path).entries] == [
        ("", "E_USAGE")
    ]
