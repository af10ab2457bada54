"""Crops become windows: turned, scaled, bent and changed in brightness as nnU-Net does it.

What is drawn is a function of (seed, step, sample), so a window does not depend on the batch or the
process that it is made in. One warp serves the scan and its labels. The samples of a batch are made
one after the other, because most of them need few of the operations; what is large is computed on
the device that the crops are on, and nothing waits for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, pi, radians, sqrt
from typing import Self, TypeVar

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional

from cfseg.feed.randomness import AUGMENTATION, generator
from cfseg.feed.smooth import blobs, blurred
from cfseg.geometry import Triple
from cfseg.plan import Intensity
from cfseg.recipes.training import Training

Range = tuple[float, float]
Three = tuple[float, float, float]
_T = TypeVar("_T")

FLAT = 3.0
"""nnU-Net warps within the slices alone where a patch is longer than so many times its height."""
CROP_SCALE = 0.85
"""nnU-Net divides the extent of a turned patch by it; what lies beyond such a crop is not read."""
CROP_SIGMAS = 3.0
"""Of the displacement by which a bent window reaches further."""
_TINY = 1e-7


@dataclass(frozen=True)
class Augmentation:
    """How often and how much; by default as nnU-Net v1, as the paper gives no numbers (2.1).

    Probabilities are of a sample. Ranges are uniform; those of ``scale`` and ``gamma`` have one
    half of their draws below 1 and the other above.

    Attributes:
        flat: warp, and lose resolution, within the slices alone.
        degrees: largest angle around each axis; where ``flat``, around z alone.
        scale: of the field of view: above 1 all gets smaller.
        elastic_alpha: factor of the noise that displaces voxels, see :class:`Draw`.
        elastic_sigma: by which that noise is smoothed, voxels.
        noise: standard deviation, z-scores.
        blur: sigma of each axis, voxels.
        brightness: factor of the z-scores.
        contrast: factor of the distance from the mean, within the range of values.
        resolution: share of the voxels that are left along an axis.
        gamma: exponent; the mean and the standard deviation stay.
        mirror: each axis in half of the samples.
    """

    flat: bool = False
    degrees: float = 30.0
    rotation_probability: float = 0.2
    scale: Range = (0.7, 1.4)
    scale_probability: float = 0.2
    elastic_alpha: Range = (0.0, 900.0)
    elastic_sigma: Range = (9.0, 13.0)
    elastic_probability: float = 0.0
    noise: Range = (0.0, 0.1)
    noise_probability: float = 0.1
    blur: Range = (0.5, 1.0)
    blur_probability: float = 0.1
    brightness: Range = (0.75, 1.25)
    brightness_probability: float = 0.15
    contrast: Range = (0.75, 1.25)
    contrast_probability: float = 0.15
    resolution: Range = (0.5, 1.0)
    resolution_probability: float = 0.125
    gamma: Range = (0.7, 1.5)
    gamma_inverted_probability: float = 0.1
    gamma_probability: float = 0.3
    mirror: bool = False

    @classmethod
    def of(cls, training: Training, patch: Triple) -> Self:
        """Return what a recipe asks for.

        Args:
            training: says whether to mirror, and how often to bend.
            patch: (z, y, x) voxels; one that is flat is turned within the slices, by any angle.
        """
        made = cls(elastic_probability=training.elastic_probability, mirror=training.mirror)
        if max(patch) / patch[0] <= FLAT:
            return made
        return replace(made, flat=True, degrees=180.0, elastic_alpha=(0.0, 200.0))


@dataclass(frozen=True)
class Draw:
    """What happens to one sample; by default nothing. Axes are (z, y, x).

    Attributes:
        flat: see :class:`Augmentation`.
        angles: around each axis, radians.
        scale: of the field of view.
        elastic_alpha: the displacement is so many times uniform noise from -1 to 1, smoothed.
        elastic_sigma: by which it is smoothed, voxels.
        noise: standard deviation, z-scores.
        blur: sigma along each axis, voxels.
        brightness: factor of the z-scores.
        contrast: factor of the distance from the mean.
        resolution: share of the voxels along each axis.
        gamma_inverted: exponent of the inverted scan.
        gamma: exponent of the scan.
        mirror: along which axes.
        seeds: of the noise that displaces, and of the noise that is added.
    """

    flat: bool = False
    angles: Three = (0.0, 0.0, 0.0)
    scale: float = 1.0
    elastic_alpha: float = 0.0
    elastic_sigma: float = 9.0
    noise: float = 0.0
    blur: Three = (0.0, 0.0, 0.0)
    brightness: float = 1.0
    contrast: float = 1.0
    resolution: float = 1.0
    gamma_inverted: float = 1.0
    gamma: float = 1.0
    mirror: tuple[bool, bool, bool] = (False, False, False)
    seeds: tuple[int, int] = (0, 0)

    @property
    def warps(self) -> bool:
        """Whether voxels are read between voxels."""
        return any(self.angles) or self.scale != 1 or self.elastic_alpha > 0

    def matrix(self) -> np.ndarray:
        """Return (3, 3): a voxel's distance to the window's center to that in the crop."""
        scale = np.array((1.0 if self.flat else self.scale, self.scale, self.scale))
        matrix: np.ndarray = Rotation.from_euler("xyz", self.angles).as_matrix() * scale
        return matrix


def draw(settings: Augmentation, seed: int, step: int, samples: Iterable[int]) -> list[Draw]:
    """Return what happens to some samples of a step.

    Args:
        settings: how often and how much.
        seed: of the training.
        step: of the training, from 0.
        samples: their numbers within the joined batch, from 0.
    """
    return [_draw(settings, _Dice(seed, step, sample)) for sample in samples]


class _Dice:
    """Throws the dice of one sample, as often and in the same order whatever falls."""

    def __init__(self, seed: int, step: int, sample: int) -> None:
        self.generator = generator(seed, step, sample, AUGMENTATION)

    def sometimes(self, probability: float, value: _T, otherwise: _T) -> _T:
        return value if self.generator.random() < probability else otherwise

    def within(self, limits: Range) -> float:
        return float(self.generator.uniform(*limits))

    def around_one(self, limits: Range) -> float:
        """Draw from the part below 1 as often as from that above."""
        return self.sometimes(0.5, self.within((limits[0], 1.0)), self.within((1.0, limits[1])))

    def three(self, limits: Range) -> Three:
        return self.within(limits), self.within(limits), self.within(limits)

    def coins(self) -> tuple[bool, bool, bool]:
        first, second, third = self.generator.integers(2, size=3)
        return bool(first), bool(second), bool(third)

    def seed(self) -> int:
        return int(self.generator.integers(2**63))


def _draw(s: Augmentation, dice: _Dice) -> Draw:
    turned = dice.three((-radians(s.degrees), radians(s.degrees)))
    if s.flat:
        turned = (turned[0], 0.0, 0.0)
    mirrored = dice.coins()
    return Draw(
        flat=s.flat,
        angles=dice.sometimes(s.rotation_probability, turned, (0.0, 0.0, 0.0)),
        scale=dice.sometimes(s.scale_probability, dice.around_one(s.scale), 1.0),
        elastic_alpha=dice.sometimes(s.elastic_probability, dice.within(s.elastic_alpha), 0.0),
        elastic_sigma=dice.within(s.elastic_sigma),
        noise=dice.sometimes(s.noise_probability, dice.within(s.noise), 0.0),
        blur=dice.sometimes(s.blur_probability, dice.three(s.blur), (0.0, 0.0, 0.0)),
        brightness=dice.sometimes(s.brightness_probability, dice.within(s.brightness), 1.0),
        contrast=dice.sometimes(s.contrast_probability, dice.within(s.contrast), 1.0),
        resolution=dice.sometimes(s.resolution_probability, dice.within(s.resolution), 1.0),
        gamma_inverted=dice.sometimes(s.gamma_inverted_probability, dice.around_one(s.gamma), 1.0),
        gamma=dice.sometimes(s.gamma_probability, dice.around_one(s.gamma), 1.0),
        mirror=mirrored if s.mirror else (False, False, False),
        seeds=(dice.seed(), dice.seed()),
    )


# -- how much of the scan is needed ------------------------------------------------------------


def crop_shape(settings: Augmentation, patch: Triple) -> Triple:
    """Return the (z, y, x) shape of nnU-Net's crops, which most turned windows fit in.

    Args:
        settings: gives the largest angle.
        patch: of the windows, (z, y, x) voxels.
    """
    angle = radians(min(settings.degrees, 90.0))
    around_each = Rotation.from_euler("xyz", angle * np.eye(3)).as_matrix()
    turned = np.abs(np.array(patch) @ around_each)
    z, y, x = (int(n) for n in np.maximum(turned.max(axis=0), patch) / CROP_SCALE)
    return (patch[0] if settings.flat else z, y, x)


def crop_shape_of(one: Draw, patch: Triple, most: Triple) -> Triple:
    """Return the (z, y, x) shape of the crop that a sample needs: for most, the patch itself.

    Args:
        one: what happens to the sample.
        patch: of the window.
        most: see :func:`crop_shape`.
    """
    if not one.warps:
        return patch
    reach = np.abs(one.matrix()) @ (np.array(patch) / 2 + CROP_SIGMAS * _displacement(one))
    z, y, x = (
        min(limit, size + 2 * max(0, ceil(far - size / 2)))
        for far, size, limit in zip(reach, patch, most, strict=True)
    )
    return (patch[0] if one.flat else z, y, x)


def _displacement(one: Draw) -> float:
    """Return the standard deviation of a displacement along an axis, voxels.

    Uniform noise from -1 to 1 has a variance of a third; smoothing divides it along each axis.
    """
    axes = 2 if one.flat else 3
    return one.elastic_alpha * sqrt((1 / 3) / (2 * sqrt(pi) * one.elastic_sigma) ** axes)


# -- what happens ------------------------------------------------------------------------------


def augment(
    hu: Sequence[torch.Tensor] | torch.Tensor,
    labels: Sequence[torch.Tensor] | torch.Tensor,
    draws: Sequence[Draw],
    patch: Triple,
    intensity: Intensity,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, 1, Z, Y, X) float32 z-scores and (B, Z, Y, X) uint8 labels, contiguous.

    What a warp reads beyond a crop is air, with label 0. All values of labels come back as they
    are, one that says *ignore* too.

    Args:
        hu: B crops, each (Zc, Yc, Xc), no smaller than the patch and with the same center; of one
            shape in a tensor, or each of its own. Clipped to the range of ``intensity``.
        labels: of the same voxels, uint8.
        draws: what happens to each sample.
        patch: (Z, Y, X).
        intensity: by which z-scores are computed.

    Raises:
        ValueError: a crop is smaller than the patch.
    """
    made = [_window(*crop, patch, intensity) for crop in zip(hu, labels, draws, strict=True)]
    return torch.stack([scan[None] for scan, _ in made]), torch.stack([ids for _, ids in made])


