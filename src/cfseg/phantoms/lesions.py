"""Tumors of several kinds and hosts, and harmless findings that no reference labels.

Kinds, sizes and densities follow published statistics of pan-cancer CT cohorts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from cfseg.phantoms import tissues as t
from cfseg.phantoms.anatomy import Abdomen
from cfseg.phantoms.appearance import Look
from cfseg.phantoms.shapes import Field, Float, Frame, Mask, basis, ellipsoid, smooth_noise

TUMOR = 14
FREE = (t.VISCERAL, t.BOWEL, t.COLON, t.FLUID)


@dataclass(frozen=True)
class Kind:
    """One kind of tumor.

    Attributes:
        share: of all generated tumors.
        hosts: tissue ids it grows from; its centre lies in one of them.
        diameter_mm: median and factor of a lognormal.
        many: greatest number of lesions.
        hu: range added to the host's mean HU, or an absolute range if ``absolute``.
        absolute: see ``hu``.
        core: chance of a necrotic or cystic core.
        edge_mm: blur of the border.
        exophytic: how far the centre may lie outside of the host, as a share of the radius.
    """

    share: float
    hosts: tuple[int, ...]
    diameter_mm: tuple[float, float]
    many: int
    hu: tuple[float, float]
    absolute: bool = False
    core: float = 0.2
    edge_mm: float = 1.5
    exophytic: float = 0.0

    def diameter(self, rng: np.random.Generator) -> float:
        """Draw a diameter, mm."""
        median, factor = self.diameter_mm
        return float(np.clip(rng.lognormal(np.log(median), np.log(factor)), 9, 170))


KINDS: dict[str, Kind] = {
    "liver metastasis": Kind(0.27, (1,), (22, 1.6), 7, (-58, -32), core=0.35),
    "hepatocellular carcinoma": Kind(0.08, (1,), (40, 1.6), 1, (-38, -14), core=0.4),
    "renal cell carcinoma": Kind(0.18, (2, 13), (38, 1.6), 1, (-85, -35), core=0.4, exophytic=0.5),
    "pancreatic carcinoma": Kind(0.14, (4,), (31, 1.4), 1, (-48, -22), edge_mm=2.5, core=0.1),
    "cystic pancreatic tumor": Kind(0.05, (4,), (25, 1.5), 1, (4, 22), absolute=True, core=0.0),
    "gastric or bowel carcinoma": Kind(
        0.11, (11, 12, t.COLON), (38, 1.4), 1, (62, 105), absolute=True, exophytic=0.2
    ),
    "pelvic or stromal tumor": Kind(
        0.07, (t.VISCERAL, t.BOWEL), (74, 1.5), 1, (48, 88), absolute=True, core=0.6
    ),
    "node or adrenal tumor": Kind(
        0.07, (t.VISCERAL, 7, 8), (27, 1.5), 4, (45, 92), absolute=True, core=0.1
    ),
    "splenic metastasis": Kind(0.03, (3,), (26, 1.5), 2, (-65, -35)),
}


@dataclass(frozen=True)
class Distractor:
    """A harmless finding that no reference labels.

    Attributes:
        name: in words.
        host: tissue that it lies in.
        chance: that a patient has one.
        diameter_mm: range.
        hu: range; of no width for one value.
        like: tissue whose HU it has instead.
    """

    name: str
    host: int
    chance: float
    diameter_mm: tuple[float, float]
    hu: tuple[float, float] = (0, 14)
    like: int | None = None

    def level(self, rng: np.random.Generator, look: Look) -> float:
        """Draw its HU."""
        if self.like is not None:
            return look.hu[self.like]
        low, high = self.hu
        return float(rng.uniform(low, high)) if low < high else low


DISTRACTORS = (
    Distractor("liver cyst", 1, 0.15, (7, 26)),
    Distractor("right renal cyst", 2, 0.17, (8, 28)),
    Distractor("left renal cyst", 13, 0.17, (8, 28)),
    Distractor("hemangioma", 1, 0.05, (9, 24), like=t.VEIN),
    Distractor("liver granuloma", 1, 0.04, (3, 6), (600, 600)),
    Distractor("gallstone", 9, 0.08, (5, 13), (150, 700)),
    Distractor("kidney stone", 2, 0.05, (4, 8), (700, 700)),
    Distractor("accessory spleen", t.VISCERAL, 0.08, (8, 16), like=3),
    Distractor("surgical clip", t.VISCERAL, 0.04, (3, 5), (2200, 2200)),
)


def add_tumors(
    rng: np.random.Generator, body: Abdomen, look: Look, image: Float, labels: np.ndarray
) -> list[dict[str, Any]]:
    """Paint one or two kinds of tumor into image and labels; return what was painted."""
    names = list(KINDS)
    shares = np.array([KINDS[name].share for name in names])
    count = 1 if rng.random() < 0.8 else 2
    chosen = rng.choice(names, size=count, replace=False, p=shares / shares.sum())
    found: list[dict[str, Any]] = []
    for name in chosen:
        found += _lesions_of(rng, str(name), body, look, image, labels)
    while not found:  # a kind whose host is absent or out of view gives way to another
        name = str(rng.choice(names, p=shares / shares.sum()))
        found += _lesions_of(rng, name, body, look, image, labels)
    return found


def _lesions_of(
    rng: np.random.Generator,
    name: str,
    body: Abdomen,
    look: Look,
    image: Float,
    labels: np.ndarray,
) -> list[dict[str, Any]]:
    kind = KINDS[name]
    number = 1 if kind.many == 1 else int(rng.integers(1, kind.many + 1))
    hu = rng.uniform(*kind.hu)
    found = []
    for _ in range(number):
        host = int(rng.choice(kind.hosts))
        lesion = _grow(rng, kind, host, body)
        if lesion is None:
            continue
        _fill(rng, kind, lesion, tumor_hu(rng, name, hu, host, look), body.frame, image)
        inside = lesion.values < 1
        labels[lesion.window][inside] = TUMOR
        volume_mm3 = float(inside.sum()) * float(np.prod(body.frame.spacing_mm))
        found.append(
            {
                "type": name,
                "host": int(host),
                "volume_ml": round(volume_mm3 / 1000, 2),
                "diameter_mm": round((6 * volume_mm3 / np.pi) ** (1 / 3), 1),
            }
        )
    return found


def tumor_hu(rng: np.random.Generator, name: str, hu: float, host: int, look: Look) -> float:
    """Return the mean HU of a tumor.

    Args:
        rng: numbers are drawn from it.
        name: of its kind.
        hu: drawn from the kind's range; all tumors of a patient share it.
        host: tissue that it grows from.
        look: of the patient.
    """
    if look.phase == "arterial" and name == "hepatocellular carcinoma":
        return max(look.hu[host] + rng.uniform(20, 60), 3.0)
    if KINDS[name].absolute:
        return max(hu, 3.0)
    return max(look.hu[host] * (0.6 if look.phase == "native" else 1) + hu, 3.0)


def replaceable(host: int) -> tuple[int, ...]:
    """Return the tissues that a tumor of a host may take the place of."""
    around = (12, 11, t.VEIN) if host in (t.VISCERAL, t.BOWEL) else ()
    return (host, *FREE, *around)


def _grow(rng: np.random.Generator, kind: Kind, host: int, body: Abdomen) -> Field | None:
    """Return the field of a lesion within what it may replace; None where there is no room."""
    diameter = kind.diameter(rng)
    center = _center(rng, host, body.tissue, body.frame)
    if center is None:
        return None
    radii = diameter / 2 * rng.uniform(0.8, 1.2, 3)
    if kind.exophytic and rng.random() < 0.65:
        out = rng.normal(0, 1, 3)
        center = center + out / np.linalg.norm(out) * kind.exophytic * diameter / 2
    f = ellipsoid(body.frame, center, radii, basis(rng.normal(0, 1, 3)))
    bumps = smooth_noise(rng, f.values.shape, max(8.0, diameter / 2.5), body.frame.spacing_mm)
    values = f.values + np.float32(rng.uniform(0.06, 0.16)) * bumps
    here = body.tissue[f.window]
    values[~np.isin(here, replaceable(host))] = 99
    # At least a few voxels, or it is no lesion that anybody could find.
    return Field(f.window, values) if (values < 1).sum() >= 12 else None


def _center(
    rng: np.random.Generator, host: int, tissue: np.ndarray, frame: Frame
) -> np.ndarray | None:
    """Draw a point of the host, away from the upper and lower end of the scan."""
    inside = tissue == host
    inside[:4] = inside[-4:] = False
    if host in (t.VISCERAL, t.BOWEL):  # where masses grow: among the bowel, beside the aorta
        inside &= (np.abs(frame.x) < 70) & (frame.y > 15) & (frame.z < -20)
    places = np.flatnonzero(inside)
    if places.size < 40:
        return None
    at = int(rng.choice(places))
    return np.array([axis.flat[at] for axis in (frame.x, frame.y, frame.z)], dtype=float)


def _fill(
    rng: np.random.Generator, kind: Kind, lesion: Field, hu: float, frame: Frame, image: Float
) -> None:
    """Blend the lesion's own texture, rim and core into the image, soft at the edge."""
    mm = frame.spacing_mm
    inner = np.full(lesion.values.shape, hu, dtype=np.float32)
    inner += 7 * smooth_noise(rng, lesion.values.shape, 12, mm)
    if rng.random() < 0.4:
        inner[(lesion.values > 0.8)] += rng.uniform(8, 28)
    if rng.random() < kind.core:
        inner[lesion.values < rng.uniform(0.35, 0.65)] = max(4.0, hu - rng.uniform(15, 50))
    weight = gaussian_filter(
        (lesion.values < 1).astype(np.float32), [kind.edge_mm / 2 / s for s in mm]
    )
    part = image[lesion.window]
    part += weight * (inner - part)


