"""The body around the organs: fat, muscle, spine, ribs, diaphragm, lungs, heart, table."""

import numpy as np

from cfseg.phantoms.painter import Painter
from cfseg.phantoms.shapes import Float, basis, ellipsoid
from cfseg.phantoms.tissues import (
    AIR,
    BONE,
    CANAL,
    DISC,
    HEART,
    LUNG,
    MUSCLE,
    SPONGIOSA,
    SUBCUTANEOUS,
    TABLE,
    VISCERAL,
)


def body(painter: Painter) -> None:
    """Paint fat, muscle, spine, ribs and the table; set the cavity and the diaphragm."""
    f, h = painter.frame, painter.habitus
    wide, front, back = h.cavity
    middle, half = (front + back) / 2, (front - back) / 2
    rho = (np.abs(f.x / wide) ** 2.3 + np.abs((f.y - middle) / half) ** 2.3) ** (1 / 2.3)
    radius = np.hypot(f.x, f.y - middle)
    outside = radius * (1 - 1 / np.maximum(rho, 1e-3))  # mm beyond the cavity
    ahead = np.clip((f.y - back) / (front - back), 0, 1)
    muscle = h.muscle_mm + 9 * (1 - ahead)
    skin = muscle + h.fat_mm * (0.55 + 0.45 * ahead)
    painter.tissue[outside < skin] = SUBCUTANEOUS
    painter.tissue[outside < muscle] = MUSCLE
    painter.tissue[outside < 0] = VISCERAL
    painter.outside = outside
    # Organs of the abdomen stay below the diaphragm, but for the gap where the vessels pass.
    painter.dome = _dome(painter)
    hiatus = (np.abs(f.x) < 24) & (f.y < 45)
    painter.cavity = (outside < 0) & ((f.z < painter.dome - 3) | hiatus)
    _spine(painter)
    _ribs(painter, outside, muscle)
    floor = middle - half - 24 - h.fat_mm - painter.rng.uniform(4, 14)
    bed = np.abs(f.y - (floor - 10 - 0.0009 * (0 - f.x) ** 2 * -1)) < 4.5
    if painter.rng.random() < 0.95:
        painter.tissue[bed & (np.abs(f.x) < 190) & (painter.tissue == AIR)] = TABLE


def _spine(painter: Painter) -> None:
    f = painter.frame
    lordosis = np.clip(8 - 0.1 * (f.z + 40), -10, 14)
    y = f.y - lordosis * 0.6
    for side in (-1, 1):
        back = ((f.x - side * 37) / 33) ** 2 + ((y + 74) / 22) ** 2
        painter.tissue[(back < 1) & (painter.outside < 30)] = MUSCLE
        psoas = ((f.x - side * (34 - 0.13 * (f.z + 40))) / 17) ** 2 + ((y + 16) / 19) ** 2
        painter.tissue[(psoas < np.clip((20 - f.z) / 60, 0, 1.1)) & painter.cavity] = MUSCLE
    bone = np.hypot(f.x / 23, (y + 18) / 17)
    disc = np.mod(f.z + painter.rng.uniform(0, 36), 36) < 8
    painter.tissue[bone < 1] = np.where(disc, DISC, BONE)[bone < 1]
    painter.tissue[(bone < 0.86) & ~disc] = SPONGIOSA
    arch = np.hypot(f.x / 17, (y + 46) / 15)
    painter.tissue[(arch < 1) & ~disc] = BONE
    painter.tissue[np.hypot(f.x / 9, (y + 45) / 8) < 1] = CANAL
    spine = (np.abs(f.x) < 4) & (y < -58) & (y > -88) & (np.mod(f.z, 36) < 22)
    wing = (np.abs(y + 46) < 5) & (np.abs(f.x) < 42) & (np.mod(f.z, 36) < 12)
    painter.tissue[spine | wing] = BONE


def _ribs(painter: Painter, outside: Float, muscle: Float) -> None:
    f = painter.frame
    phase = np.mod(f.z + 0.42 * f.y + painter.rng.uniform(0, 30), 30)
    low = f.z + 0.42 * f.y > painter.rng.uniform(-25, 0)
    shell = (outside > 1) & (outside < np.minimum(muscle, 9)) & (np.abs(f.x) > 30)
    costal = f.y > 70
    painter.tissue[shell & (phase < 9) & low] = BONE
    painter.tissue[shell & (phase < 10) & low & costal] = DISC
    painter.tissue[shell & (phase > 2.5) & (phase < 6.5) & low & ~costal & (outside > 3)] = (
        SPONGIOSA
    )


def _dome(painter: Painter) -> Float:
    """Return the height of the diaphragm above every voxel, mm."""
    f = painter.frame
    top = painter.habitus.dome_mm + painter.habitus.breath_mm
    right = top - 0.0085 * ((f.x - 72) ** 2 + 0.8 * (f.y - 18) ** 2)
    left = top - 7 - 0.0100 * ((f.x + 70) ** 2 + 0.8 * (f.y - 14) ** 2)
    return np.maximum(right, left)


def chest(painter: Painter) -> None:
    """Paint what lies above the diaphragm over everything but the great vessels."""
    f, rng, dome = painter.frame, painter.rng, painter.dome
    top = painter.habitus.dome_mm + painter.habitus.breath_mm
    keep = np.isin(painter.tissue, [5, 6, BONE, SPONGIOSA, DISC, CANAL])
    inside = (painter.outside < -2) & ~keep
    crus = np.abs(f.x) < 24
    painter.tissue[inside & (f.z > dome - 3) & ~(crus & (f.y < 45))] = MUSCLE
    painter.tissue[inside & (f.z > dome) & ~(crus & (f.y < 45))] = LUNG
    upper = inside & crus & (f.y < 45) & (f.z > top - 18)
    painter.tissue[upper] = VISCERAL
    heart = ellipsoid(
        f, painter.place(-22, 62, top + 42, 5), [62, 46, 38], basis([-0.8, 0.5, -0.2], rng)
    )
    painter.paint(heart, HEART, 1.0, inside & (f.z > dome))
