"""What the scanner adds and cuts off, and what lies in its bore beside the patient."""

from math import ceil, exp, log, pi

import torch
from torch.nn import functional

from cfseg.feed.rendering.scene import Scene, softened
from cfseg.labels import IGNORE
from cfseg.phantoms import tissues as t
from cfseg.phantoms.acquisition import AIR_HU

PARTIAL_VOLUME = 0.45
"""Sigma of the blur that makes one voxel of several tissues, voxels."""
_METAL_HU = 2800.0


def surround(scene: Scene) -> None:
    """Paint a table and arms into the air about a body, if the crop reaches that far."""
    table = scene.sometimes(scene.ranges.table_probability) and not scene.has(t.TABLE)
    arms = scene.sometimes(scene.ranges.arms_probability)
    gap, height = scene.within((2.0, 14.0)), scene.within((-60.0, 40.0))
    air = scene.tissue == t.AIR
    if table:
        _table(scene, air, gap)
    if arms:
        _arms(scene, air, height)
    scene.forget()


def _table(scene: Scene, air: torch.Tensor, gap_mm: float) -> None:
    rows = torch.nonzero((~air).any(dim=2).any(dim=0))
    if not len(rows):
        return
    behind = int(rows[-1]) + 1 + round(gap_mm / scene.mm[1])
    thick = max(1, round(9 / scene.mm[1]))
    bed = slice(behind, behind + thick)
    scene.tissue[:, bed].masked_fill_(air[:, bed], t.TABLE)


def _arms(scene: Scene, air: torch.Tensor, height_mm: float) -> None:
    columns = torch.nonzero((~air).any(dim=1).any(dim=0))
    if not len(columns):
        return
    x = scene.axis(2)
    for edge, side in ((columns[0], -1), (columns[-1], 1)):
        middle = float(x.flatten()[edge]) + side * 48
        radius = torch.hypot(x - middle, (scene.axis(1) - height_mm) * 0.9)
        for tissue, size_mm in ((t.SUBCUTANEOUS, 42), (t.MUSCLE, 34), (t.BONE, 11)):
            scene.tissue.masked_fill_(air & (radius < size_mm), tissue)


def acquire(scene: Scene, image: torch.Tensor) -> torch.Tensor:
    """Return the (Z, Y, X) HU that a scanner shows; labels beyond its field become ignored."""
    ranges = scene.ranges
    image = softened(image, [PARTIAL_VOLUME] * 3)
    if scene.sometimes(ranges.metal_probability):
        _metal(scene, image)
    if scene.sometimes(ranges.blur_probability):
        image = softened(image, [scene.within(ranges.blur) for _ in range(3)])
    thick = scene.within(ranges.thick) if scene.sometimes(ranges.thick_probability) else 1.0
    if scene.sometimes(ranges.hu_error_probability):
        image.mul_(scene.within(ranges.hu_factor)).add_(scene.within(ranges.hu_offset))
    image.add_(scene.white(), alpha=exp(scene.within(_log(ranges.noise_hu))))
    if scene.sometimes(ranges.bands_probability):
        z, y, _ = scene.shape
        image.add_(scene.white((z, y, 1)), alpha=scene.within(ranges.bands_hu))
    if thick > 1:
        image = _thick(image, thick)
    _truncate(scene, image)
    return image


def _log(limits: tuple[float, float]) -> tuple[float, float]:
    return log(limits[0]), log(limits[1])


def _thick(image: torch.Tensor, thickness: float) -> torch.Tensor:
    """Average slices, and interpolate between the thick ones."""
    z, y, x = image.shape
    few = (max(1, ceil(z / thickness)), y, x)
    thick = functional.interpolate(image[None, None], few, mode="area")
    return functional.interpolate(thick, (z, y, x), mode="trilinear")[0, 0]


def _metal(scene: Scene, image: torch.Tensor) -> None:
    """Paint an implant, with bright and dark streaks from it within its slices."""
    if not scene.has(t.BONE):
        return
    places = torch.nonzero(scene.of(t.BONE))
    z, y, x = places[int(scene.rng.integers(len(places)))].tolist()
    up, back, left = (scene.axis(axis) for axis in range(3))
    up, back, left = (up - up[z], back - back[0, y], left - left[0, 0, x])
    radius = torch.hypot(back, left)
    along = torch.exp(-((up / scene.within((8.0, 30.0))) ** 2))
    turns, phase = int(scene.rng.integers(3, 8)), scene.within((0.0, 2 * pi))
    rays = torch.cos(turns * torch.atan2(back, left) + phase).sign_().mul_(torch.exp(-radius / 60))
    body = image > -300
    image += scene.within((60.0, 300.0)) * along * rays * body
    image.masked_fill_((radius < scene.within((3.0, 8.0))) & (along > 0.5), _METAL_HU)


def _truncate(scene: Scene, image: torch.Tensor) -> None:
    """Cut off what a short or a narrow scan does not show; nobody asks what was there."""
    ranges, shown = scene.ranges, None
    if scene.sometimes(ranges.truncated_z_probability):
        length, up = scene.within(ranges.slab_mm), scene.axis(0)
        shown = (up - scene.within((-0.3, 0.3)) * length).abs() <= length / 2
    if scene.sometimes(ranges.truncated_plane_probability):
        size = scene.within(ranges.field_mm)
        back, left = (scene.axis(axis) - scene.within((-0.25, 0.25)) * size for axis in (1, 2))
        square = scene.sometimes(0.5)
        reach = torch.maximum(back.abs(), left.abs()) if square else torch.hypot(back, left)
        inside = reach <= size / 2
        shown = inside if shown is None else shown & inside
    if shown is not None:
        image.masked_fill_(~shown, AIR_HU)
        scene.labels.masked_fill_(~shown, IGNORE)
