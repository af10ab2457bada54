"""From tissues to HU, as :mod:`cfseg.phantoms.appearance` does it, without knowing any shapes."""

import torch

from cfseg.feed.rendering.scene import Scene
from cfseg.phantoms import tissues as t
from cfseg.phantoms.appearance import GAS_HU, Filling, Look
from cfseg.phantoms.class_names import UNKNOWN

KIDNEYS = (2, 13)
LUMINA: dict[int, tuple[float, float]] = {11: (4.0, 0.75), t.COLON: (4.0, 0.7), 12: (3.0, 0.8)}
"""Where a hollow organ has its lumen: sigma in mm and depth, see :meth:`Scene.deep`."""
LIKE: dict[int, tuple[int, float]] = {
    t.BLADDER: (t.FLUID, 0.0),
    t.SOFT: (t.MUSCLE, -8.0),
    t.ARTERY: (5, 0.0),
}
"""Tissues of atlases that no phantom has: the one they look like and the difference, HU."""
NAMELESS = ((-0.5, t.VISCERAL), (0.4, t.BOWEL), (1.0, t.MUSCLE), (9.0, t.FLUID))
"""What unknown tissue is shown as: up to which value of a smooth field."""


def guess_unknown(scene: Scene) -> None:
    """Show some tissue or other where nobody knows what is there; it is ignored in the loss."""
    if not scene.has(UNKNOWN):
        return
    blob = scene.smooth(40)
    kinds = torch.tensor([kind for _, kind in NAMELESS], dtype=torch.uint8, device=scene.device)
    limits = torch.tensor([limit for limit, _ in NAMELESS[:-1]], device=scene.device)
    guessed = kinds[torch.bucketize(blob, limits)]
    scene.tissue = torch.where(scene.tissue == UNKNOWN, guessed, scene.tissue)
    scene.forget()


def render(scene: Scene) -> torch.Tensor:
    """Return (Z, Y, X) float32 HU, without lesions, blur or noise."""
    flat = scene.tissue.flatten().to(torch.int32)
    image = _means(scene.look).to(scene.device).index_select(0, flat).reshape(scene.shape)
    fine, wide = scene.smooth(6), scene.smooth(15)
    fat = scene.of(t.SUBCUTANEOUS, t.VISCERAL)
    grain = fine * scene.within(scene.ranges.fine_hu)
    grain.add_(wide, alpha=scene.within(scene.ranges.wide_hu)).mul_(1 + 0.5 * fat)
    image += grain.mul_(~scene.of(t.AIR, t.TABLE, t.GAS))
    _strands(scene, image, fine, wide)
    _liver_vessels(scene, image)
    _kidneys(scene, image)
    _bones_and_lungs(scene, image, fine)
    _hollow(scene, image, grain)
    return image


def _means(look: Look) -> torch.Tensor:
    """Return the mean HU of each tissue, (256,)."""
    means = torch.full((256,), float(GAS_HU))
    for tissue, hu in look.hu.items():
        means[tissue] = hu
    for tissue, (other, offset) in LIKE.items():
        means[tissue] = look.hu[other] + offset
    return means


def _strands(scene: Scene, image: torch.Tensor, fine: torch.Tensor, wide: torch.Tensor) -> None:
    """Strands in fat, fat in muscle and between the lobules of the pancreas."""
    image += 70 * (scene.of(t.VISCERAL) & (fine + 0.5 * wide > 1.9))
    image -= 45 * (scene.of(t.MUSCLE) & (fine > 1.7))
    if scene.has(4):
        image -= 95 * (scene.of(4) & (fine > 1.35))


def _liver_vessels(scene: Scene, image: torch.Tensor) -> None:
    """Vessels are where two smooth random fields vanish together."""
    if not scene.has(1):
        return
    near = torch.hypot(scene.smooth(32), scene.smooth(32)) < scene.within(scene.ranges.vessel)
    brighter = 0.75 * (scene.look.hu[t.VEIN] - scene.look.hu[1])
    image += brighter * (near & scene.of(1))


def _kidneys(scene: Scene, image: torch.Tensor) -> None:
    """Medulla below the cortex, in lobes, and fat and urine in the middle."""
    if not scene.has(*KIDNEYS):
        return
    kidneys = scene.of(*KIDNEYS)
    depth = scene.deep(kidneys, 5.0).add_(scene.smooth(14), alpha=0.04)
    darker = 38 if scene.look.phase in ("arterial", "portal-venous") else 6
    image -= darker * (kidneys & (depth > scene.within((0.72, 0.82))))
    sinus = kidneys & (depth > scene.within((0.93, 1.0)))
    image[sinus] = scene.within((-60.0, 12.0))


def _bones_and_lungs(scene: Scene, image: torch.Tensor, fine: torch.Tensor) -> None:
    """Marrow inside of bones that are thick, and vessels in the lungs."""
    if scene.has(t.BONE):
        bone = scene.of(t.BONE)
        marrow = bone & (scene.deep(bone, 4.0) > 0.8)
        inside = scene.look.hu[t.SPONGIOSA] - scene.look.hu[t.BONE]
        image += marrow * inside
    if scene.has(t.SPONGIOSA):
        image += 35 * fine * scene.of(t.SPONGIOSA)
    if scene.has(t.LUNG):
        lung = scene.of(t.LUNG)
        image += 35 * fine * lung
        image += 500 * (lung & (fine > 2.2))


def _hollow(scene: Scene, image: torch.Tensor, grain: torch.Tensor) -> None:
    """Wall, content and gas above a horizontal level: the patient lies on the back."""
    filling = Filling.sample(scene.rng)
    for tissue, gas in filling.gas.items():
        hu = filling.lumen_hu(scene.rng, tissue)
        if not scene.has(tissue):
            continue
        sigma_mm, depth = LUMINA.get(tissue, (3.0, 0.85))
        here = scene.of(tissue)
        lumen = here & (scene.deep(here, sigma_mm) > depth)
        if tissue != 10:
            image.copy_(torch.where(lumen, hu + 1.5 * grain, image))
        image.masked_fill_(lumen & _in_front(lumen, gas), GAS_HU)
    if scene.has(t.BOWEL):
        bowel, pockets = scene.of(t.BOWEL), scene.smooth(22)
        image.masked_fill_(bowel & (pockets < -0.9), scene.within((5.0, 35.0)))
        image.masked_fill_(bowel & (pockets > scene.within((1.4, 2.2))), GAS_HU)


def _in_front(lumen: torch.Tensor, share: float) -> torch.Tensor:
    """Return (Y, 1) bool: the rows that hold the front share of a lumen's voxels."""
    voxels = lumen.sum(dim=(0, 2)).cumsum(0)
    return (voxels <= share * voxels[-1])[:, None]
