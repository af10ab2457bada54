import pytest

from cfseg.labels import LABELS, NAMES, ORGAN_IDS, TUMOR, by_name


def test_ids_are_those_of_flare() -> None:
    assert [label.id for label in LABELS] == list(range(1, 15))
    assert (by_name("liver").id, by_name("right_kidney").id, by_name("left_kidney").id) == (
        1,
        2,
        13,
    )
    assert TUMOR.id == 14
    assert TUMOR.id not in ORGAN_IDS


def test_tolerances_are_those_of_the_official_evaluation() -> None:
    assert [label.nsd_tolerance_mm for label in LABELS] == [
        5,
        3,
        3,
        5,
        2,
        2,
        2,
        2,
        2,
        3,
        5,
        7,
        3,
        2,
    ]
    assert [label.id for label in LABELS if label.tubular] == [5, 6, 10]


def test_colors_and_names_tell_labels_apart() -> None:
    assert len({label.color for label in LABELS}) == len(LABELS)
    assert len(set(NAMES.values())) == len(LABELS)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="gallbladder"):
        by_name("kidney")
