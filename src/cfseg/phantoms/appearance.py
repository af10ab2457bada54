"""From tissue classes to Hounsfield units: contrast phase, texture, contents of hollow organs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cfseg.phantoms import tissues as t
from cfseg.phantoms.anatomy import Abdomen
from cfseg.phantoms.shapes import Float, smooth_noise, texture

PHASES: dict[str, float] = {"portal-venous": 0.65, "arterial": 0.12, "native": 0.13, "delayed": 0.1}

# Mean HU by class and phase: portal-venous, arterial, native, delayed. The second number of the
# last column is the standard deviation between patients.
HU: dict[int, tuple[float, float, float, float, float]] = {
    1: (106, 74, 57, 92, 15),
    2: (150, 128, 32, 135, 24),
    3: (112, 122, 49, 95, 15),
    4: (90, 102, 38, 76, 14),
    5: (146, 300, 42, 112, 22),
    6: (122, 66, 39, 108, 20),
    7: (64, 62, 22, 54, 11),
    8: (64, 62, 22, 54, 11),
    9: (9, 9, 9, 9, 7),
    10: (54, 50, 34, 50, 10),
    11: (72, 78, 36, 66, 14),
    12: (76, 84, 34, 66, 15),
    13: (150, 128, 32, 135, 24),
    t.VEIN: (150, 90, 40, 112, 20),
    t.HEART: (140, 200, 40, 108, 22),
    t.MUSCLE: (58, 55, 50, 58, 8),
    t.BOWEL: (66, 60, 32, 62, 18),
    t.COLON: (30, 28, 25, 30, 25),
    t.BONE: (520, 510, 500, 510, 110),
    t.SPONGIOSA: (175, 170, 165, 170, 50),
    t.DISC: (88, 86, 84, 86, 14),
    t.CANAL: (30, 30, 28, 30, 5),
    t.LUNG: (-850, -850, -850, -850, 35),
    t.SUBCUTANEOUS: (-103, -103, -104, -103, 8),
    t.VISCERAL: (-97, -97, -98, -97, 8),
    t.FLUID: (10, 10, 9, 10, 5),
    t.TABLE: (-620, -620, -620, -620, 90),
    t.AIR: (-1000, -1000, -1000, -1000, 2),
}
PHASE_NAMES = tuple(PHASES)
GAS_HU = -968
"""Of gas in hollow organs."""


@dataclass(frozen=True)
class Look:
    """The contrast phase and the mean HU of each class of one patient."""

    phase: str
    hu: dict[int, float]

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        phases: Mapping[str, float] = PHASES,
        wild_probability: float = 0.12,
        wild_spread: float = 1.6,
    ) -> "Look":
        """Draw a phase and class means that vary together (strong or weak enhancement).

        Args:
            rng: numbers are drawn from it.
            phases: share of each phase of :data:`HU`.
            wild_probability: share of patients whose soft tissues vary more than others'.
            wild_spread: factor of the spread of those.
        """
        phase = str(rng.choice(list(phases), p=list(phases.values())))
        column = PHASE_NAMES.index(phase)
        together = rng.normal()
        wild = rng.random() < wild_probability
        fixed = (t.AIR, t.LUNG, t.SUBCUTANEOUS, t.VISCERAL, t.BONE, t.SPONGIOSA, t.TABLE)
        hu: dict[int, float] = {}
        for tissue, row in HU.items():
            spread = row[4] * (wild_spread if wild and tissue not in fixed else 1.0)
            own = 0.7 * rng.normal() + (0 if tissue in fixed else 0.7 * together)
            hu[tissue] = row[column] + spread * own
        hu[13] = hu[2] + rng.normal(0, 3)
        hu[8] = hu[7] + rng.normal(0, 2)
        if rng.random() < 0.25:  # steatosis
            hu[1] -= rng.uniform(4, 24)
        return cls(phase, hu)


@dataclass(frozen=True)
class Filling:
    """What is in a patient's hollow organs.

    Attributes:
        oral: the patient drank contrast agent.
        content_hu: of what lies below the gas.
        gas: share of the lumen that is gas, by tissue.
    """

    oral: bool
    content_hu: float
    gas: dict[int, float]

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Filling":
        """Draw one: a full stomach and an empty one, gas in the esophagus of some."""
        oral = rng.random() < 0.15
        content = rng.uniform(150, 320) if oral else rng.uniform(-5, 45)
        gas = {11: rng.uniform(0.05, 0.46), t.COLON: 0.35, 12: rng.uniform(0, 0.12)}
        gas[10] = 0.6 if rng.random() < 0.4 else 0.0
        return cls(oral, content, gas)

    def lumen_hu(self, rng: np.random.Generator, tissue: int) -> float:
        """Return the HU of an organ's content; what is in the colon is its own."""
        return self.content_hu if tissue != t.COLON or self.oral else rng.uniform(-40, 60)


