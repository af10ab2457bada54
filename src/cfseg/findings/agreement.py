"""How far several networks agree about one scan, as a measure of how sure a result is."""

from collections.abc import Sequence

import numpy as np

from cfseg.labels import LABELS, ORGANS, TUMOR
from cfseg.volume import LabelMap

LOW_AGREEMENT = 0.7
"""A label on which two networks agree with a Dice coefficient under this is flagged."""


def agreement(tumor_maps: Sequence[LabelMap], organ_map: LabelMap | None) -> dict[str, float]:
    """Return the Dice coefficient of two networks' opinions, by label name.

    For tumors those of the first and the last tumor weight, for organs those of the last tumor
    weight and the organ model. A label is missing where there are no two networks to compare, or
    neither of them sees it.

    Args:
        tumor_maps: each tumor weight's label map, tumors and organs, on one grid.
        organ_map: the organ model's label map on the same grid.
    """
    found: dict[str, float] = {}
    if tumor_maps and organ_map is not None:
        both = dice_by_label(tumor_maps[-1], organ_map)
        found |= {organ.name: both[organ.name] for organ in ORGANS if organ.name in both}
    if len(tumor_maps) > 1:
        both = dice_by_label(tumor_maps[0], tumor_maps[-1])
        found |= {TUMOR.name: both[TUMOR.name]} if TUMOR.name in both else {}
    return found


def dice_by_label(one: LabelMap, other: LabelMap) -> dict[str, float]:
    """Return the Dice coefficient of each label that is in either map, by name.

    Raises:
        ValueError: the shapes differ.
    """
    if one.ids.shape != other.ids.shape:
        raise ValueError(f"label maps of shapes {one.ids.shape} and {other.ids.shape}")
    sizes = np.bincount(one.ids.ravel(), minlength=256) + np.bincount(
        other.ids.ravel(), minlength=256
    )
    shared = np.bincount(one.ids[one.ids == other.ids], minlength=256)
    return {
        label.name: round(float(2 * shared[label.id] / sizes[label.id]), 4)
        for label in LABELS
        if sizes[label.id]
    }
