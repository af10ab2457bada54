"""A patient's build, and how the patient lies in the scanner."""

from dataclasses import dataclass

import numpy as np

from cfseg.geometry import Geometry, TripleMm
from cfseg.phantoms.shapes import Frame, smooth_noise


@dataclass
class Habitus:
    """A patient's build and pose.

    Attributes:
        cavity: half width, front and back of the abdominal cavity, mm.
        fat_mm: thickness of the subcutaneous fat at the front.
        muscle_mm: thickness of the abdominal wall.
        breath_mm: shift of the upper organs along z.
        dome_mm: height of the right diaphragm.
    """

    cavity: tuple[float, float, float]
    fat_mm: float
    muscle_mm: float
    breath_mm: float
    dome_mm: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Habitus":
        """Draw a build."""
        wide = float(np.clip(rng.normal(140, 10), 118, 165))
        front = float(np.clip(rng.normal(118, 11), 96, 145))
        fat = float(np.clip(rng.lognormal(np.log(17), 0.45), 6, 42))
        return cls(
            (wide, front, -82 + float(rng.normal(0, 3))),
            fat,
            float(rng.uniform(9, 17)),
            float(rng.uniform(-14, 14)),
            float(rng.normal(97, 5)),
        )


def make_frame(rng: np.random.Generator, geometry: Geometry, habitus: Habitus) -> Frame:
    """Return anatomical coordinates: pose, zoom, off-centre position and a smooth warp."""
    shape, mm = geometry.shape, geometry.spacing_mm
    zoom = rng.normal(1, 0.04)
    scale: TripleMm = (zoom * rng.normal(1, 0.05), zoom, zoom)
    middle_y = (habitus.cavity[1] - 108) / 2
    extent = [n * s for n, s in zip(shape, mm, strict=True)]
    origin: TripleMm = (
        extent[0] * 0.56 + rng.uniform(-24, 24),
        extent[1] / 2 + middle_y + rng.uniform(-14, 14),
        extent[2] / 2 + rng.uniform(-22, 22),
    )
    z, y, x = np.meshgrid(
        *[
            ((np.arange(n) + 0.5) * s - o).astype(np.float32) * np.float32(k)
            for n, s, o, k in zip(shape, mm, origin, scale, strict=True)
        ],
        indexing="ij",
    )
    y, x = -y, -x
    turn, tilt = np.deg2rad(rng.normal(0, 4)), np.deg2rad(rng.normal(0, 2.5))
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    x, z = x * np.cos(tilt) - z * np.sin(tilt), x * np.sin(tilt) + z * np.cos(tilt)
    large, small = rng.uniform(2.0, 4.0), rng.uniform(0.5, 1.2)
    moved = [
        axis
        + np.float32(large) * smooth_noise(rng, shape, 90, mm)
        + np.float32(small) * smooth_noise(rng, shape, 35, mm)
        for axis in (x, y, z)
    ]
    return Frame(moved[0], moved[1], moved[2], mm, scale, origin)
