"""Do the organs lie where a body has them? Mirrored scans and exchanged labels do not.

Situs inversus (one person in ten thousand), a vena cava on the left and a kidney in the pelvis
exist: whatever is found here is a warning. Only pairs of labels that are both there are looked at.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfseg.labels import NAMES
from cfseg.volume import LabelMap

LEAST_ML = 1.0
"""Of a label, below which its middle says nothing."""
SAMPLE_MM = 3.0
"""Middles are taken of voxels that are at most so far apart, or of all if they are larger."""


@dataclass(frozen=True)
class Rule:
    """Two labels and the order of their middles along one axis.

    In 28 real label maps all middles are in the order that is stated, at least as far apart as
    stands beside each rule. Where the field of view cuts organs off they come closer, so only an
    order that is reversed by more than ``slack_mm`` counts.

    Attributes:
        first: the label with the smaller coordinate.
        second: the other one.
        axis: 0 up, 1 to the back, 2 to the patient's left.
        slack_mm: how far the order may be reversed.
    """

    first: int
    second: int
    axis: int
    slack_mm: float


RULES = (
    Rule(1, 3, 2, 20.0),  # the liver is right of the spleen: 126 mm
    Rule(2, 13, 2, 20.0),  # the right kidney is right of the left one: 105 mm
    Rule(6, 5, 2, 5.0),  # the vena cava is right of the aorta: 20 mm
    Rule(4, 5, 1, 5.0),  # the pancreas is in front of the aorta: 13 mm
    Rule(4, 6, 1, 5.0),  # and of the vena cava: 9 mm
    Rule(2, 10, 0, 20.0),  # the kidneys are below the esophagus: 94 mm
    Rule(13, 10, 0, 20.0),  # 71 mm
    Rule(2, 1, 0, 20.0),  # and below the liver: 8 mm
    Rule(13, 1, 0, 20.0),  # 10 mm
)
_REVERSED = ("above", "behind", "to the left of")


def misplaced(label_map: LabelMap) -> tuple[str, ...]:
    """Return which organs lie on the wrong side of which others, in words.

    Args:
        label_map: with FLARE's ids.
    """
    middles = _middles_mm(label_map)
    found = []
    for rule in RULES:
        if not {rule.first, rule.second} <= middles.keys():
            continue
        beyond_mm = middles[rule.first][rule.axis] - middles[rule.second][rule.axis]
        if beyond_mm > rule.slack_mm:
            first, second = (NAMES[i].replace("_", " ") for i in (rule.first, rule.second))
            where = _REVERSED[rule.axis]
            found.append(f"the {first} is {beyond_mm:.0f} mm {where} the {second}")
    return tuple(found)


def _middles_mm(label_map: LabelMap) -> dict[int, npt.NDArray[np.float64]]:
    """Return the middle (z up, y back, x left) of each label that is large enough to have one."""
    geometry = label_map.geometry
    steps = [max(1, int(SAMPLE_MM / mm)) for mm in geometry.spacing_mm]
    ids = label_map.ids[:: steps[0], :: steps[1], :: steps[2]]
    where = np.nonzero(ids)
    labels = ids[where]
    counts = np.bincount(labels)
    sums = [
        np.bincount(labels, weights=step * index) for step, index in zip(steps, where, strict=True)
    ]
    least = LEAST_ML / (geometry.voxel_ml * math.prod(steps))
    return {
        label: (geometry.affine @ [*(axis[label] / counts[label] for axis in sums), 1.0])[:3]
        for label in NAMES
        if label < len(counts) and counts[label] >= max(1.0, least)
    }
