"""What is being rendered: tissues on a grid, the patient's look, and the random numbers for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, pi

import numpy as np
import torch

from cfseg.feed.rendering.ranges import Range, Rendering
from cfseg.feed.smooth import blobs, blurred
from cfseg.geometry import Triple, TripleMm
from cfseg.phantoms.appearance import Look

_LEAST_SIGMA = 0.8
"""Of a smooth field, voxels; finer ones are made as white noise that is blurred."""


@dataclass
class Scene:
    """One crop on its way from tissues to HU.

    Attributes:
        rng: what few numbers are drawn from.
        torch_rng: what fields of noise are drawn from, on their device.
        ranges: how far all varies.
        mm: spacing, (z, y, x).
        look: contrast phase and mean HU of each tissue.
        tissue: (Z, Y, X) uint8.
        labels: (Z, Y, X) uint8.
    """

    rng: np.random.Generator
    torch_rng: torch.Generator
    ranges: Rendering
    mm: TripleMm
    look: Look
    tissue: torch.Tensor
    labels: torch.Tensor
    _voxels: list[int] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """That everything is on."""
        return self.tissue.device

    @property
    def shape(self) -> Triple:
        """(z, y, x) voxels."""
        z, y, x = self.tissue.shape
        return z, y, x

    def sometimes(self, probability: float) -> bool:
        """Throw a coin."""
        return bool(self.rng.random() < probability)

    def within(self, limits: Range) -> float:
        """Draw a number from a range."""
        return float(self.rng.uniform(*limits))

    def has(self, *tissues: int) -> bool:
        """Tell whether any of some tissues is there; what is not there costs nothing."""
        if not self._voxels:
            self._voxels = torch.bincount(self.tissue.flatten(), minlength=256).tolist()
        return any(self._voxels[tissue] for tissue in tissues)

    def forget(self) -> None:
        """Look again at what is there: tissues were painted."""
        self._voxels = []

    def of(self, *tissues: int) -> torch.Tensor:
        """Return where some tissues are, (Z, Y, X) bool."""
        mask = self.tissue == tissues[0]
        for tissue in tissues[1:]:
            mask |= self.tissue == tissue
        return mask

    def white(self, shape: Sequence[int] | None = None) -> torch.Tensor:
        """Return noise of unit variance, of the crop's shape or another."""
        return torch.randn(shape or self.shape, generator=self.torch_rng, device=self.device)

    def smooth(self, size_mm: float, shape: Triple | None = None) -> torch.Tensor:
        """Return noise of about unit variance whose structures are about ``size_mm`` large."""
        return smooth_noise(
            self.torch_rng, shape or self.shape, [size_mm / 2 / mm for mm in self.mm], self.device
        )

    def deep(self, mask: torch.Tensor, sigma_mm: float) -> torch.Tensor:
        """Return how much of the surroundings belongs to a mask, from 0 to 1: depth without EDT."""
        return softened(mask.to(torch.float32), [sigma_mm / mm for mm in self.mm])

    def axis(self, axis: int) -> torch.Tensor:
        """Return where voxels are along an axis, mm from the middle; to be broadcast."""
        line = torch.arange(self.shape[axis], device=self.device) - (self.shape[axis] - 1) / 2
        return (line * self.mm[axis]).reshape([-1 if a == axis else 1 for a in range(3)])


def smooth_noise(
    rng: torch.Generator, shape: Triple, sigmas: Sequence[float], device: torch.device
) -> torch.Tensor:
    """Return (Z, Y, X) noise of about unit variance, smooth as Gaussians of some sigma.

    Args:
        rng: of the device.
        shape: (Z, Y, X).
        sigmas: along each axis, voxels.
        device: of the noise.
    """
    spread = [_spread(*side, device) for side in zip(shape, sigmas, strict=True)]
    z, y, x = spread
    noise = torch.randn([one.shape[1] for one in spread], generator=rng, device=device)
    noise = torch.tensordot(z, noise, dims=1)
    made: torch.Tensor = (y @ noise) @ x.T
    return made


def _spread(size: int, sigma: float, device: torch.device) -> torch.Tensor:
    """Return (size, count): how random values are spread over an axis; squares add up to 1."""
    sigma = max(sigma, _LEAST_SIGMA)
    # Two more at either end, or the field would fade there. The squares of blobs that are a sigma
    # apart add up to the root of pi.
    line: torch.Tensor = blobs(size, ceil(size / sigma) + 4, sigma) / pi**0.25
    return line.to(device)


def softened(volume: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Return a volume blurred along each axis by a sigma in voxels; tiny ones change nothing."""
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.2:
            volume = blurred(volume, axis, sigma)
    return volume
