"""A procedural abdomen: tissue classes on a grid, organs with plausible shapes and places.

Positions and sizes follow measurements of a few real patients; everything varies from case to
case: habitus, pose, a smooth warp, the place of each organ, its volume, the level of breathing.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cfseg.geometry import Geometry
from cfseg.phantoms import hollow, solid, trunk, vessels
from cfseg.phantoms.habitus import Habitus, make_frame
from cfseg.phantoms.painter import Painter
from cfseg.phantoms.shapes import Field, Frame


@dataclass
class Abdomen:
    """Tissue classes and what the later steps need to know about them.

    Attributes:
        tissue: (Z, Y, X) uint8, organs 1..13 and the classes of `tissues`.
        frame: anatomical coordinates.
        habitus: the build.
        depth: named (Z, Y, X) fields that appearance needs, windowed.
        absent: organs that this patient does not have.
    """

    tissue: npt.NDArray[np.uint8]
    frame: Frame
    habitus: Habitus
    depth: dict[str, Field] = field(default_factory=dict)
    absent: tuple[int, ...] = ()


def build(rng: np.random.Generator, geometry: Geometry) -> Abdomen:
    """Return a new abdomen on this grid; a function of ``rng`` and the grid alone."""
    habitus = Habitus.sample(rng)
    frame = make_frame(rng, geometry, habitus)
    painter = Painter(rng, frame, habitus, geometry.voxel_ml)
    # Later ones win where they are allowed to; the order is part of the anatomy.
    for paint in (
        trunk.body,
        hollow.bowel,
        hollow.stomach,
        solid.liver,
        solid.spleen,
        solid.kidneys,
        solid.pancreas,
        hollow.duodenum,
        vessels.vessels,
        trunk.chest,
        hollow.gallbladder,
        solid.adrenals,
        hollow.esophagus,
    ):
        paint(painter)
    return Abdomen(painter.tissue, frame, habitus, painter.depth, tuple(painter.absent))
