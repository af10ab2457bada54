from math import pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from cfseg.findings.diameters import axial_diameters


def affine_of(spacing_mm, rotation=None):
    affine = np.diag([*spacing_mm, 1.0])
    if rotation is not None:
        affine[:3, :3] = rotation @ affine[:3, :3]
    return affine


def ellipse(semi_mm, turned, spacing_mm, shape=(3, 160, 160)):
    """An ellipse on slice 1 with semi-axes along and across the direction ``turned`` radians."""
    _, dy, dx = spacing_mm
    y = (np.arange(shape[1]) - shape[1] / 2)[:, None] * dy
    x = (np.arange(shape[2]) - shape[2] / 2)[None] * dx
    along, across = (
        x * np.cos(turned) + y * np.sin(turned),
        -x * np.sin(turned) + y * np.cos(turned),
    )
    mask = np.zeros(shape, dtype=bool)
    mask[1] = (along / semi_mm[0]) ** 2 + (across / semi_mm[1]) ** 2 <= 1
    return mask


@pytest.mark.parametrize("spacing_mm", [(5, 0.5, 0.5), (5, 0.5, 0.8), (1, 0.8, 0.5)])
@pytest.mark.parametrize("turned", [0, pi / 6, pi / 4, pi / 2, 2.5])
def test_an_ellipse_has_its_two_axes(turned, spacing_mm):
    found = axial_diameters(ellipse((25, 12), turned, spacing_mm), affine_of(spacing_mm))
    assert found.slice == 1
    assert found.longest_mm == pytest.approx(50, abs=0.9)
    assert found.perpendicular_mm == pytest.approx(24, abs=0.9)


def test_an_oblique_scan_measures_the_same():
    spacing_mm = (3, 0.7, 0.9)
    mask = ellipse((20, 8), 0.4, spacing_mm)
    straight = axial_diameters(mask, affine_of(spacing_mm))
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    oblique = axial_diameters(mask, affine_of(spacing_mm, turn))
    assert oblique.longest_mm == pytest.approx(straight.longest_mm)
    assert oblique.perpendicular_mm == pytest.approx(straight.perpendicular_mm)


def test_worked_out_by_hand():
    mask = np.zeros((2, 5, 9), dtype=bool)
    mask[0, 2, 1:8] = True  # seven voxels of 2 mm in a row, one of 3 mm across
    found = axial_diameters(mask, affine_of((1, 3, 2)))
    assert found.longest_mm == pytest.approx(14)
    assert found.perpendicular_mm == pytest.approx(3)
    assert sorted(found.ends) == [(2, 0.5), (2, 7.5)]
    single = np.zeros((1, 1, 1), dtype=bool)
    single[:] = True
    found = axial_diameters(single, affine_of((1, 4, 4)))
    assert (found.longest_mm, found.perpendicular_mm) == (pytest.approx(4), pytest.approx(4))


def test_a_triangle_has_its_chord_at_the_corner_not_at_the_middle():
    """Hypotenuse from (0, 0) to (0, 40), third corner above 10: the chord there is its height."""
    mask = np.zeros((1, 25, 45), dtype=bool)
    for y in range(20):
        mask[0, y, y // 2 : 41 - round(1.5 * y)] = True
    found = axial_diameters(mask, affine_of((1, 1, 1)))
    assert found.longest_mm == pytest.approx(41, abs=0.5)
    assert found.perpendicular_mm == pytest.approx(20, abs=1)


def test_the_slice_with_the_longest_diameter_is_taken():
    mask = np.zeros((4, 12, 12), dtype=bool)
    mask[0, 2:8, 2:8] = True  # the larger area: 36 voxels, diameter under 8
    mask[2, 5, 1:11] = True  # 10 voxels long
    found = axial_diameters(mask, affine_of((1, 1, 1)))
    assert (found.slice, found.longest_mm) == (2, pytest.approx(10))


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        axial_diameters(np.zeros((2, 2, 2), dtype=bool), np.eye(4))


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3), st.floats(0.3, 3))
@settings(max_examples=60, deadline=None)
def test_between_the_voxel_centers_and_one_voxel_more(seed, dy, dx):
    """By all pairs of voxels: never shorter than between centers, longer by a diagonal at most."""
    rng = np.random.default_rng(seed)
    mask = rng.random((1, 9, 8)) < 0.3
    mask[0, 4, 4] = True
    found = axial_diameters(mask, affine_of((1, dy, dx)))
    centers = np.argwhere(mask[0]) * (dy, dx)
    between = pdist(centers).max() if len(centers) > 1 else 0
    assert between <= found.longest_mm <= between + np.hypot(dy, dx)
    assert 0 < found.perpendicular_mm <= found.longest_mm + 1e-9
