"""The great vessels of the abdomen and their branches."""

import numpy as np

from cfseg.phantoms.painter import Painter
from cfseg.phantoms.shapes import Curve, tube
from cfseg.phantoms.tissues import BONE, CANAL, DISC, MUSCLE, SPONGIOSA, VEIN


def vessels(painter: Painter) -> None:
    """Paint portal, splenic and renal vessels, aorta, inferior vena cava and their forks."""
    rng = painter.rng
    wide = rng.normal(1, 0.08)
    vein: list[tuple[Curve, list[float]]] = [
        ([[8, 60, -80], [9, 56, -40], [12, 54, -16]], [5, 6, 6]),
        ([[12, 54, -16], [30, 54, 8], [58, 46, 24]], [7, 7, 5]),
        ([[12, 54, -16], [-24, 48, -6], [-60, 30, 8], [-86, 4, 12]], [5, 5, 4, 3]),
        ([[-8, 30, -30], [-8, 52, -36], [-4, 60, -90]], [4, 4, 3]),
        ([[24, 30, -38], [48, 8, -48]], [5, 4]),
        ([[16, 36, -34], [-12, 38, -36], [-48, 8, -46]], [4, 4, 4]),
        ([[28, 36, 40], [54, 44, 62], [86, 48, 66]], [5, 4, 3]),
    ]
    keep = ~np.isin(painter.tissue, [BONE, SPONGIOSA, DISC, CANAL, MUSCLE])
    for points, radii in vein:
        f = tube(painter.frame, painter.curve(points, 2, 0.5), radii)
        organs = np.isin(painter.tissue, [4, 12, 11, 2, 13])
        painter.paint(f, VEIN, 1.0, keep & ~organs)
    fork = -118 + rng.normal(0, 8)
    for side in (-1, 1):
        iliac = [[-8, 26, fork], [-8 + side * 34, 20, fork - 50], [-8 + side * 60, 8, fork - 95]]
        painter.paint(tube(painter.frame, iliac, [7, 6]), VEIN, 1.0, keep)
        joined = [[16, 22, fork - 6], [16 + side * 32, 12, fork - 55], [side * 60, 4, fork - 95]]
        painter.paint(tube(painter.frame, joined, [8, 7]), VEIN, 1.0, keep)
    aorta: Curve = [
        [-8, 26, fork],
        [-9, 27, -80],
        [-10, 23, -38],
        [-11, 10, 10],
        [-15, 2, 45],
        [-20, -4, 90],
        [-23, -8, 155],
    ]
    cava: Curve = [
        [17, 22, fork - 6],
        [19, 26, -80],
        [21, 31, -38],
        [26, 31, 10],
        [29, 30, 45],
        [24, 34, 80],
        [17, 38, 118],
    ]
    oval = tube(painter.frame, painter.curve(cava, 2), [10.5 * wide, 10.5, 11, 11.5, 12 * wide])
    painter.paint(oval, 6, 1.0, ~np.isin(painter.tissue, [BONE, SPONGIOSA]))
    f = tube(
        painter.frame,
        painter.curve(aorta, 2),
        list(np.array([9, 9.5, 10, 10.5, 11.5, 12, 12]) * wide),
    )
    painter.paint(f, 5, 1.0, ~np.isin(painter.tissue, [CANAL]))
    painter.depth["aorta"] = f
