import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from stock import quiet, reference_logits
from torch import nn

from cfseg.errors import UsageError
from cfseg.inference.sliding_window import (
    Windows,
    predict_planes,
    predict_windows,
    window_starts,
)

STEPS = st.sampled_from([0.25, 0.5, 0.6, 0.75, 1.0])


@st.composite
def images_and_patches(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    patch = draw(st.tuples(*[st.integers(1, 40)] * 3))
    shape = tuple(p + draw(st.integers(0, 90)) for p in patch)
    return (shape[0], shape[1], shape[2]), patch


@settings(deadline=None)
@given(images_and_patches(), STEPS)
def test_windows_cover_every_voxel_and_stay_inside(sizes, step) -> None:
    shape, patch = sizes
    for starts, length, window in zip(window_starts(shape, patch, step), shape, patch, strict=True):
        covered = np.zeros(length, dtype=bool)
        for start in starts:
            assert 0 <= start <= length - window
            covered[start : start + window] = True
        assert covered.all()
        assert starts == sorted(starts)


@settings(deadline=None)
@given(images_and_patches(), STEPS)
def test_starts_are_those_of_nnunet(sizes, step) -> None:
    pytest.importorskip("nnunetv2")
    with quiet():
        from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
    shape, patch = sizes
    assert list(window_starts(shape, patch, step)) == compute_steps_for_sliding_window(
        shape, patch, step
    )


@pytest.mark.parametrize("step", [0.0, -0.5, 1.01])
def test_a_step_that_leaves_gaps_is_refused(step) -> None:
    with pytest.raises(UsageError, match="step"):
        window_starts((8, 8, 8), (4, 4, 4), step)


def test_an_image_smaller_than_a_window_has_no_starts() -> None:
    with pytest.raises(ValueError, match="smaller"):
        window_starts((8, 3, 8), (4, 4, 4), 0.5)


class Neighbors(nn.Module):
    """Depends on where the window ends, so that every mistake in placing windows shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv3d(1, 3, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.convolution(image)
        return logits


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(20, 17, 23), (8, 8, 8), (5, 30, 3), (1, 1, 1), (7, 8, 9)])
@pytest.mark.parametrize("step", [0.5, 1.0])
def test_logits_equal_a_literal_loop(shape, step) -> None:
    pytest.importorskip("nnunetv2")
    network, image = Neighbors().requires_grad_(False), noise(*shape)
    logits = predict_windows(network, image, 3, (8, 8, 8), Windows(step))
    with quiet():
        expected = reference_logits(network, image.numpy(), (8, 8, 8), step, 3)
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(1, 20)] * 3), STEPS, st.booleans(), st.booleans())
def test_a_pointwise_network_gives_its_own_output(shape, step, gaussian, mirror) -> None:
    network = nn.Conv3d(1, 2, 1).requires_grad_(False)
    image = noise(*shape)
    logits = predict_windows(network, image, 2, (6, 8, 7), Windows(step, gaussian, mirror))
    torch.testing.assert_close(logits, network(image[None, None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("patch", [(8, 8, 8), (7, 16, 12)])
def test_gaussian_is_that_of_nnunet(patch) -> None:
    pytest.importorskip("nnunetv2")
    with quiet():
        from nnunetv2.inference.sliding_window_prediction import compute_gaussian
    network, image = Neighbors().requires_grad_(False), noise(20, 19, 18)
    bell = compute_gaussian(
        patch, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
    )
    sums, counts = torch.zeros(3, 20, 19, 18), torch.zeros(20, 19, 18)
    z_starts, y_starts, x_starts = window_starts((20, 19, 18), patch, 0.5)
    for z in z_starts:
        for y in y_starts:
            for x in x_starts:
                here = np.s_[z : z + patch[0], y : y + patch[1], x : x + patch[2]]
                sums[(slice(None), *here)] += network(image[here][None, None])[0] * bell
                counts[here] += bell
    logits = predict_windows(network, image, 3, patch, Windows(0.5, gaussian=True))
    torch.testing.assert_close(logits, sums / counts, atol=1e-5, rtol=1e-5)


def test_mirroring_averages_the_eight_reflections() -> None:
    network, image = Neighbors().requires_grad_(False), noise(8, 8, 8)
    expected = torch.zeros(3, 8, 8, 8)
    for z in (False, True):
        for y in (False, True):
            for x in (False, True):
                axes = [axis for axis, flip in zip((2, 3, 4), (z, y, x), strict=True) if flip]
                expected += network(image[None, None].flip(axes)).flip(axes)[0] / 8
    logits = predict_windows(network, image, 3, (8, 8, 8), Windows(0.5, mirror=True))
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)


def test_progress_counts_every_window() -> None:
    seen: list[tuple[int, int]] = []
    image, patch = noise(8, 8, 12), (8, 8, 8)
    predict_windows(Neighbors(), image, 3, patch, Windows(0.5), lambda *n: seen.append(n))
    assert seen == [(1, 2), (2, 2)]


def test_the_image_is_left_as_it_is() -> None:
    image = noise(9, 9, 9)
    before = image.clone()
    predict_windows(Neighbors(), image, 3, (8, 8, 8), Windows(0.5, gaussian=True, mirror=True))
    assert torch.equal(image, before)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(1, 30)] * 3), STEPS)
def test_planes_come_once_and_in_order(shape, step) -> None:
    image, network = noise(*shape), Neighbors().requires_grad_(False)
    pieces: list[torch.Tensor] = []
    windows = Windows(step)
    predict_planes(network, image, 3, (8, 8, 8), windows, lambda p: pieces.append(p.clone()))
    assert all(piece.shape[1] <= 8 for piece in pieces)
    whole = predict_windows(network, image, 3, (8, 8, 8), windows)
    assert torch.equal(torch.cat(pieces, dim=1), whole)


def test_windows_that_hold_nothing_are_asked_about_once() -> None:
    asked: list[torch.Tensor] = []

    def network(window: torch.Tensor) -> torch.Tensor:
        asked.append(window)
        return Neighbors().requires_grad_(False)(window)

    image = torch.full((8, 8, 64), -2.0)
    image[..., 40:] = noise(8, 8, 24)
    plain = predict_windows(Neighbors(), image + 1e-2 * noise(8, 8, 64), 3, (8, 8, 8), Windows(1))
    logits = predict_windows(network, image, 3, (8, 8, 8), Windows(1))
    assert len(asked) == 1 + 3  # five windows of nothing, three of noise
    assert (logits - plain).abs().max() < 0.1
    literal = torch.cat(
        [network(image[None, None, ..., x : x + 8])[0] for x in range(0, 64, 8)], -1
    )
    torch.testing.assert_close(logits, literal)


@pytest.mark.parametrize("pad", ["zero", "edge"])
def test_what_surrounds_a_thin_image(pad) -> None:
    image = 3 + noise(3, 8, 8)
    sides = (0, 0, 0, 0, 2, 3)
    wide = F.pad(image[None, None], sides, **({"mode": "replicate"} if pad == "edge" else {}))
    expected = Neighbors()(wide)[0, :, 2:5]
    logits = predict_windows(Neighbors(), image, 3, (8, 8, 8), Windows(0.5, pad=pad))
    torch.testing.assert_close(logits, expected)
