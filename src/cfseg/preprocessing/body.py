"""The patient's box: air and table around the body cost windows and hold nothing (paper 2.1)."""

import numpy as np
from scipy.ndimage import binary_opening, generate_binary_structure

from cfseg.components import largest_component
from cfseg.geometry import Box, Triple
from cfseg.volume import Volume

TISSUE_HU = -300
"""Fat and all that is denser is above it; air, lung and foam are below."""
CELL_MM = 6.0
MARGIN_MM = 12.0


def body_box(volume: Volume) -> Box:
    """Return the box of the patient, without the table and the air around.

    It looks at every ``CELL_MM``-th millimeter only: tissue is what is denser than
    :data:`TISSUE_HU`; sheets thinner than two cells (table tops, blankets, wires) are opened away
    in the axial plane; the largest component is the patient.

    Args:
        volume: (Z, Y, X) in HU, any padding value.

    Returns:
        The box with a margin of ``MARGIN_MM``; the whole volume if there is no body in it.
    """
    step = _step(volume)
    coarse = volume.hu[:: step[0], :: step[1], :: step[2]]
    axial = generate_binary_structure(2, 1)[None]
    tissue = binary_opening(np.asarray(coarse > TISSUE_HU), axial)
    shape = volume.geometry.shape
    cells = Box.around(largest_component(tissue)) if tissue.any() else None
    if cells is None:
        return Box.whole(shape)
    return _voxels(cells, step, shape).grow(volume.geometry.margin_voxels(MARGIN_MM), shape)


def _step(volume: Volume) -> Triple:
    z, y, x = (max(1, int(CELL_MM // s)) for s in volume.geometry.spacing_mm)
    return z, y, x


def _voxels(cells: Box, step: Triple, shape: Triple) -> Box:
    """Return the voxels from the first to the last that was looked at within ``cells``."""
    start = tuple(a * s for a, s in zip(cells.start, step, strict=True))
    stop = tuple(min(n, b * s) for b, s, n in zip(cells.stop, step, shape, strict=True))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