def render(rng: np.random.Generator, body: Abdomen, look: Look) -> Float:
    """Return (Z, Y, X) float32 HU of the abdomen without lesions, blur or noise."""
    mm, shape = body.frame.spacing_mm, body.tissue.shape
    table = np.zeros(64, dtype=np.float32)
    for tissue, hu in look.hu.items():
        table[tissue] = hu
    image: Float = table[body.tissue]
    soft = (body.tissue != t.AIR) & (body.tissue != t.TABLE)
    fine = texture(rng, body.frame.shape, 6, mm)
    wide = smooth_noise(rng, body.frame.shape, 18, mm)
    amount = np.where(np.isin(body.tissue, (t.SUBCUTANEOUS, t.VISCERAL)), 6, 3.5)
    image += np.where(soft, amount * fine + 3.0 * wide, 0).astype(np.float32)
    _fat_strands(image, body, fine, wide)
    _liver_vessels(rng, image, body, look)
    _kidneys(image, body, look)
    _pancreas(image, body, fine, look)
    _hollow(rng, image, body, look)
    _bones_and_lungs(image, body, fine)
    assert image.shape == shape  # noqa: S101 - broadcasting must never grow the grid
    return image


def _fat_strands(image: Float, body: Abdomen, fine: Float, wide: Float) -> None:
    fat = body.tissue == t.VISCERAL
    image[fat & (fine + 0.5 * wide > 1.9)] += 70
    muscle = body.tissue == t.MUSCLE
    image[muscle & (fine > 1.7)] -= 45


def _liver_vessels(rng: np.random.Generator, image: Float, body: Abdomen, look: Look) -> None:
    """Vessels are where two smooth random fields vanish together."""
    shape, mm = body.frame.shape, body.frame.spacing_mm
    f1, f2 = (smooth_noise(rng, shape, 32, mm) for _ in range(2))
    vessels = (body.tissue == 1) & (np.hypot(f1, f2) < 0.16)
    image[vessels] += 0.75 * (look.hu[t.VEIN] - look.hu[1])


def _kidneys(image: Float, body: Abdomen, look: Look) -> None:
    arterial = look.phase in ("arterial", "portal-venous")
    for organ, name in ((2, "right_kidney"), (13, "left_kidney")):
        depth = body.depth[name]
        here = body.tissue[depth.window] == organ
        medulla = here & (depth.values < 0.72)
        image[depth.window][medulla] -= 38 if arterial and look.phase != "native" else 6
        sinus = body.depth[f"sinus_{organ}"]
        inside = (body.tissue[sinus.window] == organ) & (sinus.values < 1)
        fill = image[sinus.window]
        fill[inside] = np.where(sinus.values < 0.6, 10, -55)[inside]


def _pancreas(image: Float, body: Abdomen, fine: Float, look: Look) -> None:
    here = body.tissue == 4
    image[here & (fine > 1.35)] = look.hu[4] - 95


def _hollow(rng: np.random.Generator, image: Float, body: Abdomen, look: Look) -> None:
    """Wall, content and, above a horizontal level, gas (the patient lies on the back)."""
    filling = Filling.sample(rng)
    lumina = {"stomach": (11, 0.80), "colon": (t.COLON, 0.86)}
    lumina |= {"duodenum": (12, 0.62), "esophagus": (10, 0.45)}
    for name, (tissue, lumen) in lumina.items():
        depth = body.depth[name]
        inside = (body.tissue[depth.window] == tissue) & (depth.values < lumen)
        if not inside.any():
            continue
        fill = image[depth.window]
        grain = fill - look.hu[tissue]
        fill[inside] = (filling.lumen_hu(rng, tissue) + 1.5 * grain)[inside]
        height, gas = body.frame.y[depth.window], filling.gas[tissue]
        level = np.quantile(height[inside], 1 - gas) if gas else np.inf
        fill[inside & (height > level)] = GAS_HU
    _bowel_gas(rng, image, body)
    _gallbladder(image, body)


def _bowel_gas(rng: np.random.Generator, image: Float, body: Abdomen) -> None:
    pockets = smooth_noise(rng, body.frame.shape, 16, body.frame.spacing_mm)
    bowel = body.tissue == t.BOWEL
    image[bowel & (pockets > 1.75)] = -930
    image[bowel & (pockets < -0.9)] = rng.uniform(5, 35)


def _gallbladder(image: Float, body: Abdomen) -> None:
    if "gallbladder" not in body.depth:
        return
    depth = body.depth["gallbladder"]
    wall = (body.tissue[depth.window] == 9) & (depth.values > 0.85)
    image[depth.window][wall] += 20


def _bones_and_lungs(image: Float, body: Abdomen, fine: Float) -> None:
    spongiosa = body.tissue == t.SPONGIOSA
    image[spongiosa] += 35 * fine[spongiosa]
    lung = body.tissue == t.LUNG
    image[lung] += 35 * fine[lung]
    image[lung & (fine > 2.2)] = -350
