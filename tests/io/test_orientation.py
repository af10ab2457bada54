"""All 48 axis orders, straight and oblique: the way in and the way back are exact."""

import itertools
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from small_scans import ct, image, labels

from cfseg.io import (
    read_label_map,
    read_scan,
    scan_from_image,
    to_source_array,
    write_label_map,
)
from cfseg.io.source import RAS_TO_ZYX
from cfseg.volume import LabelMap

ORDERS = [
    np.array(list(zip(axes, signs, strict=True)))
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def rotation(degrees: float) -> np.ndarray:
    a, b = np.radians([degrees, degrees / 2])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x


def base_affine(degrees: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ np.diag([2.0, 2.5, 3.0])
    affine[:3, 3] = (-31.0, 17.0, 420.0)
    return affine


def turned(degrees: float, orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same scan with its axes stored in another order."""
    data = apply_orientation(ct(), orientation)
    return data, base_affine(degrees) @ inv_ornt_aff(orientation, ct().shape)


def test_there_are_48_orders():
    assert len({order.tobytes() for order in ORDERS}) == 48


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_every_order_gives_the_same_volume_and_grid(degrees):
    expected = scan_from_image(image(ct(), base_affine(degrees)))
    for orientation in ORDERS:
        scan = scan_from_image(image(*turned(degrees, orientation)))
        np.testing.assert_array_equal(scan.volume.hu, expected.volume.hu)
        assert scan.volume.geometry.matches(expected.volume.geometry, 1e-3)
        assert scan.volume.hu.flags.c_contiguous


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_a_marked_voxel_stays_at_its_place_in_space(degrees):
    for orientation in ORDERS:
        data, affine = turned(degrees, orientation)
        index = (3, 5, 7)
        data = data.copy()
        data[index] = 2000
        scan = scan_from_image(image(data, affine))
        found = np.argwhere(scan.volume.hu == 2000)
        assert len(found) == 1
        lps_zyx = scan.volume.geometry.affine @ [*found[0], 1]
        x, y, z = (affine @ [*index, 1])[:3]
        np.testing.assert_allclose(lps_zyx[:3], (z, -y, -x), atol=1e-3)


def test_labels_come_back_exactly_on_the_stored_grid():
    for orientation in ORDERS:
        data, affine = turned(20.0, orientation)
        scan = scan_from_image(image(data, affine))
        native = labels(data.shape)
        canonical = scan.source.to_canonical(native)
        back = to_source_array(LabelMap(canonical, scan.volume.geometry), scan.source)
        np.testing.assert_array_equal(back, native)


def test_axes_point_up_back_and_left():
    data = ct()
    data[-1, :, :] = 500  # the patient's right side of a LAS/RAS file is low x: here +x is right
    scan = scan_from_image(image(data, np.diag([2.0, 2.5, 3.0, 1.0])))
    assert (scan.volume.hu[:, :, 0] == 500).all()
    assert (np.diag(scan.volume.geometry.affine)[:3] > 0).all()
    assert scan.volume.geometry.spacing_mm == pytest.approx((3.0, 2.5, 2.0))


def test_the_axis_swap_keeps_distances():
    np.testing.assert_array_equal(RAS_TO_ZYX @ RAS_TO_ZYX.T, np.eye(4))


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    degrees=st.floats(-40, 40),
)
def test_round_trip_for_any_shape_and_rotation(order, shape, degrees):
    data = apply_orientation(labels(shape), order)
    affine = base_affine(degrees) @ inv_ornt_aff(order, shape)
    source = scan_from_image(image(np.where(data > 7, 40, -1000).astype(np.int16), affine)).source
    np.testing.assert_array_equal(source.to_stored(source.to_canonical(data)), data)


def test_files_in_every_order_are_written_back_with_their_own_grid(tmp_path: Path):
    for number, orientation in enumerate(ORDERS):
        data, affine = turned(20.0, orientation)
        path = tmp_path / f"c{number}_0000.nii"
        nib.save(image(data, affine), path)
        scan = read_scan(path)
        ids = (scan.volume.hu > 0).astype(np.uint8) * 3
        out = tmp_path / f"c{number}.nii"
        write_label_map(out, LabelMap(ids, scan.volume.geometry), scan.source)
        given_image, written = nib.load(path), nib.load(out)
        np.testing.assert_array_equal(written.affine, given_image.affine)
        np.testing.assert_array_equal(np.asarray(written.dataobj), (data > 0) * 3)
        again, _ = read_label_map(out)
        np.testing.assert_array_equal(again.ids, ids)
        assert again.geometry.matches(scan.volume.geometry)


def test_a_scan_can_go_to_another_process():
    scan = scan_from_image(image())
    again = pickle.loads(pickle.dumps(scan))  # noqa: S301 - made in the line itself
    np.testing.assert_array_equal(again.source.affine, scan.source.affine)
    assert again.source.header == scan.source.header
