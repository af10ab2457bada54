"""Sliding-window prediction: windows on a regular grid, their logits averaged where they overlap.

The paper predicts without Gaussian weights and without mirroring (2.4); both can be switched on
and then do what nnU-Net does. Windows go from plane to plane. Only the planes that a window still
reaches are held; the others are handed on, so memory grows with the window and not with the scan,
unless the logits of the whole are asked for.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from scipy.ndimage import gaussian_filter1d

from cfseg.errors import UsageError
from cfseg.geometry import Box, Triple
from cfseg.networks.backends import Runner
from cfseg.preprocessing.prepare import slab_planes
from cfseg.recipes.recipe import Pad

OnWindow = Callable[[int, int], None]
"""Called after each window with how many are done and how many there are."""

OnPlanes = Callable[[torch.Tensor], None]
"""Called with the logits (C, n, Y, X) of the next n planes; they are valid during the call."""

UNIFORM = 1e-3
"""Windows whose z-scores differ by less hold nothing: one answer serves them all."""

FLIPS = [axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
"""The eight ways to mirror (N, C, Z, Y, X)."""


@dataclass(frozen=True)
class Windows:
    """How windows are laid out and averaged.

    Attributes:
        step: largest distance between windows as a fraction of the patch, in (0, 1].
        gaussian: weight the center of a window more than its border.
        mirror: average over all eight reflections of each window; eight times the work.
        pad: what surrounds an image that is smaller than a window: ``zero``, the mean intensity
            after the z-score, as in training, or its own ``edge``.
        remember: hold the logits of a window that holds nothing for the others like it.
    """

    step: float
    gaussian: bool = False
    mirror: bool = False
    pad: Pad = "zero"
    remember: bool = True


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
    windows: Windows,
    on_window: OnWindow | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the network's logits for a whole image, (C, Z, Y, X) of ``dtype`` on its device.

    Args and errors are those of :func:`predict_planes`.
    """
    padded, inside = _padded(image, patch, windows.pad)
    sums = _Sums(classes, padded.shape[0], padded, dtype)
    _run(network, padded, inside, patch, windows, sums, None, on_window)
    return sums.sums[:, *inside.slices]


