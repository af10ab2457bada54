"""Fields of view without an abdomen, in which there is no organ to find."""

import numpy as np
import torch

from cfseg.geometry import Triple, TripleMm
from cfseg.phantoms import tissues as t

AIR, WATER, HEAD, LEGS, CHEST = KINDS = ("air", "water phantom", "head", "legs", "chest")
_Ellipse = tuple[float, float, float, float]
"""Center and radii within a slice, mm: (y, x, radius along y, along x)."""


def field_of(
    kind: str, shape: Triple, mm: TripleMm, rng: np.random.Generator, device: torch.device
) -> torch.Tensor:
    """Return the (Z, Y, X) uint8 tissue of a crop.

    Args:
        kind: of :data:`KINDS`.
        shape: of the crop.
        mm: its spacing, (z, y, x).
        rng: numbers are drawn from it.
        device: of the result.
    """
    z, y, x = (
        ((torch.arange(n, device=device) - (n - 1) / 2) * side + rng.normal(0, 15)).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        for axis, (n, side) in enumerate(zip(shape, mm, strict=True))
    )
    size = rng.uniform(0.85, 1.15)
    tissue = torch.full(shape, t.AIR, dtype=torch.uint8, device=device)
    # A head has a top and a phantom two ends; limbs and the chest go on.
    closed = {HEAD: 110.0, WATER: float(rng.uniform(60, 200))}.get(kind)
    narrower = 1.0 if closed is None else (1 - (z / closed) ** 2).clamp_min(0).sqrt()
    if kind == WATER:
        narrower = (z.abs() < (closed or 0)).to(torch.float32)
    for value, (b, a, rb, ra) in _shapes(kind, rng):
        rho = torch.hypot((y - b * size) / (rb * size), (x - a * size) / (ra * size))
        tissue.masked_fill_(rho < narrower, value)
    return tissue


def _shapes(kind: str, rng: np.random.Generator) -> list[tuple[int, _Ellipse]]:
    """Return what is painted, one over the other, in the order of painting."""
    if kind == WATER:
        return _water(rng)
    return {AIR: [], HEAD: _head(rng), LEGS: _legs(rng), CHEST: _chest(rng)}[kind]


def _water(rng: np.random.Generator) -> list[tuple[int, _Ellipse]]:
    radius = rng.uniform(80, 165)
    inserts = rng.choice([t.AIR, t.BONE, t.MUSCLE, t.VISCERAL], size=int(rng.integers(5)))
    angles = rng.uniform(0, 2 * np.pi, len(inserts))
    wall: list[tuple[int, _Ellipse]] = [(t.DISC, (0, 0, radius, radius))]
    inside = (t.FLUID, (0.0, 0.0, radius - 8, radius - 8))
    places = [(radius * np.sin(a) / 2, radius * np.cos(a) / 2, 14.0, 14.0) for a in angles]
    return [*wall, inside, *zip(map(int, inserts), places, strict=True)]


def _head(rng: np.random.Generator) -> list[tuple[int, _Ellipse]]:
    skull = rng.uniform(5, 9)
    return [
        (t.MUSCLE, (0, 0, 98, 80)),
        (t.BONE, (0, 0, 91, 73)),
        (t.CANAL, (0, 0, 91 - skull, 73 - skull)),
        (t.FLUID, (-10, -9, 26, 6)),
        (t.FLUID, (-10, 9, 26, 6)),
        *(((t.AIR, (-72, 0, 12, 18)),) if rng.random() < 0.5 else ()),
    ]


def _legs(rng: np.random.Generator) -> list[tuple[int, _Ellipse]]:
    apart, thick = rng.uniform(75, 105), rng.uniform(55, 85)
    found: list[tuple[int, _Ellipse]] = []
    for side in (-apart, apart):
        found += [
            (t.SUBCUTANEOUS, (0, side, thick, thick)),
            (t.MUSCLE, (0, side, thick - 14, thick - 14)),
            (t.BONE, (0, side, 15, 15)),
            (t.SPONGIOSA, (0, side, 8, 8)),
            (t.VEIN, (-26, side * 0.8, 5, 5)),
        ]
    return found


def _chest(rng: np.random.Generator) -> list[tuple[int, _Ellipse]]:
    fat = rng.uniform(8, 30)
    return [
        (t.SUBCUTANEOUS, (0, 0, 105 + fat, 160 + fat)),
        (t.MUSCLE, (0, 0, 105, 160)),
        (t.BONE, (0, 0, 92, 143)),
        (t.MUSCLE, (0, 0, 87, 138)),
        (t.LUNG, (0, -75, 80, 60)),
        (t.LUNG, (0, 75, 80, 60)),
        (t.VISCERAL, (-20, 5, 62, 48)),
        (t.HEART, (-35, 18, 42, 50)),
        (t.BONE, (72, 0, 24, 26)),
        (t.SPONGIOSA, (68, 0, 17, 20)),
        (t.CANAL, (92, 0, 8, 9)),
    ]
