"""Solid organs: liver, spleen, kidneys, pancreas, adrenal glands."""

import numpy as np

from cfseg.phantoms.painter import Painter
from cfseg.phantoms.shapes import Curve, Field, basis, either, ellipsoid, tube
from cfseg.phantoms.tissues import BONE, CANAL, DISC, LUNG, MUSCLE, SPONGIOSA, VISCERAL


def liver(painter: Painter) -> None:
    """Paint the liver: right lobe, left lobe, caudate lobe."""
    rng, breath = painter.rng, 0.9
    right = ellipsoid(
        painter.frame, painter.place(80, 30, 14, 4, breath), np.array([58, 70, 80]) * painter.size,
        basis([0.93, 0.2, -0.15], rng), 2.3,
    )  # fmt: skip
    left = ellipsoid(
        painter.frame, painter.place(2, 74, 38, 6, breath),
        [rng.uniform(68, 92), rng.uniform(29, 38), rng.uniform(29, 40)],
        basis([0.95, 0.05, -0.25], rng), 2.2,
    )  # fmt: skip
    caudate = ellipsoid(painter.frame, painter.place(24, 38, 38, 3, breath), [22, 18, 26])
    f = either([right, left, caudate])
    allowed = painter.cavity & (painter.frame.y - 0.35 * np.abs(painter.frame.x) > -62)
    allowed &= ~np.isin(painter.tissue, [MUSCLE, BONE, SPONGIOSA, DISC])
    painter.depth["liver"] = painter.organ(f, 1, 0.05, 0, allowed)


def spleen(painter: Painter) -> None:
    """Paint the spleen: an ellipsoid with a hollow towards the stomach."""
    center = np.asarray(painter.place(-100, -8, 12, 6, 0.9))
    turn = basis([0.62, -0.45, 0.6], painter.rng)
    outer = ellipsoid(painter.frame, center, [56, 42, 33], turn)
    hollow = ellipsoid(painter.frame, np.add(center, [38, 24, -4]), [62, 40, 40], turn)
    inner = either([Field(outer.window, np.full_like(outer.values, 99)), hollow])
    cut = np.zeros(painter.shape, dtype=bool)
    cut[inner.window] = inner.values < 0.95
    allowed = painter.cavity & ~cut & ~np.isin(painter.tissue, [1, MUSCLE, BONE, SPONGIOSA])
    painter.organ(outer, 3, 0.04, 0, allowed)


def kidneys(painter: Painter) -> None:
    """Paint both kidneys in their fat; their sinuses are left to the appearance."""
    for organ, side, z in ((2, 1, -50), (13, -1, -45)):
        center = np.asarray(painter.place(side * 68, -8, z, 5, 0.5))
        turn = basis([-0.25 * side, -0.28, 0.92], painter.rng)
        bean = ellipsoid(painter.frame, center, [58, 32, 29], turn, 2.2)
        hilum = ellipsoid(painter.frame, np.add(center, [-side * 30, 12, 0]), [15, 17, 17])
        notch = np.zeros(painter.shape, dtype=np.float32)
        notch[hilum.window] = np.exp(-(hilum.values**2))
        bean = Field(bean.window, bean.values + np.float32(0.55) * notch[bean.window])
        allowed = painter.cavity & ~np.isin(painter.tissue, [BONE, SPONGIOSA, DISC])
        f = painter.organ(bean, organ, 0.03, 6, allowed)
        painter.depth["right_kidney" if side > 0 else "left_kidney"] = f
        sinus = ellipsoid(painter.frame, np.add(center, [-side * 13, 5, 0]), [13, 9, 24])
        painter.depth[f"sinus_{organ}"] = sinus


def pancreas(painter: Painter) -> None:
    """Paint the pancreas from head to tail."""
    line: Curve = [
        [32, 50, -44],
        [26, 54, -28],
        [6, 62, -14],
        [-22, 62, -6],
        [-52, 44, 3],
        [-80, 16, 14],
    ]
    f = tube(painter.frame, painter.curve(line, 4, 0.5), [16, 16, 10.5, 11, 10.5, 9])
    free = painter.cavity & ~np.isin(painter.tissue, [1, 2, 3, 13, MUSCLE, BONE, SPONGIOSA])
    painter.organ(f, 4, 0.10, 1.5, free)


def adrenals(painter: Painter) -> None:
    """Paint the adrenal glands: two thin limbs each, in a little fat."""
    shapes = ((7, 38, 8, 12, 0.8), (8, -36, 13, 6, 0.6))
    for organ, x, y, z, breath in shapes:
        center = np.asarray(painter.place(x, y, z, 3, breath))
        side = 1 if x > 0 else -1
        limbs = []
        for angle in (-1, 1):
            across = np.array([side * 0.45 * angle - 0.1 * side, -0.75, -0.15])
            along = np.array([side * 0.2, -0.25, -0.94])
            along /= np.linalg.norm(along)
            across = across - along * (across @ along)
            across /= np.linalg.norm(across)
            turn = np.stack([along, across, np.cross(along, across)])
            limbs.append(ellipsoid(painter.frame, center + across * 8, [17, 12, 3.4], turn, 3.0))
        f = either(limbs)
        free = ~np.isin(painter.tissue, [5, BONE, SPONGIOSA, DISC, CANAL, LUNG])
        painter.paint(f, VISCERAL, 1.35, free & ~np.isin(painter.tissue, [6, 2, 13]))
        free &= ~np.isin(painter.tissue, [6, 2, 13])
        painter.organ(f, organ, 0.05, 0, free)
