"""Sliding-window prediction: windows on a regular grid, their logits averaged where they overlap.

The paper predicts without Gaussian weights and without mirroring (2.4); both can be switched on
and then do what nnU-Net does. Sums are kept in float32.
"""

import itertools
from collections.abc import Callable, Iterator
from math import ceil

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from scipy.ndimage import gaussian_filter1d

from cfseg.errors import UsageError
from cfseg.geometry import Box, Triple
from cfseg.networks.backends import Runner

OnWindow = Callable[[int, int], None]
"""Called after each window with how many are done and how many there are."""

FLIPS = [axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
"""The eight ways to mirror (N, C, Z, Y, X)."""


def window_starts(shape: Triple, patch: Triple, step: float) -> tuple[list[int], ...]:
    """Return where windows start along each axis: first and last at the borders, evenly spread.

    Args:
        shape: (z, y, x) of the image, at least ``patch``.
        patch: (z, y, x) of a window.
        step: largest distance between windows as a fraction of the patch, in (0, 1].

    Raises:
        UsageError: the step is not in (0, 1].
        ValueError: the image is smaller than a window.
    """
    if not 0 < step <= 1:
        raise UsageError(f"step = {step} is not a fraction of the patch; give 0 < step <= 1.")
    if any(n < p for n, p in zip(shape, patch, strict=True)):
        raise ValueError(f"an image of shape {shape} is smaller than a window of {patch}")
    return tuple(_starts(n, p, step) for n, p in zip(shape, patch, strict=True))


def _starts(length: int, window: int, step: float) -> list[int]:
    room = length - window
    count = ceil(room / (window * step)) + 1
    if count == 1:
        return [0]
    return [round(room / (count - 1) * i) for i in range(count)]


def predict_windows(
    network: Runner,
    image: torch.Tensor,
    classes: int,
    patch: Triple,
    step: float,
    gaussian: bool = False,
    mirror: bool = False,
    on_window: OnWindow | None = None,
) -> torch.Tensor:
    """Return the network's logits for a whole image.

    An image that is smaller than a window is padded with 0, the mean intensity after the z-score,
    evenly on both sides, as in training.

    Args:
        network: from (1, 1, Z, Y, X) to logits (1, C, Z, Y, X), on the image's device.
        image: (Z, Y, X) float32 z-scores.
        classes: channels of the network's output.
        patch: (z, y, x) of a window.
        step: see :func:`window_starts`.
        gaussian: weight the center of a window more than its border.
        mirror: average over all eight reflections of each window; eight times the work.
        on_window: see :data:`OnWindow`.

    Returns:
        (C, Z, Y, X) float32 on the image's device.

    Raises:
        UsageError: the step is not in (0, 1].
    """
    with torch.inference_mode():
        padded, inside = _padded(image, patch)
        starts = window_starts(_triple(padded.shape), patch, step)
        weights = [_weights(p, gaussian, image.device) for p in patch]
        logits = torch.zeros((classes, *padded.shape), device=image.device)
        weight = _outer(weights) if gaussian else None
        total = len(starts[0]) * len(starts[1]) * len(starts[2])
        for done, box in enumerate(_boxes(starts, patch), start=1):
            window = _predict(network, padded[box.slices][None, None], mirror)[0]
            _add(logits[:, *box.slices], window, weight)
            if on_window is not None:
                on_window(done, total)
        sums = [_sums(*axis) for axis in zip(starts, weights, padded.shape, strict=True)]
        logits /= _outer(sums)
        return logits[:, *inside.slices]


def _padded(image: torch.Tensor, patch: Triple) -> tuple[torch.Tensor, Box]:
    """Return the image at the size of a window at least, and the box of the image in it."""
    missing = [max(0, p - n) for p, n in zip(patch, image.shape, strict=True)]
    before = _triple(m // 2 for m in missing)
    sides = [(m // 2, m - m // 2) for m in reversed(missing)]
    padded = F.pad(image, [voxels for side in sides for voxels in side])
    return padded, Box.whole(_triple(image.shape)).shifted(before)


def _boxes(starts: tuple[list[int], ...], patch: Triple) -> Iterator[Box]:
    for corner in itertools.product(*starts):
        yield Box.whole(patch).shifted(_triple(corner))


def _predict(network: Runner, window: torch.Tensor, mirror: bool) -> torch.Tensor:
    """Return the logits (1, C, Z, Y, X) of a window (1, 1, Z, Y, X)."""
    logits = network(window).float()
    if not mirror:
        return logits
    logits = logits.clone()  # the next call may write over it
    for axes in FLIPS[1:]:
        logits += network(window.flip(axes)).flip(axes)
    return logits / len(FLIPS)


def _add(target: torch.Tensor, window: torch.Tensor, weight: torch.Tensor | None) -> None:
    if weight is None:
        target.add_(window)
    else:
        target.addcmul_(window, weight)


def _weights(length: int, gaussian: bool, device: torch.device) -> torch.Tensor:
    """Return a window's weights along one axis; the window's are the product of the three.

    The Gaussian is nnU-Net's: centered on voxel n // 2 with a deviation of an eighth of the
    window. It is nowhere zero, as it reaches four deviations.
    """
    if not gaussian:
        return torch.ones(length, device=device)
    impulse = torch.zeros(length, dtype=torch.float64)
    impulse[length // 2] = 1
    bell = torch.from_numpy(gaussian_filter1d(impulse.numpy(), length / 8, mode="constant"))
    return (bell / bell.max()).float().to(device)


def _sums(starts: list[int], weights: torch.Tensor, length: int) -> torch.Tensor:
    """Return the sum of all windows' weights along one axis.

    Windows lie on a product grid and weights are products, so the sums are too.
    """
    sums = weights.new_zeros(length)
    for start in starts:
        sums[start : start + len(weights)] += weights
    return sums


def _outer(axes: list[torch.Tensor]) -> torch.Tensor:
    z, y, x = axes
    return z[:, None, None] * y[:, None] * x


def _triple(values: "torch.Size | tuple[int, ...] | Iterator[int]") -> Triple:
    z, y, x = values
    return z, y, x