def predict_planes(
    network: Runner,
    image: torch.Tensor,
    classes: int,
    patch: Triple,
    windows: Windows,
    on_planes: OnPlanes,
    on_window: OnWindow | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Run a network over an image and hand on the logits of its planes as they are finished.

    An image that is smaller than a window is padded evenly on both sides.

    Args:
        network: from (1, 1, Z, Y, X) to logits (1, C, Z, Y, X), on the image's device.
        image: (Z, Y, X) float32 z-scores.
        classes: channels of the network's output.
        patch: (z, y, x) of a window.
        windows: how they are laid out.
        on_planes: see :data:`OnPlanes`; all planes of the image come, in order.
        on_window: see :data:`OnWindow`.
        dtype: of the sums. Half precision halves their memory and costs three times the time.

    Raises:
        UsageError: the step is not in (0, 1].
    """
    padded, inside = _padded(image, patch, windows.pad)
    sums = _Sums(classes, patch[0], padded, dtype)
    _run(network, padded, inside, patch, windows, sums, on_planes, on_window)


@torch.inference_mode()
def _run(
    network: Runner,
    padded: torch.Tensor,
    inside: Box,
    patch: Triple,
    windows: Windows,
    sums: "_Sums",
    on_planes: OnPlanes | None,
    on_window: OnWindow | None,
) -> None:
    """Add up the windows of an image that is at least as large as one, here ``padded``."""
    starts = window_starts(_triple(padded.shape), patch, windows.step)
    weights = [_weights(p, windows.gaussian, padded.device) for p in patch]
    weight = _outer(weights) if windows.gaussian else None
    by_axis = [_sums(*axis) for axis in zip(starts, weights, padded.shape, strict=True)]
    answers = _Answers(network, padded, list(_boxes(starts, patch)), windows)
    total, done = len(answers), 0
    for start, stop in itertools.pairwise((*starts[0], padded.shape[0])):
        for box in _boxes(([start], starts[1], starts[2]), patch):
            if sums.half:
                shares = zip(weights, by_axis, box.slices, strict=True)
                weight = _outer([w / total[side] for w, total, side in shares])
            _add(sums.at(box), answers.next(), weight)
            done += 1
            if on_window is not None:
                on_window(done, total)
        first, last = max(start, inside.start[0]), min(stop, inside.stop[0])
        if first < last:
            finished = sums.averages(first, last, by_axis)
            if on_planes is not None:
                on_planes(finished[:, :, *inside.slices[1:]])
        sums.drop_before(stop)


class _Answers:
    """The logits of window after window; those that hold nothing are asked about once.

    Which those are is found before the first window, so that no GPU has to wait in between.
    """

    def __init__(
        self, network: Runner, image: torch.Tensor, boxes: list[Box], windows: Windows
    ) -> None:
        self.network, self.image, self.boxes, self.mirror = network, image, boxes, windows.mirror
        self.levels = _levels(image, boxes) if windows.remember else [None] * len(boxes)
        self.known: dict[float, torch.Tensor] = {}
        self.done = 0

    def __len__(self) -> int:
        return len(self.boxes)

    def next(self) -> torch.Tensor:
        """Return the logits (C, Z, Y, X) of the next window."""
        box, level = self.boxes[self.done], self.levels[self.done]
        self.done += 1
        if level in self.known:
            return self.known[level]
        logits = _predict(self.network, self.image[box.slices][None, None], self.mirror)[0]
        if level is not None and level in self.levels[self.done :]:
            self.known = {level: logits.clone()}
        return logits


def _levels(image: torch.Tensor, boxes: list[Box]) -> list[float | None]:
    """Return of each box the value, in steps of UNIFORM, that all of it has, or None."""
    ranges = [torch.stack(torch.aminmax(image[box.slices])) for box in boxes]
    return [
        round(low / UNIFORM) * UNIFORM if high - low < UNIFORM else None
        for low, high in torch.stack(ranges).tolist()
    ]


class _Sums:
    """Sums of logits on so many planes, as a window has or all, the ``first`` of them and on.

    In half precision they are sums of shares: at the corners of an image the weights of a Gaussian
    are too small for it, their shares in all weights are not.
    """

    def __init__(self, classes: int, planes: int, image: torch.Tensor, dtype: torch.dtype) -> None:
        shape = (classes, planes, *image.shape[1:])
        self.whole, self.half = planes == image.shape[0], dtype is torch.float16
        self.sums = torch.zeros(shape, dtype=dtype, device=image.device)
        self.first = 0

    def at(self, box: Box) -> torch.Tensor:
        z, y, x = box.slices
        return self.sums[:, z.start - self.first : z.stop - self.first, y, x]

    def averages(self, start: int, stop: int, weights: list[torch.Tensor]) -> torch.Tensor:
        """Return planes divided by the sum of all windows' weights, which are given by axis."""
        planes = self.sums[:, start - self.first : stop - self.first]
        if not self.half:  # shares add up to averages
            z, y, x = weights
            slab = slab_planes(self.sums.shape[1:])
            depths = torch.split(z[start:stop], slab)
            for some, depth in zip(torch.split(planes, slab, dim=1), depths, strict=True):
                some.div_(_outer([depth, y, x]))
        return planes

    def drop_before(self, plane: int) -> None:
        """Move on so that ``plane`` is the first, unless all are held; those that are new are 0."""
        gone = plane - self.first
        if self.whole or gone == 0:
            return
        kept = self.sums.shape[1] - gone
        for start in range(0, kept, gone):  # so that no piece is copied over itself
            stop = min(start + gone, kept)
            self.sums[:, start:stop] = self.sums[:, start + gone : stop + gone]
        self.sums[:, kept:] = 0
        self.first = plane


def _padded(image: torch.Tensor, patch: Triple, pad: Pad) -> tuple[torch.Tensor, Box]:
    """Return the image at the size of a window at least, and the box of the image in it."""
    missing = [max(0, p - n) for p, n in zip(patch, image.shape, strict=True)]
    if not any(missing):
        return image, Box.whole(_triple(image.shape))
    before = _triple(m // 2 for m in missing)
    sides = [voxels for m in reversed(missing) for voxels in (m // 2, m - m // 2)]
    if pad == "edge":
        padded = F.pad(image[None, None], sides, mode="replicate")[0, 0]
    else:
        padded = F.pad(image, sides)
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
        answer = network(window.flip(axes))
        for number in range(logits.shape[1]):  # class by class, for a small copy
            logits[:, number : number + 1] += answer[:, number : number + 1].flip(axes)
    return logits.div_(len(FLIPS))


def _add(target: torch.Tensor, window: torch.Tensor, weight: torch.Tensor | None) -> None:
    if weight is None:
        target.add_(window)
    elif target.dtype is window.dtype:
        target.addcmul_(window, weight)
    else:  # class by class, as both are copied to one precision
        for sums, logits in zip(target, window, strict=True):
            sums.addcmul_(logits, weight)


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
