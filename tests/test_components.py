import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cfseg.components import Component, components, keep_largest, largest_component
from cfseg.geometry import Box

IDS = arrays(np.uint8, (4, 5, 6), elements=st.sampled_from([0, 0, 0, 1, 2]))


def small_map():
    """Liver: 4 voxels and, apart, 2; aorta: 1 voxel touching the liver; tumor: 2 single voxels."""
    ids = np.zeros((4, 6, 8), dtype=np.uint8)
    ids[0, 0, 0:4] = 1
    ids[3, 5, 6:8] = 1
    ids[1, 1, 0] = 5
    ids[3, 0, 0] = 14
    ids[3, 0, 5] = 14
    return ids


def test_parts_of_a_mask():
    parts, found = components(small_map() == 1)
    assert found == [
        Component(1, 4, Box((0, 0, 0), (1, 1, 4)), (0.0, 0.0, 1.5)),
        Component(2, 2, Box((3, 5, 6), (4, 6, 8)), (3.0, 5.0, 6.5)),
    ]
    assert parts.dtype == np.uint32
    assert parts.shape == (4, 6, 8)
    assert (parts == 2).sum() == 2


def test_voxels_touching_by_a_corner_are_connected():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    assert len(components(mask)[1]) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 1), (3, 1, 1)])
def test_two_voxels_with_a_gap_are_two_parts(shape):
    mask = np.array([True, False, True]).reshape(shape)
    assert [part.voxels for part in components(mask)[1]] == [1, 1]
    assert largest_component(mask).ravel().tolist() == [True, False, False]


def test_parts_of_different_labels_are_apart():
    _, found = components(small_map())
    assert sorted(part.voxels for part in found) == [1, 1, 1, 2, 4]


def test_largest_component():
    kept = largest_component(small_map() == 1)
    assert kept.dtype == bool
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]]


def test_of_equally_large_parts_the_first_is_kept():
    mask = small_map() == 14
    assert np.argwhere(largest_component(mask)).tolist() == [[3, 0, 0]]
    assert np.argwhere(keep_largest(small_map(), [14]) == 14).tolist() == [[3, 0, 0]]


def test_nothing_in_nothing_out():
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert not largest_component(empty).any()
    assert components(empty)[1] == []
    assert not keep_largest(empty.astype(np.uint8), [1, 2]).any()


def test_a_full_array_is_one_part():
    full = np.ones((2, 3, 4), dtype=bool)
    assert largest_component(full).all()
    (part,) = components(full)[1]
    assert (part.label, part.voxels, part.box) == (1, 24, Box.whole((2, 3, 4)))
    assert (keep_largest(full.astype(np.uint8), [1]) == 1).all()


def test_keep_largest_touches_only_the_labels_asked_for():
    ids = small_map()
    before = ids.copy()
    cleaned = keep_largest(ids, range(1, 14))
    assert (ids == before).all()
    assert (cleaned == 1).sum() == 4
    assert (cleaned == 5).sum() == 1
    assert (cleaned == 14).sum() == 2


@pytest.mark.parametrize("labels", [[], [9]])
def test_keep_largest_of_absent_labels_changes_nothing(labels):
    ids = small_map()
    cleaned = keep_largest(ids, labels)
    assert (cleaned == ids).all()
    assert not np.shares_memory(cleaned, ids)


def test_views_with_any_strides_are_taken():
    ids = small_map()
    turned = ids.transpose(2, 0, 1)[::-1]
    assert (keep_largest(turned, [1]) == keep_largest(ids, [1]).transpose(2, 0, 1)[::-1]).all()


@given(IDS)
@settings(max_examples=60, deadline=None)
def test_agrees_with_scipy(ids):
    cleaned = keep_largest(ids, [1])
    assert (cleaned[ids != 1] == ids[ids != 1]).all()
    parts, count = ndimage.label(ids == 1, np.ones((3, 3, 3)))
    found = components(ids == 1)[1]
    assert len(found) == count
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    assert sorted(part.voxels for part in found) == sorted(sizes)
    assert (cleaned == 1).sum() == max(sizes, default=0)
    assert ((cleaned == 1) == largest_component(ids == 1)).all()
    assert (keep_largest(cleaned, [1]) == cleaned).all()