def _window(
    hu: torch.Tensor, labels: torch.Tensor, one: Draw, patch: Triple, intensity: Intensity
) -> tuple[torch.Tensor, torch.Tensor]:
    if any(n < p for n, p in zip(hu.shape, patch, strict=True)):
        raise ValueError(f"a crop of {tuple(hu.shape)} voxels for a patch of {patch}")
    if one.warps:
        grid = _grid(one, hu.shape, patch, hu.device)
        above_air = hu.to(torch.float32) - intensity.lower
        scan = _read(above_air, grid, patch, "bilinear").add_(intensity.lower)
        ids = _read(labels.to(torch.float32), grid, patch, "nearest").to(torch.uint8)
    else:
        scan = _middle(hu, patch).to(torch.float32)
        ids = _middle(labels, patch)
    scan = _intensities((scan - intensity.mean).div_(intensity.std), one)
    axes = [axis for axis, mirrored in enumerate(one.mirror) if mirrored]
    return (scan.flip(axes), ids.flip(axes)) if axes else (scan, ids)


def _middle(volume: torch.Tensor, patch: Triple) -> torch.Tensor:
    for axis, size in enumerate(patch):
        volume = volume.narrow(axis, (volume.shape[axis] - size) // 2, size)
    return volume


# -- the warp ----------------------------------------------------------------------------------


def _grid(one: Draw, crop: Sequence[int], patch: Triple, device: torch.device) -> torch.Tensor:
    """Return where each voxel is read in the crop, in the coordinates of ``grid_sample``.

    Voxels are displaced, then scaled, then turned about the window's center. The result is
    (Z, Y, X, 3), or (Y, X, 2) where all slices are alike; the last axis is (x, y, z).
    """
    first = 1 if one.flat else 0
    shape, within = np.array(patch[first:]), np.array(crop[first:])
    center = (within - shape) // 2 + (shape - 1) / 2
    to_unit = 2 / within[:, None]  # from voxels to the coordinates of grid_sample, from -1 to 1
    matrix = (one.matrix()[first:, first:] * to_unit)[::-1]
    place = ((2 * center + 1) / within - 1)[::-1]
    grid = torch.zeros(1, len(shape), device=device)
    for axis, size in enumerate(patch[first:]):
        line = np.outer(np.arange(size) - (size - 1) / 2, matrix[:, axis])
        if axis == 0:
            line = line + place
        grid = grid[..., None, :] + torch.tensor(line, dtype=torch.float32, device=device)
    grid = grid.squeeze(0)
    if one.elastic_alpha > 0:
        grid += _displaced(one, patch[first:], torch.from_numpy(matrix.copy()), device)
    return grid


def _displaced(
    one: Draw, shape: Sequence[int], matrix: torch.Tensor, device: torch.device
) -> torch.Tensor:
    """Return how far voxels are displaced, as ``matrix`` counts it: (..., len(matrix)).

    Smoothed noise needs no more than a random value per sigma: blobs a sigma apart, each with the
    Gaussian's shape, are the same field to a ten-thousandth of its variance.
    """
    sigma, generator = one.elastic_sigma, torch.Generator().manual_seed(one.seeds[0])
    spread = [blobs(size, ceil(size / sigma), sigma) for size in shape]
    counts = [one_axis.shape[1] for one_axis in spread]
    noise = torch.randn(len(shape), *counts, generator=generator, dtype=torch.float64)
    # The squares of a Gaussian's blobs that are a sigma apart add up to the root of pi.
    strength = _displacement(one) / sqrt(pi) ** (len(shape) / 2)
    mixed = (strength * torch.tensordot(matrix, noise, dims=1)).to(torch.float32)
    letters = "zyx"[-len(shape) :]
    terms = ",".join(f"{letter}{letter.upper()}" for letter in letters)
    return torch.einsum(
        f"c{letters.upper()},{terms}->{letters}c",
        mixed.to(device), *[one_axis.to(device) for one_axis in spread],
    )  # fmt: skip


def _read(volume: torch.Tensor, grid: torch.Tensor, patch: Triple, mode: str) -> torch.Tensor:
    """Return (Z, Y, X) read from a float volume; 0 beyond it."""
    if grid.shape[-1] == 2:  # all slices alike: they are channels
        slices = volume.narrow(0, (volume.shape[0] - patch[0]) // 2, patch[0])
        return functional.grid_sample(slices[None], grid[None], mode, align_corners=False)[0]
    read = functional.grid_sample(volume[None, None], grid[None], mode, align_corners=False)
    return read[0, 0]


# -- intensities -------------------------------------------------------------------------------


def _intensities(scan: torch.Tensor, one: Draw) -> torch.Tensor:
    """Return changed z-scores, in nnU-Net's order; ``scan`` may be written to."""
    if one.noise > 0:
        scan += one.noise * _normal(scan.shape, one.seeds[1], scan.device)
    for axis, sigma in enumerate(one.blur):
        scan = blurred(scan, axis, sigma) if sigma > 0 else scan
    if one.brightness != 1:
        scan *= one.brightness
    if one.contrast != 1:
        mean, (lowest, highest) = scan.mean(), scan.aminmax()
        scan.sub_(mean).mul_(one.contrast).add_(mean).clamp_(lowest, highest)
    if one.resolution < 1:
        scan = _coarser(scan, one)
    if one.gamma_inverted != 1:
        scan = _with_gamma(scan.neg_(), one.gamma_inverted).neg_()
    if one.gamma != 1:
        scan = _with_gamma(scan, one.gamma)
    return scan


def _normal(shape: Sequence[int], seed: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device)


def _coarser(scan: torch.Tensor, one: Draw) -> torch.Tensor:
    """Lose voxels, the nearest stay, and interpolate them linearly."""
    z, y, x = (max(1, round(size * one.resolution)) for size in scan.shape)
    few = (scan.shape[0] if one.flat else z, y, x)
    coarse = functional.interpolate(scan[None, None], few, mode="nearest-exact")
    return functional.interpolate(coarse, scan.shape, mode="trilinear")[0, 0]


def _with_gamma(scan: torch.Tensor, gamma: float) -> torch.Tensor:
    """Raise the share of the range of values to a power; mean and standard deviation stay."""
    mean, std, (lowest, highest) = scan.mean(), scan.std(), scan.aminmax()
    extent = (highest - lowest).clamp_min(_TINY)
    scan.sub_(lowest).div_(extent).pow_(gamma).mul_(extent).add_(lowest)
    return scan.sub_(scan.mean()).mul_(std / scan.std().clamp_min(_TINY)).add_(mean)
