"""Ground truth and pseudo-labels become one label map (paper 2.2: *Dataset 1*).

The rules: annotated labels win; a pseudo-organ never overwrites an annotated tumor; tumors are
never taken from a model.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from cfseg.labels import ORGAN_IDS, TUMOR

Ids = npt.NDArray[np.uint8]


def merge(truth: Ids, pseudo: Ids, annotated: Collection[int]) -> Ids:
    """Complete the annotated labels with pseudo-organs.

    Args:
        truth: (Z, Y, X) ground truth; only the annotated labels of it count.
        pseudo: (Z, Y, X) label map of a model.
        annotated: ids that the ground truth annotates.

    Returns:
        (Z, Y, X): where the ground truth says an annotated label, that label; elsewhere the
        model's organ, unless that organ is annotated (then its absence here is known).
    """
    known = list(annotated)
    fill = [organ for organ in ORGAN_IDS if organ not in annotated]
    merged = np.where(np.isin(pseudo, fill), pseudo, np.uint8(0))
    mine = np.isin(truth, known)
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
