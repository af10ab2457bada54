import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt
from slow_scores import AREAS_MM2, SPACING_MM, slow_dice, slow_surface_dice

from cfseg.evaluation.metrics import _distances_mm, dice, surface_dice, surfaces
from cfseg.evaluation.surfels import surfel_areas

UNIT = (1.0, 1.0, 1.0)
MASKS = arrays(np.bool_, (4, 3, 5))


def mask(*voxels, shape=(6, 6, 6)):
    made = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        made[voxel] = True
    return made


def mirrored(code):
    """Our code counts corners from the lowest bit, the table's from the highest."""
    return int(f"{code:08b}"[::-1], 2)


def test_areas_of_all_256_cubes_equal_the_official_ones():
    ours = surfel_areas(SPACING_MM)
    assert ours.shape == (256,)
    assert [ours[mirrored(code)] for code in range(256)] == pytest.approx(AREAS_MM2, abs=6e-7)


@pytest.mark.parametrize(
    ("spacing_mm", "total_mm2"),
    [
        (UNIT, 241.34313970553745),
        (SPACING_MM, 422.26909024353233),
        ((5.0, 0.8, 0.8), 772.8138816245778),
        ((0.75, 0.75, 2.5), 371.03335658977596),
    ],
)
def test_sum_of_areas_equals_the_official_one(spacing_mm, total_mm2):
    # Sums over the table of surface-distance 0.1.
    assert surfel_areas(spacing_mm).sum() == pytest.approx(total_mm2, rel=1e-12)


def test_area_of_a_cut_corner_and_of_a_plane():
    areas = surfel_areas((2.0, 3.0, 5.0))
    corner = np.linalg.norm(np.cross([1.0, 0, -2.5], [0, 1.5, -2.5])) / 2
    assert areas[1] == pytest.approx(corner)
    # Corners 0..3 are the face at the first index 0: the plane between has 3 x 5 mm.
    assert areas[0b1111] == pytest.approx(15)
    assert areas[0] == areas[255] == 0


@pytest.mark.parametrize(
    ("pred", "ref", "expected"),
    [
        (mask((1, 1, 1)), mask((1, 1, 1)), 1.0),
        (mask((1, 1, 1)), mask((2, 2, 2)), 0.0),
        (mask((1, 1, 1), (1, 1, 2)), mask((1, 1, 1)), 2 / 3),
        (mask(), mask((1, 1, 1)), 0.0),
    ],
)
def test_dice_by_hand(pred, ref, expected):
    assert dice(pred, ref) == pytest.approx(expected)


def test_both_empty_is_not_a_number():
    assert math.isnan(dice(mask(), mask()))
    assert math.isnan(surface_dice(mask(), mask(), UNIT, 1))


def test_one_empty_is_zero():
    assert surface_dice(mask(), mask((1, 1, 1)), UNIT, 100) == 0
    assert surface_dice(mask((1, 1, 1)), mask(), UNIT, 100) == 0


@pytest.mark.parametrize("voxel", [(0, 0, 0), (5, 5, 5), (0, 5, 2)])
def test_a_voxel_at_the_border_of_the_array_has_its_whole_surface(voxel):
    # The corner at a voxel's far side is 2 mm, the near one 1 mm from the other voxel.
    inner = (min(voxel[0], 3), voxel[1], voxel[2])
    other = (inner[0] + 2, *inner[1:])
    pair = mask(inner), mask(other)
    assert surface_dice(*pair, UNIT, 1) == pytest.approx(0.5)
    assert surface_dice(*pair, UNIT, 2) == 1


def test_a_distance_equal_to_the_tolerance_agrees():
    pair = mask((1, 1, 1)), mask((3, 1, 1))
    spacing_mm = (1.5, 1.0, 1.0)
    assert surface_dice(*pair, spacing_mm, 3.0) == 1
    assert surface_dice(*pair, spacing_mm, float(np.nextafter(3.0, 0))) == pytest.approx(0.5)
    assert surface_dice(*pair, (float(np.nextafter(1.5, 2)), 1, 1), 3.0) == pytest.approx(0.5)


def test_a_slanted_distance_equal_to_the_tolerance_agrees():
    # Seen from the outer corner of one voxel the nearest of the other is (3, 4, 0) away: 5 mm.
    pair = mask((0, 0, 1)), mask((3, 4, 1))
    assert surface_dice(*pair, UNIT, 5.0) == 1
    assert surface_dice(*pair, UNIT, float(np.nextafter(5.0, 0))) == pytest.approx(1 - 4 / 16)


@given(MASKS, MASKS)
@settings(max_examples=40, deadline=None)
def test_distances_are_those_of_scipys_transform_to_the_last_bit(here, there):
    """Three spacings without common measure: only mirrored offsets tie, and those are the same."""
    found = _distances_mm(here, there, SPACING_MM)
    if not there.any():
        assert np.isinf(found).all()
        return
    expected = distance_transform_edt(~there, sampling=SPACING_MM)[here]
    assert found.tolist() == expected.tolist()


def test_hausdorff_distance_by_hand():
    # A rod that is longer by 4 voxels: its end is 4 mm away, more than half of it not at all.
    ref, longer = np.zeros((30, 3, 3), bool), np.zeros((30, 3, 3), bool)
    ref[2:10, 1, 1] = longer[2:14, 1, 1] = True
    found = surfaces(longer, ref, UNIT)
    assert found.hausdorff_mm(100) == 4
    assert found.hausdorff_mm(50) == 0
    assert surfaces(ref, ref, UNIT).hausdorff_mm() == 0
    assert math.isnan(surfaces(ref, np.zeros_like(ref), UNIT).hausdorff_mm())


@given(MASKS, MASKS, st.sampled_from([0.0, 0.7, 1.1, 1.5, 2.3, 4.0]))
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_implementation(pred, ref, tolerance_mm):
    expected = slow_surface_dice(pred, ref, tolerance_mm)
    assert surface_dice(pred, ref, SPACING_MM, tolerance_mm) == pytest.approx(
        expected, abs=1e-6, nan_ok=True
    )
    assert dice(pred, ref) == pytest.approx(slow_dice(pred, ref), nan_ok=True)


@given(MASKS, MASKS)
@settings(max_examples=50, deadline=None)
def test_symmetric_in_range_and_one_for_itself(pred, ref):
    assert dice(pred, ref) == pytest.approx(dice(ref, pred), nan_ok=True)
    nsd = surface_dice(pred, ref, SPACING_MM, 1.2)
    assert nsd == pytest.approx(surface_dice(ref, pred, SPACING_MM, 1.2), nan_ok=True)
    assert math.isnan(nsd) or 0 <= nsd <= 1 + 1e-12
    if ref.any():
        assert surface_dice(ref, ref, SPACING_MM, 0) == 1


@given(MASKS, MASKS, st.permutations(range(3)), st.lists(st.booleans(), min_size=3, max_size=3))
@settings(max_examples=50, deadline=None)
def test_does_not_depend_on_the_order_and_direction_of_axes(pred, ref, order, flips):
    turn = tuple(slice(None, None, -1 if flip else None) for flip in flips)
    turned = [m.transpose(order)[turn] for m in (pred, ref)]
    spacing_mm = tuple(SPACING_MM[axis] for axis in order)
    assert surface_dice(*turned, spacing_mm, 1.2) == pytest.approx(
        surface_dice(pred, ref, SPACING_MM, 1.2), nan_ok=True
    )