def add_distractors(rng: np.random.Generator, body: Abdomen, look: Look, image: Float) -> list[str]:
    """Paint harmless findings into the image alone; return their names."""
    found: list[str] = []
    for one in DISTRACTORS:
        hu = one.level(rng, look)
        if rng.random() > one.chance:
            continue
        center = _center(rng, one.host, body.tissue, body.frame)
        if center is None:
            continue
        size = rng.uniform(*one.diameter_mm) / 2
        f = ellipsoid(body.frame, center, size * rng.uniform(0.9, 1.1, 3))
        inside: Mask = (f.values < 1) & (body.tissue[f.window] == one.host)
        if inside.any():
            image[f.window][inside] = hu
            found.append(one.name)
    if rng.random() < 0.3:
        _plaques(rng, body, image)
        found.append("aortic plaques")
    return found


def _plaques(rng: np.random.Generator, body: Abdomen, image: Float) -> None:
    wall = body.depth["aorta"]
    spots = smooth_noise(rng, wall.values.shape, 9, body.frame.spacing_mm)
    here = (wall.values > 0.8) & (body.tissue[wall.window] == 5) & (spots > 1.6)
    image[wall.window][here] = rng.uniform(350, 700)


def add_ascites(rng: np.random.Generator, body: Abdomen, image: Float, look: Look) -> bool:
    """In a tenth of the cases, fill the lower visceral fat at the flanks with fluid."""
    if rng.random() > 0.1:
        return False
    f = body.frame
    pool = (body.tissue == t.VISCERAL) & (f.y < rng.uniform(10, 45)) & (np.abs(f.x) > 60)
    image[pool] = look.hu[t.FLUID]
    return True
