import numpy as np
import pytest

from cfseg.geometry import Box, Geometry
from cfseg.preprocessing.body import MARGIN_MM, body_box
from cfseg.volume import Volume

SPACING_MM = (3.0, 2.0, 2.0)
SHAPE = (40, 150, 180)
BODY = Box((0, 31, 31), (40, 111, 151))
"""80 x 120 voxels: 16 x 24 cm, as a slim patient."""


def scan(outside: float = -1000, dtype=np.float32) -> np.ndarray:
    """A cylinder of tissue with two lungs in air."""
    hu = np.full(SHAPE, outside, dtype=dtype)
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    hu[:, ((y - 70.5) / 40) ** 2 + ((x - 90.5) / 60) ** 2 <= 1] = 40
    hu[30:, 55:85, 50:80] = hu[30:, 55:85, 100:130] = -850
    return hu


def volume(hu: np.ndarray) -> Volume:
    return Volume(hu, Geometry.from_spacing(hu.shape, SPACING_MM))


def assert_is_body(box: Box) -> None:
    """The box holds the body and at most the margin and two cells more on each side."""
    reach = [int((MARGIN_MM + 12) / s) for s in SPACING_MM]
    for axis in range(3):
        assert box.start[axis] <= BODY.start[axis] <= box.start[axis] + reach[axis]
        assert box.stop[axis] - reach[axis] <= BODY.stop[axis] <= box.stop[axis]


@pytest.mark.parametrize("outside", [-1000, -1024, -2048, -3024])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_body_is_found_in_any_padding(outside, dtype) -> None:
    assert_is_body(body_box(volume(scan(outside, dtype))))


def test_a_table_and_a_blanket_are_left_out() -> None:
    hu = scan()
    hu[:, 128:131, 10:170] = 100  # a table top, 6 mm, 3.6 cm below the back
    hu[:, 10, 20:160] = -50  # a sheet above
    hu[:, 120:145, 5] = 500  # a rail
    assert_is_body(body_box(volume(hu)))


def test_a_sheet_that_touches_the_body_is_left_out() -> None:
    hu = scan()
    hu[:, 110:113, :] = 100  # a table top, 6 mm, the back lies on it
    hu[:, 70:73, 145:] = 100  # a tube that leaves the side
    assert_is_body(body_box(volume(hu)))


def test_a_thick_pad_apart_from_the_body_is_left_out() -> None:
    hu = scan()
    hu[:, 128:142, 10:170] = 0  # 28 mm of gel, 34 mm below the back
    assert_is_body(body_box(volume(hu)))


def test_metal_and_noise_do_not_matter() -> None:
    hu = scan() + np.random.default_rng(0).normal(0, 60, SHAPE).astype(np.float32)
    hu[20, 60:80, 80:100] = 3071
    assert_is_body(body_box(volume(hu)))


@pytest.mark.parametrize("hu", [-1024, -3024])
def test_pure_air_is_kept_whole(hu) -> None:
    shape = (5, 40, 30)
    assert body_box(volume(np.full(shape, hu, dtype=np.int16))) == Box.whole(shape)


def test_a_scan_full_of_tissue_is_kept_whole() -> None:
    shape = (9, 40, 31)
    assert body_box(volume(np.full(shape, 30, dtype=np.int16))) == Box.whole(shape)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 200), (3, 2, 2)])
def test_tiny_scans_give_a_box_inside_them(shape) -> None:
    box = body_box(volume(np.full(shape, 30, dtype=np.int16)))
    assert all(0 <= a < b <= n for a, b, n in zip(box.start, box.stop, shape, strict=True))
