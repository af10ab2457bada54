from pathlib import Path

import pytest

from cfseg.dataset.label_names import flare_id, ignore_from_names, label_map_from_names
from cfseg.errors import UsageError
from cfseg.labels import LABELS

PATH = Path("dataset.json")


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.name)
def test_names_and_abbreviations_mean_their_label(label):
    for name in (label.name, label.name.replace("_", " ").title(), label.abbreviation):
        assert flare_id(name) == label.id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kidney_left", 13),
        ("adrenal_gland_right", 7),
        ("postcava", 6),
        ("gall bladder", 9),
        ("Tumour", 14),
        ("cancer", 14),
        ("kidney", None),
        ("prostate", None),
    ],
)
def test_names_of_other_data_sets(name, expected):
    assert flare_id(name) == expected


def test_flare_order_needs_no_label_map():
    labels = {"background": 0} | {label.name: label.id for label in LABELS}
    assert label_map_from_names(labels, PATH) is None


def test_both_ways_to_write_labels_are_read():
    assert label_map_from_names({"background": 0, "spleen": 1, "lesion": 2}, PATH) == {1: 3, 2: 14}
    assert label_map_from_names({"0": "background", "1": "liver", "2": "cancer"}, PATH) == {
        1: 1,
        2: 14,
    }


def test_a_subset_is_not_taken_for_all_labels():
    assert label_map_from_names({"background": 0, "liver": 1}, PATH) == {1: 1}


def test_unknown_names_are_all_listed():
    with pytest.raises(UsageError, match="'bladder', 'prostate'"):
        label_map_from_names({"background": 0, "liver": 1, "bladder": 2, "prostate": 3}, PATH)


def test_a_region_of_several_labels_is_refused():
    with pytest.raises(UsageError, match="regions"):
        label_map_from_names({"background": 0, "liver": [1, 2]}, PATH)


def test_ignore_is_left_out_and_its_value_returned():
    labels = {"background": 0} | {label.name: label.id for label in LABELS} | {"ignore": 15}
    assert label_map_from_names(labels, PATH) is None
    assert ignore_from_names(labels, PATH) == 15
    assert ignore_from_names({"background": 0, "liver": 1}, PATH) is None


@pytest.mark.parametrize("value", [1, 2, 4, 255])
def test_ignore_is_the_id_after_the_last_label(value):
    with pytest.raises(UsageError, match=r"ignore"):
        ignore_from_names({"background": 0, "liver": 1, "spleen": 2, "ignore": value}, PATH)


def test_two_names_of_one_id_are_refused():
    with pytest.raises(UsageError, match="'liver' and 'spleen' have the same id 1"):
        label_map_from_names({"background": 0, "liver": 1, "spleen": 1}, PATH)
