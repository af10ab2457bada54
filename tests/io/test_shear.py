"""Sheared grids: where each voxel goes, and that labels come back to theirs."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_scans import ct, image, labels

from cfseg.io import scan_from_image
from cfseg.io.shear import angle_error, orthogonal_grid, resample

UNIT = st.floats(-0.3, 0.3)


def tilted(degrees: float, mm: tuple[float, float, float] = (2, 2.5, 3)) -> np.ndarray:
    """A gantry tilted about the patient's left-right axis: slices shifted along y."""
    affine = np.diag([*mm, 1.0])
    affine[1, 2] = mm[2] * np.tan(np.radians(degrees))
    return affine


def test_worked_out_by_hand_a_shift_of_one_voxel_per_slice():
    """y moves by one row of 2.5 mm per slice; three slices need two more rows."""
    affine = np.diag([3.0, 2.5, 2.0, 1.0])
    affine[1, 0] = 2.5
    geometry, matrix = orthogonal_grid(affine, (3, 4, 5))
    assert geometry.shape == (3, 6, 5)
    np.testing.assert_allclose(geometry.affine, np.diag([3, 2.5, 2, 1]))
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5) + 1
    found = resample(values, matrix, geometry.shape, order=1, outside=-1024)
    for z in range(3):
        np.testing.assert_array_equal(found[z, z : z + 4], values[z])
        assert (np.delete(found[z], range(z, z + 4), axis=0) == -1024).all()


def test_the_distance_between_slices_is_that_along_their_normal():
    """D05: the tilt moves the slices sideways, however far, and changes nothing else."""
    scan = scan_from_image(image(affine=tilted(15)))
    assert scan.volume.geometry.spacing_mm == pytest.approx((3, 2.5, 2))
    assert scan.volume.geometry.voxel_ml == pytest.approx(2 * 2.5 * 3 / 1000)
    assert angle_error(scan.volume.geometry.affine) < 1e-12


def test_a_ball_in_a_sheared_scan_keeps_its_place_in_space():
    """Voxels of a ball in mm, sampled on a sheared grid, are the ball on the orthogonal one."""
    affine, shape = tilted(20), (40, 44, 30)
    center = (affine @ [20, 22, 15, 1])[:3]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = index @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(mm - center, axis=-1) < 20
    hu = np.where(inside, 100, ct(shape) // 100 - 900).astype(np.int16)
    scan = scan_from_image(nib.Nifti1Image(hu, affine))
    grid = scan.volume.geometry
    zyx = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    up_back_left = zyx @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    there = np.array([center[2], -center[1], -center[0]])
    apart = np.linalg.norm(up_back_left - there, axis=-1)
    found = scan.volume.hu > -400
    assert found[apart < 18].all()
    assert not found[apart > 22].any()
    back = scan.source.to_stored(found.astype(np.uint8)) > 0
    assert (back == inside).mean() > 0.995


@settings(max_examples=40, deadline=None)
@given(UNIT, UNIT, UNIT, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_labels_of_any_shear_come_back_but_for_their_edges(a, b, c, order, flips):
    shear = np.array([[1, a / 2, b], [0, 1, c], [0, 0, 1]])
    axes = shear @ np.diag([2.0, 2.5, 3.0]) @ np.diag(np.where(flips, -1.0, 1.0))
    affine = np.eye(4)
    affine[:3, :3] = axes[:, order]
    blocks = np.kron(labels((4, 4, 4)), np.ones((5, 5, 5), np.uint8))
    scan = scan_from_image(image(ct(blocks.shape), affine))
    grid = scan.volume.geometry
    assert angle_error(grid.affine) <= 1.1e-5
    assert (np.diag(grid.affine) > 0).all()
    found = scan.source.to_stored(scan.source.to_canonical(blocks))
    assert found.shape == blocks.shape
    if scan.source.shear is None:
        np.testing.assert_array_equal(found, blocks)
    inner = np.zeros((5, 5, 5), dtype=bool)
    inner[2, 2, 2] = True
    middles = np.kron(np.ones((4, 4, 4), bool), inner)
    np.testing.assert_array_equal(found[middles], blocks[middles])


def test_padding_far_below_air_does_not_bleed():
    data = ct()
    data[:, :2] = -32768
    scan = scan_from_image(image(data, tilted(10)))
    assert scan.volume.hu.min() == -1024
