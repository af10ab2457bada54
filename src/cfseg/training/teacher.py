"""The teacher's last labels, without the cases that it does not agree with itself about.

The recipe of FLARE22's winner, as published: train, label, train on what was labelled, label again;
a case whose labels still change much between the last two rounds is one that nobody should learn
from. The measure is the share u = (voxels changed) / (labelled voxels of the newer round).
"""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.dataset.cases import Case
from cfseg.io import write_json
from cfseg.training.label_sources import PredictedLabels

Ids = npt.NDArray[np.uint8]
FILE = "changes.json"


class AgreedLabels:
    """The labels of the teacher's last round; the cases that changed most are left out.

    Args:
        last: the labels of the last round.
        file: ``changes.json``, as :func:`write_changes` wrote it.
        fraction: share of the labelled cases that is left out.
    """

    def __init__(self, last: PredictedLabels, file: Path, fraction: float) -> None:
        self.last, self.file, self.fraction = last, file, fraction
        self.read, self.digest = last.read, last.digest

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What decides the labels; JSON."""
        return {"labels": self.last.inputs, "drop_fraction": self.fraction}

    def left_out(self) -> frozenset[str]:
        """Return the cases whose labels changed most, and note them in the file."""
        if not self.file.exists():
            return frozenset()  # a single round: nothing to compare
        changes = json.loads(self.file.read_text(encoding="utf-8"))["change"]
        dropped = worst(changes, self.fraction)
        note = {"drop_fraction": self.fraction, "dropped": dropped, "change": changes}
        write_json(self.file, note)
        return frozenset(dropped)


def change(older: Ids, newer: Ids) -> float:
    """Return u: changed voxels per labelled voxel of the newer label map.

    Args:
        older: (Z, Y, X) ids.
        newer: (Z, Y, X) ids of the round after.
    """
    labelled = int(np.count_nonzero(newer))
    return int(np.count_nonzero(older != newer)) / max(1, labelled)


def worst(changes: Mapping[str, float], fraction: float) -> list[str]:
    """Return the cases that change most, worst first.

    Args:
        changes: u of each case.
        fraction: share of them.
    """
    ordered = sorted(changes, key=lambda name: (-changes[name], name))
    return ordered[: round(fraction * len(ordered))]


def write_changes(
    file: Path, cases: tuple[Case, ...], older: Callable[[Case], Ids], newer: Callable[[Case], Ids]
) -> None:
    """Write u of each case.

    Args:
        file: to write.
        cases: that were labelled.
        older: gives the labels to learn of the round before.
        newer: gives those of this round.
    """
    changes = {case.name: round(change(older(case), newer(case)), 6) for case in cases}
    write_json(file, {"change": changes})
