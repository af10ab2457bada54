import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfseg.plan import Resampling
from cfseg.preprocessing.resample import (
    axis_matrix,
    between_planes,
    corner_matrix,
    resample,
    separate_axis,
    within_planes,
)

SIZES = st.one_of(st.integers(1, 4), st.integers(5, 24))
SHAPES = st.tuples(SIZES, SIZES, SIZES)
SPACINGS = st.tuples(*[st.sampled_from([0.7, 0.8, 1.0, 1.5, 2.5, 2.6, 5.0])] * 3)
TOLERANCE_HU = 1e-3


def nnunet_resampling():
    pytest.importorskip("nnunetv2")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from nnunetv2.preprocessing.resampling import default_resampling
    return default_resampling


def ct_like(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Steps from air to bone and noise: what makes splines overshoot."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1000.0, -100.0, 50.0, 1000.0], shape) + rng.normal(0, 20, shape)).astype(
        np.float32
    )


@settings(deadline=None, max_examples=80)
@given(SHAPES, SHAPES, SPACINGS, SPACINGS, st.sampled_from([0, 1, 3]), st.sampled_from([0, 1, 3]))
def test_equals_nnunet(shape, new_shape, current_mm, new_mm, order, order_z) -> None:
    theirs = nnunet_resampling()
    image = ct_like(shape, sum(shape))
    expected = theirs.resample_data_or_seg_to_shape(
        image[None], new_shape, current_mm, new_mm, False, order, order_z, None
    )[0]
    axis = separate_axis(current_mm, new_mm, Resampling())
    result = resample(torch.from_numpy(image), new_shape, order, order_z, axis)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=TOLERANCE_HU, rtol=0)


@pytest.mark.parametrize(
    ("shape", "new_shape", "current_mm", "new_mm"),
    [
        ((30, 64, 60), (45, 50, 47), (2.5, 0.8, 0.8), (1.7, 1.03, 1.02)),  # 3.125: separate
        ((45, 50, 47), (30, 64, 60), (1.7, 1.0, 1.0), (2.5, 0.8, 0.8)),  # by the new spacing
        ((40, 30, 64), (40, 55, 40), (0.8, 5.0, 0.8), (0.8, 2.7, 1.3)),  # coarse along y
        ((64, 40, 20), (30, 40, 50), (0.8, 0.8, 5.0), (1.6, 0.8, 2.0)),  # coarse along x
        ((40, 44, 48), (29, 60, 48), (2.0, 1.5, 1.5), (2.76, 1.1, 1.5)),  # isotropic enough
    ],
)
def test_equals_nnunet_at_sizes_of_scans(shape, new_shape, current_mm, new_mm) -> None:
    theirs = nnunet_resampling()
    image = ct_like(shape, 3)
    expected = theirs.resample_data_or_seg_to_shape(
        image[None], new_shape, current_mm, new_mm, False, 3, 0, None
    )[0]
    axis = separate_axis(current_mm, new_mm, Resampling())
    result = resample(torch.from_numpy(image), new_shape, 3, 0, axis).numpy()
    np.testing.assert_allclose(result, expected, atol=TOLERANCE_HU, rtol=0)


@settings(deadline=None)
@given(SPACINGS, SPACINGS, st.sampled_from([None, True, False]))
def test_the_separate_axis_is_that_of_nnunet(current_mm, new_mm, separate_z) -> None:
    theirs = nnunet_resampling()
    _, expected = theirs.determine_do_sep_z_and_axis(separate_z, current_mm, new_mm)
    assert separate_axis(current_mm, new_mm, Resampling(separate_z=separate_z)) == expected


def test_spacings_that_differ_by_rounding_are_equally_coarse() -> None:
    nearly = (0.8, 5.0, 5.0000000001)
    assert separate_axis(nearly, (1.0, 1.0, 1.0), Resampling()) is None


def test_the_same_shape_is_returned_untouched() -> None:
    image = torch.from_numpy(ct_like((5, 6, 7), 0))
    assert resample(image, (5, 6, 7), 3, 0, 0) is image
    assert within_planes(image, (6, 7), 3) is image
    assert between_planes(image, torch.eye(5)).data_ptr() == image.data_ptr()


@settings(deadline=None, max_examples=40)
@given(SHAPES, SHAPES, st.sampled_from([None, 0, 1, 2]))
def test_the_input_stays_and_its_range_is_kept(shape, new_shape, axis) -> None:
    image = torch.from_numpy(ct_like(shape, 1))
    before = image.clone()
    result = resample(image, new_shape, 3, 0, axis)
    assert tuple(result.shape) == new_shape
    assert torch.equal(image, before)
    assert result.min() >= image.min()
    assert result.max() <= image.max()


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(0, 5))
def test_constants_stay(n_out, n_in, order) -> None:
    rows = axis_matrix(n_out, n_in, order).sum(dim=1)
    torch.testing.assert_close(rows, torch.ones(n_out), atol=1e-5, rtol=0)


def test_nearest_by_hand() -> None:
    # centers of the two new voxels lie at 0.5 and 2.5 in the old index: ties go up, as in scipy
    assert axis_matrix(2, 4, 0).argmax(dim=1).tolist() == [1, 3]


def test_linear_by_hand() -> None:
    expected = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    torch.testing.assert_close(axis_matrix(4, 2, 1), expected)


def test_corners_keep_the_ends_and_a_ramp_stays_a_ramp() -> None:
    ramp = torch.arange(5.0).expand(2, 3, 5).contiguous()
    result = within_planes(ramp, (2, 9), 1, corners=True)
    torch.testing.assert_close(result, torch.linspace(0, 4, 9).expand(2, 2, 9))
    torch.testing.assert_close(corner_matrix(9, 5) @ torch.arange(5.0), torch.linspace(0, 4, 9))


@settings(deadline=None, max_examples=40)
@given(SHAPES, SHAPES, st.sampled_from([0, 1, 3]))
def test_planes_by_planes_is_the_whole(shape, new_shape, order) -> None:
    image = torch.from_numpy(ct_like(shape, 2))
    room = torch.full((max(shape[0], new_shape[0]), *new_shape[1:]), torch.nan)
    room[: shape[0]] = within_planes(image, new_shape[1:], order)
    matrix = axis_matrix(new_shape[0], shape[0], order)
    result = between_planes(room, matrix).clamp(image.min(), image.max())
    torch.testing.assert_close(result, resample(image, new_shape, order), atol=5e-3, rtol=0)
