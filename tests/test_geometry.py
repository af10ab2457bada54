import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfseg.geometry import Box, Geometry

triples = st.tuples(*[st.integers(1, 12)] * 3)


def test_box_around_is_half_open() -> None:
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[1:3, 2, 4:7] = True
    assert Box.around(mask) == Box((1, 2, 4), (3, 3, 7))
    assert Box.around(np.zeros((2, 2, 2), dtype=bool)) is None


def test_box_grows_only_to_the_border() -> None:
    box = Box((1, 2, 4), (3, 3, 7)).grow((2, 1, 1), (5, 6, 7))
    assert box == Box((0, 1, 3), (5, 4, 7))
    assert box.shape == (5, 3, 4)
    assert np.zeros((5, 6, 7))[box.slices].shape == box.shape


def test_spacing_is_read_from_an_oblique_affine() -> None:
    turn = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([5.0, 0.7, 0.8])
    geometry = Geometry((3, 4, 5), affine)
    assert geometry.spacing_mm == pytest.approx((5.0, 0.7, 0.8))
    assert geometry.voxel_ml == pytest.approx(5 * 0.7 * 0.8 / 1000)


def test_cropped_grid_stays_in_place() -> None:
    geometry = Geometry.from_spacing((10, 10, 10), (5.0, 2.0, 1.0))
    cropped = geometry.cropped(Box((1, 2, 3), (4, 5, 6)))
    assert cropped.shape == (3, 3, 3)
    assert cropped.affine[:3, 3].tolist() == [5.0, 4.0, 3.0]


@pytest.mark.parametrize(
    ("margin_mm", "voxels"), [(0, (0, 0, 0)), (20, (4, 10, 20)), (20.5, (5, 11, 21))]
)
def test_margins_round_up(margin_mm: float, voxels: tuple[int, int, int]) -> None:
    assert Geometry.from_spacing((9, 9, 9), (5.0, 2.0, 1.0)).margin_voxels(margin_mm) == voxels


@given(triples, triples)
def test_matches_needs_equal_shapes(a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    one, other = (Geometry.from_spacing(shape, (2.0, 1.0, 1.0)) for shape in (a, b))
    assert one.matches(other) == (a == b)


def test_matches_sees_a_shift_and_a_flip() -> None:
    one = Geometry.from_spacing((9, 9, 9), (2.0, 1.0, 1.0))
    shifted = one.cropped(Box((0, 0, 1), (9, 9, 10)))
    assert not one.matches(shifted)
    assert not one.matches(Geometry(one.shape, np.diag([2.0, 1.0, -1.0, 1.0])))
