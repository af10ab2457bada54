"""Ground truth and pseudo-labels become one label map (paper 2.2: *Dataset 1*).

The rules: annotated labels win; a pseudo-organ never overwrites an annotated tumor; tumors are
not taken from a model unless that is asked for; a voxel that the ground truth says to ignore stays
:data:`~cfseg.dataset.label_names.IGNORE`.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from cfseg.dataset.label_names import IGNORE
from cfseg.labels import ORGAN_IDS, TUMOR

Ids = npt.NDArray[np.uint8]

UNKNOWN, GROUND_TRUTH, PSEUDO, IGNORED = 0, 1, 2, 3
"""Values of a provenance map: background or unknown, ground truth, pseudo-label, to be ignored."""


def merge(truth: Ids, pseudo: Ids, annotated: Collection[int], *, tumor: bool = False) -> Ids:
    """Complete the annotated labels with pseudo-labels.

    Args:
        truth: (Z, Y, X) ground truth; only the annotated labels of it count.
        pseudo: (Z, Y, X) label map of a model.
        annotated: ids that the ground truth annotates.
        tumor: take tumors from the model too, where none are annotated. The paper does not.

    Returns:
        (Z, Y, X): where the ground truth says an annotated label or to ignore the voxel, that;
        elsewhere the model's label, unless that label is annotated (then its absence here is
        known).
    """
    offered = (*ORGAN_IDS, TUMOR.id) if tumor else ORGAN_IDS
    fill = [label for label in offered if label not in annotated]
    merged = np.where(np.isin(pseudo, fill), pseudo, np.uint8(0))
    mine = np.isin(truth, [*annotated, IGNORE])
    merged[mine] = truth[mine]
    return merged


def organs_under_tumor(truth: Ids, pseudo: Ids, annotated: Collection[int]) -> Ids:
    """Return the organ model's target: merged labels, with the model's organ under a tumor.

    Args:
        truth: as in :func:`merge`.
        pseudo: as in :func:`merge`.
        annotated: as in :func:`merge`.
    """
    merged = merge(truth, pseudo, annotated)
    tumor = merged == TUMOR.id
    merged[tumor] = np.where(np.isin(pseudo, ORGAN_IDS), pseudo, np.uint8(0))[tumor]
    return merged


def provenance(truth: Ids, merged: Ids, annotated: Collection[int]) -> Ids:
    """Say where each voxel of a merged label map comes from.

    Args:
        truth: as in :func:`merge`.
        merged: what :func:`merge` made of it.
        annotated: as in :func:`merge`.

    Returns:
        (Z, Y, X): :data:`GROUND_TRUTH` where an annotated label is, :data:`PSEUDO` where a model's
        is, :data:`IGNORED` where the ground truth says so, else :data:`UNKNOWN`.
    """
    found = np.where(merged > 0, np.uint8(PSEUDO), np.uint8(UNKNOWN))
    found[np.isin(truth, list(annotated))] = GROUND_TRUTH
    found[truth == IGNORE] = IGNORED
    return found


def truth_is_kept(truth: Ids, merged: Ids, annotated: Collection[int]) -> bool:
    """Say whether a label map has all annotated and ignored voxels as the ground truth has them.

    Args:
        truth: as in :func:`merge`.
        merged: in question; a map without any tumor is one of organs and may have any under them.
        annotated: as in :func:`merge`.
    """
    known = {*annotated, IGNORE} - {0}
    if not (merged == TUMOR.id).any():
        known.discard(TUMOR.id)
    mine = np.isin(truth, list(known))
    return bool(np.array_equal(truth[mine], merged[mine]))
