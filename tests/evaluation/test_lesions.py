import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from slow_scores import slow_lesions

from cfseg.evaluation.lesions import SIZES, CaseLesions, Lesion, case_lesions, detections

UNIT = (1.0, 1.0, 1.0)
MASKS = arrays(np.bool_, (5, 4, 6), elements=st.sampled_from([False, False, False, True]))


def mask(*blocks, shape=(30, 12, 12)):
    made = np.zeros(shape, dtype=bool)
    for i, j, k in blocks:
        made[slice(*i), slice(*j), slice(*k)] = True
    return made


def ball_ml(diameter_mm):
    return math.pi * diameter_mm**3 / 6 / 1000


@pytest.mark.parametrize(
    ("diameter_mm", "size"),
    [(1, 0), (9.99, 0), (10.001, 1), (19.99, 1), (20.001, 2), (49.99, 2), (50.01, 3), (200, 3)],
)
def test_sizes(diameter_mm, size):
    lesion = Lesion(ball_ml(diameter_mm), 0.0)
    assert lesion.diameter_mm == pytest.approx(diameter_mm)
    assert lesion.size == SIZES[size]


def test_the_diameter_counts_the_spacing():
    found = case_lesions(mask(), mask(((0, 4), (0, 4), (0, 4))), (2.0, 1.0, 2.5))
    assert found.lesions[0].volume_ml == pytest.approx(64 * 5 / 1000)
    assert found.lesions[0].diameter_mm == pytest.approx((6 * 320 / math.pi) ** (1 / 3))


@pytest.mark.parametrize(("voxels", "found"), [(0, False), (9, False), (10, True), (100, True)])
def test_a_tenth_is_enough(voxels, found):
    ref = mask(((0, 10), (0, 10), (0, 1)))
    pred = np.zeros_like(ref)
    pred[:10, :10, 0].flat[:0] = True
    pred[tuple(index[:voxels] for index in np.nonzero(ref))] = True
    case = case_lesions(pred, ref, UNIT)
    assert case.lesions[0].covered == voxels / 100
    assert case.lesions[0].found is found
    assert case.false_positives == 0


def test_corners_connect_and_touch():
    ref = mask(((0, 2), (0, 2), (0, 2)), ((2, 4), (2, 4), (2, 4)), ((10, 12), (0, 2), (0, 2)))
    beside = ((4, 5), (4, 5), (4, 5))  # touches the first lesion by a corner: not apart from it
    apart = ((6, 7), (0, 1), (0, 1)), ((20, 22), (5, 6), (5, 6))
    case = case_lesions(mask(beside, *apart), ref, UNIT)
    assert len(case.lesions) == 2
    assert not any(lesion.found for lesion in case.lesions)
    assert case.false_positives == 2


def test_one_prediction_may_find_two_lesions_and_two_may_find_one():
    two = mask(((0, 3), (0, 3), (0, 3)), ((6, 9), (0, 3), (0, 3)))
    one = mask(((0, 9), (0, 3), (0, 3)))
    assert [lesion.found for lesion in case_lesions(one, two, UNIT).lesions] == [True, True]
    merged = case_lesions(two, one, UNIT)
    assert [lesion.covered for lesion in merged.lesions] == [pytest.approx(2 / 3)]
    assert merged.false_positives == 0


def test_empty_maps():
    assert case_lesions(mask(), mask(), UNIT) == CaseLesions((), 0)
    only = case_lesions(mask(((0, 1), (0, 1), (0, 1))), mask(), UNIT)
    assert only == CaseLesions((), 1)


@given(MASKS, MASKS)
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_implementation(pred, ref):
    case = case_lesions(pred, ref, (10.0, 10.0, 10.0))
    found = sorted(
        (round(one.volume_ml), round(one.covered * one.volume_ml)) for one in case.lesions
    )
    assert (found, case.false_positives) == slow_lesions(pred, ref)


def test_over_cases_by_hand():
    small, large = ball_ml(8), ball_ml(30)
    cases = [
        CaseLesions((Lesion(small, 0.0), Lesion(small, 0.5), Lesion(large, 1.0)), 2),
        CaseLesions((Lesion(small, 0.09), Lesion(large, 0.1)), 0),
        CaseLesions((), 1),
    ]
    found = detections(cases)
    by_size = {one.size: (one.lesions, one.found) for one in found.sizes}
    assert by_size == {
        "< 10 mm": (3, 1), "10-20 mm": (0, 0), "20-50 mm": (2, 2), "> 50 mm": (0, 0), "all": (5, 3),
    }  # fmt: skip
    assert found.sizes[0].share == pytest.approx(1 / 3)
    assert math.isnan(found.sizes[1].share)
    assert (found.false_positives.mean, found.false_positives.sd) == (1, 1)
    # Of the two cases with lesions, drawn twice: 2/3, 3/5 or 1/2 of all, never more or less.
    interval = found.sizes[-1].interval
    assert interval.low == pytest.approx(1 / 2)
    assert interval.high == pytest.approx(2 / 3)
