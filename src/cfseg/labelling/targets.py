"""What a stage learns of a case: its ground truth, completed by a model's labels (paper 2.2)."""

import numpy as np
import numpy.typing as npt

from cfseg.dataset.cases import Case, read_labels
from cfseg.dataset.pseudo_labels import merge, organs_under_tumor, truth_is_kept
from cfseg.errors import CfsegError, InputError
from cfseg.geometry import Geometry
from cfseg.io import AS_IS, ReadingOptions
from cfseg.plan import Role

Ids = npt.NDArray[np.uint8]


def truth_of(
    case: Case,
    geometry: Geometry,
    options: ReadingOptions = AS_IS,
    *,
    keep_ignored: bool = False,
) -> Ids:
    """Return the (Z, Y, X) ground truth of a case, background if it has none.

    Args:
        case: with its label map.
        geometry: of its scan.
        options: with which its scan was read.
        keep_ignored: as in :func:`cfseg.dataset.cases.read_labels`.

    Raises:
        InputError: it cannot be read or has voxels to be ignored, or (``E_GRID``) lies on another
            grid than the scan.
    """
    if case.label is None:
        return np.zeros(geometry.shape, dtype=np.uint8)
    labels = read_labels(case, options, keep_ignored=keep_ignored)
    if not labels.geometry.matches(geometry):
        raise InputError(
            f"{case.name}: {case.label.name} lies on another grid than {case.image.name}; repair "
            "it, or leave the case out (cfseg dataset check lists all such cases)",
            code="E_GRID",
        )
    return labels.ids


def completed(case: Case, truth: Ids, pseudo: Ids, role: Role) -> Ids:
    """Return the (Z, Y, X) label map that a stage learns; the tumor model alone learns tumors.

    Args:
        case: says what is annotated.
        truth: (Z, Y, X) ground truth.
        pseudo: (Z, Y, X) label map of a model.
        role: of the stage.
    """
    rule = merge if role == "tumor" else organs_under_tumor
    target = rule(truth, pseudo, case.annotated)
    if not truth_is_kept(truth, target, case.annotated):
        raise CfsegError(f"{case.name}: merging changed annotated voxels; this is a bug")
    return target
