"""What all organs share: where they sit in a patient, how large they are, how they are painted."""

import numpy as np

from cfseg.geometry import Triple
from cfseg.phantoms.habitus import Habitus
from cfseg.phantoms.shapes import Curve, Field, Float, Frame, Mask, Point, smooth_noise
from cfseg.phantoms.tissues import VISCERAL

VOLUME_ML: dict[int, tuple[float, float]] = {
    1: (1330, 230),
    2: (168, 34),
    3: (198, 70),
    4: (82, 20),
    7: (4.3, 0.9),
    8: (4.9, 1.0),
    12: (64, 15),
    13: (172, 34),
}
"""Mean and standard deviation of organ volumes, ml, before neighbours cut into them."""


class Painter:
    """Paints one class after the other; later ones win where ``over`` allows it."""

    def __init__(
        self, rng: np.random.Generator, frame: Frame, habitus: Habitus, voxel_ml: float
    ) -> None:
        self.rng, self.frame, self.habitus = rng, frame, habitus
        # Volumes are meant in the anatomical frame; the zoom changes them on the grid.
        self.voxel_ml = voxel_ml * float(np.prod(frame.scale))
        self.shape: Triple = frame.shape
        self.tissue = np.zeros(self.shape, dtype=np.uint8)
        # The trunk, painted first, sets these: mm beyond the cavity, diaphragm, room for organs.
        self.outside: Float = np.zeros(0, dtype=np.float32)
        self.dome: Float = np.zeros(0, dtype=np.float32)
        self.cavity: Mask = np.zeros(0, dtype=bool)
        self.depth: dict[str, Field] = {}
        self.absent: list[int] = []
        self.bumps = smooth_noise(rng, self.shape, 24, frame.spacing_mm)
        self.wide = habitus.cavity[0] / 140
        self.deep = habitus.cavity[1] / 118
        self.size = float(rng.normal(1, 0.05))

    def place(self, x: float, y: float, z: float, sd_mm: float = 5.0, breath: float = 0.0) -> Point:
        """Return where an organ sits in this patient."""
        jitter = self.rng.normal(0, sd_mm, 3)
        lift = breath * self.habitus.breath_mm
        front = y * (self.deep if y > 25 else 1)
        return [x * self.wide + jitter[0], front + jitter[1], z + lift + jitter[2]]

    def curve(self, points: Curve, sd_mm: float, breath: float = 0.0) -> list[Point]:
        """Return a curve of the anatomy, moved as a whole and a little at each knot."""
        shift = self.rng.normal(0, sd_mm, 3)
        sd = 0.4 * sd_mm
        return [np.add(self.place(p[0], p[1], p[2], sd, breath), shift) for p in points]

    def volume_ml(self, organ: int) -> float:
        """Draw the volume of an organ."""
        mean, sd = VOLUME_ML[organ]
        return float(np.clip(self.rng.normal(mean, sd), mean - 1.7 * sd, mean + 1.8 * sd))

    def paint(self, f: Field, value: int, level: float = 1.0, over: Mask | None = None) -> None:
        """Give ``value`` to the voxels inside of a shape, where ``over`` allows it."""
        inside = f.values < level
        if over is not None:
            inside &= over[f.window]
        self.tissue[f.window][inside] = value

    def organ(self, f: Field, value: int, bump: float, fat_mm: float, over: Mask) -> Field:
        """Paint an organ of a drawn volume, with uneven surface and a sheath of fat."""
        f = Field(f.window, f.values + np.float32(bump) * self.bumps[f.window])
        allowed = Field(f.window, np.where(over[f.window], f.values, 99).astype(np.float32))
        level = allowed.level_of(self.volume_ml(value), self.voxel_ml)
        if fat_mm:
            radius_mm = 0.6 * (self.volume_ml(value) * 1000) ** (1 / 3)
            self.paint(f, VISCERAL, level * (1 + fat_mm / radius_mm), over)
        self.paint(f, value, level, over)
        return Field(f.window, f.values / np.float32(level))
