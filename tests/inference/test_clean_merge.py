import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cfseg.inference.clean import clean_organs, drop_small_tumors
from cfseg.inference.merge import organs_of, tumor_over_organs, union_of_tumors
from cfseg.recipes.recipe import Clean

maps = hnp.arrays(np.uint8, (4, 5, 6), elements=st.integers(0, 14))
MM = (1.0, 1.0, 1.0)


def two_blobs() -> np.ndarray:
    ids = np.zeros((10, 10, 40), dtype=np.uint8)
    ids[4:6, 4:6, 0:5] = 3  # 20 voxels, far from the rest
    ids[4:6, 4:6, 20:24] = 3  # 16 voxels, in the middle of the organs
    ids[2:8, 2:8, 25:30] = 1
    return ids


def test_the_largest_component_stays() -> None:
    cleaned = clean_organs(two_blobs(), MM, Clean(rule="largest"))
    assert (cleaned == 3).sum() == 20
    assert (cleaned == 1).sum() == 180


def test_the_centroid_rule_weighs_size_against_distance() -> None:
    near = clean_organs(two_blobs(), MM, Clean(rule="centroid", centroid_mm=5))
    far = clean_organs(two_blobs(), MM, Clean(rule="centroid", centroid_mm=1e6))
    assert (near == 3).sum() == 16
    assert (far == 3).sum() == 20


def test_labels_that_are_not_asked_for_are_left_alone() -> None:
    ids = two_blobs()
    assert np.array_equal(clean_organs(ids, MM, Clean(labels=(1,))), ids)


@given(maps)
def test_cleaning_only_removes_and_never_touches_tumors(ids: np.ndarray) -> None:
    for rule in ("largest", "centroid"):
        cleaned = clean_organs(ids, MM, Clean(rule=rule))
        assert np.array_equal(cleaned[cleaned > 0], ids[cleaned > 0])
        assert np.array_equal(cleaned == 14, ids == 14)
        assert np.array_equal(clean_organs(cleaned, MM, Clean(rule="largest")), cleaned)


@pytest.mark.parametrize(
    ("least_ml", "left"), [(0.0, [0, 10, 20]), (0.004, [0, 10, 20]), (0.005, [0, 10]), (1.0, [])]
)
def test_tumors_of_less_than_the_limit_are_dropped(least_ml: float, left: list[int]) -> None:
    tumor = np.zeros((30, 4, 5), dtype=bool)
    tumor[0:2, 0:2, 0:2] = True  # 0.016 ml at 2 x 1 x 1 mm
    tumor[10, 0, :] = True  # 0.010 ml
    tumor[20, 3, 0:2] = True  # 0.004 ml
    kept = drop_small_tumors(tumor, 0.002, Clean(min_tumor_ml=least_ml))
    assert [z for z in (0, 10, 20) if kept[z].any()] == left
    assert np.array_equal(kept[left], tumor[left])


def test_no_tumors_are_no_small_ones() -> None:
    none = np.zeros((2, 3, 4), dtype=bool)
    assert not drop_small_tumors(none, 0.001, Clean(min_tumor_ml=0.5)).any()


@given(maps, maps)
def test_union_does_not_depend_on_the_order(one: np.ndarray, other: np.ndarray) -> None:
    union = union_of_tumors([one, other])
    assert np.array_equal(union, union_of_tumors([other, one]))
    assert np.array_equal(union, (one == 14) | (other == 14))


@given(maps, maps)
def test_tumor_wins_over_organ_over_background(one: np.ndarray, other: np.ndarray) -> None:
    tumor = union_of_tumors([one, other])
    merged = tumor_over_organs(organs_of(one), tumor)
    assert (merged[tumor] == 14).all()
    assert np.array_equal(merged[~tumor], one[~tumor])
