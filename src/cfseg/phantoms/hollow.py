"""Hollow organs: bowel, stomach, duodenum, esophagus, gallbladder."""

import numpy as np

from cfseg.phantoms.painter import Painter
from cfseg.phantoms.shapes import Curve, Field, basis, either, ellipsoid, tube
from cfseg.phantoms.tissues import BONE, BOWEL, COLON, MUSCLE, SPONGIOSA


def bowel(painter: Painter) -> None:
    """Paint loops of small bowel, then the frame of the colon over them."""
    rng, cavity = painter.rng, painter.cavity
    for _ in range(rng.integers(9, 15)):
        at = np.array([rng.uniform(-75, 75), rng.uniform(45, 100), rng.uniform(-160, -60)])
        walk = [at]
        for _ in range(6):
            at = at + rng.normal(0, 24, 3)
            at = np.clip(at, [-95, 32, -175], [95, 106, -45]) + rng.normal(0, 2, 3)
            walk.append(at)
        painter.paint(tube(painter.frame, walk, [rng.uniform(8, 13)] * 2), BOWEL, 1.0, cavity)
    frame: Curve = [
        [114, 12, -165], [115, 22, -95], [106, 45, -52], [62, 96, -62], [0, 104, -72],
        [-58, 98, -52], [-104, 52, 2], [-114, 10, -52], [-113, 4, -165],
    ]  # fmt: skip
    radii = np.clip(rng.normal(19, 5, 26), 11, 31)
    colon = tube(painter.frame, painter.curve(frame, 5), list(radii))
    painter.paint(colon, COLON, 1.0, cavity)
    painter.depth["colon"] = colon


def stomach(painter: Painter) -> None:
    """Paint the stomach from its fundus to the pylorus."""
    rng = painter.rng
    volume_ml = float(np.clip(rng.lognormal(np.log(230), 0.5), 80, 620))
    swell = (volume_ml / 300) ** (1 / 3)
    line: Curve = [
        [-58, 26, 66],
        [-66, 56, 42],
        [-60, 84, 12],
        [-26, 94, -12],
        [12, 84, -8],
        [28, 72, -4],
    ]
    radii = np.array([30, 36, 31, 23, 15, 11]) * swell
    f = tube(painter.frame, painter.curve(line, 5, 0.7), list(radii))
    f = Field(f.window, f.values + np.float32(0.05) * painter.bumps[f.window])
    level = f.level_of(volume_ml, painter.voxel_ml, 0.7)
    painter.paint(f, 11, level, painter.cavity)
    painter.depth["stomach"] = Field(f.window, f.values / np.float32(level))


def duodenum(painter: Painter) -> None:
    """Paint the duodenum around the head of the pancreas."""
    line: Curve = [
        [30, 72, -6],
        [47, 62, -16],
        [52, 46, -42],
        [42, 42, -70],
        [8, 46, -79],
        [-20, 46, -70],
        [-30, 54, -54],
    ]
    f = tube(painter.frame, painter.curve(line, 3.5, 0.4), [11, 12, 12, 12, 11, 10])
    painter.depth["duodenum"] = painter.organ(f, 12, 0.06, 0, painter.cavity)


def esophagus(painter: Painter) -> None:
    """Paint the esophagus from the chest to the cardia."""
    ao = painter.habitus.breath_mm
    line: Curve = [
        [-4, 10, 150],
        [-6, 14, 100],
        [-14, 21, 78 + 0.5 * ao],
        [-32, 27, 66 + 0.6 * ao],
        [-47, 30, 62 + 0.7 * ao],
    ]
    f = tube(painter.frame, painter.curve(line, 2), [painter.rng.uniform(8.5, 11)] * 2)
    free = ~np.isin(painter.tissue, [5, 6, 11, BONE, SPONGIOSA])
    painter.paint(f, 10, 1.0, free)
    painter.depth["esophagus"] = f


def gallbladder(painter: Painter) -> None:
    """Paint the gallbladder under the liver, if the patient has one."""
    rng = painter.rng
    if rng.random() < 0.12:
        painter.absent.append(9)
        return
    volume_ml = float(np.clip(rng.lognormal(np.log(30), 0.5), 9, 90))
    size = (volume_ml / 30) ** (1 / 3)
    center = np.asarray(painter.place(62, 76, -18, 5, 0.9))
    turn = basis([-0.3, -0.8, 0.45], rng)
    pear = either(
        [
            ellipsoid(painter.frame, center, np.array([26, 15, 15]) * size, turn),
            ellipsoid(painter.frame, center - turn[0] * 9 * size, np.array([17, 17, 17]) * size),
        ],
    )
    free = painter.cavity & ~np.isin(painter.tissue, [2, 11, 12, 6, MUSCLE, BONE])
    level = pear.level_of(volume_ml, painter.voxel_ml)
    painter.paint(pear, 9, level, free)
    painter.depth["gallbladder"] = Field(pear.window, pear.values / np.float32(level))
