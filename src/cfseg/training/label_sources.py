"""Where the labels of organs come from that nobody annotated in a case (paper 2.2).

From the coarse model (*Dataset 1*, for the tumor models), from the tumor model, from a round of the
teacher, or from a folder that another method wrote (the paper takes those of the FLARE22 winner).
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from cfseg.dataset.cases import Case
from cfseg.dataset.digests import Digests, facts
from cfseg.errors import InputError, UsageError
from cfseg.geometry import Geometry
from cfseg.io import read_label_map
from cfseg.labelling.pseudo_labels import Teacher, label_cases, pseudo_file, read_pseudo_label
from cfseg.plan import Role
from cfseg.recipes.training import ORGAN_LABELS, Training
from cfseg.training.steps import Progress, Report

Ids = npt.NDArray[np.uint8]
_NAMED = 10
_REPORT_EVERY = 10


class LabelSource(Protocol):
    """Labels of organs for cases that lack them."""

    @property
    def inputs(self) -> dict[str, Any] | None:
        """What decides the labels; JSON."""

    def digest(self, case: Case) -> str:
        """Return what decides the labels of one case, once they are there; "" for no labels."""

    def read(self, case: Case, geometry: Geometry) -> Ids:
        """Return (Z, Y, X) ids on a case's grid, background where nothing is known."""

    def left_out(self) -> frozenset[str]:
        """Return the cases whose labels are not to be learned from; known once they are there."""


class NoLabels:
    """For a model that learns from the ground truth alone."""

    inputs: None = None

    def digest(self, case: Case) -> str:  # noqa: ARG002 - the protocol's
        """Return that there are none."""
        return ""

    def read(self, case: Case, geometry: Geometry) -> Ids:  # noqa: ARG002 - the protocol's
        """Return background."""
        return np.zeros(geometry.shape, dtype=np.uint8)

    def left_out(self) -> frozenset[str]:
        """Return none."""
        return frozenset()


class Labeller(Protocol):
    """A model that labels cases: a network of the chain, or a bundle in the place of one."""

    @property
    def about(self) -> str:
        """In words."""

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """What decides its ``network``; JSON."""

    def open(self, checkpoint: str, step: float, device: torch.device) -> Teacher:
        """Load it.

        Args:
            checkpoint: which weights, see :func:`cfseg.training.trained.read_trained`.
            step: distance between windows as a fraction of the patch.
            device: where it runs.
        """


class PredictedLabels:
    """Labels that a model gives to the cases that lack some.

    Args:
        name: of the step that writes them.
        folder: holds ``CASE.npz``.
        labeller: the model; of two weights the first.
        cases: that get labels.
        training: the recipe's.
        digests: known ones of the cases' files.
        serves: the stages that cannot be had without them.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        labeller: Labeller,
        cases: Sequence[Case],
        training: Training,
        digests: Digests,
        serves: tuple[Role, ...],
    ) -> None:
        self.name, self.folder, self.labeller, self.cases = name, folder, labeller, tuple(cases)
        self.training, self.digests, self.serves = training, digests, serves

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What decides the labels; JSON."""
        return {
            "teacher": self.labeller.inputs["network"],
            "checkpoint": self.training.checkpoint,
            "step": self.training.pseudo_label_step,
            "cases": facts(self.cases, self.digests),
        }

    def write(self, device: torch.device, report: Report, progress: Progress | None = None) -> None:
        """Write what the model says about all cases that need it.

        Args:
            device: where it runs.
            report: gets lines of progress.
            progress: is told after each case.
        """
        total = len(self.cases)

        def on_case(number: int) -> None:
            if progress is not None:
                progress(self.name, number, total)
            if number % _REPORT_EVERY == 0 or number == total:
                report(f"  {number}/{total} cases")

        # Not the selected weights: those are known only when all networks are.
        rule = self.training
        teacher = self.labeller.open(rule.checkpoint, rule.pseudo_label_step, device)
        label_cases(self.cases, self.folder, teacher, on_case)

    def is_whole(self) -> bool:
        """Say whether the labels of all cases are there."""
        return all(pseudo_file(self.folder, case).exists() for case in self.cases)

    def digest(self, case: Case) -> str:
        """Return the sha256 of a case's labels, "" for a case that needed nothing."""
        file = pseudo_file(self.folder, case)
        return self.digests.of(file) if file.exists() else ""

    def read(self, case: Case, geometry: Geometry) -> Ids:
        """Return what the model said; background for a case that needed nothing."""
        file = pseudo_file(self.folder, case)
        if not file.exists():
            return np.zeros(geometry.shape, dtype=np.uint8)
        return read_pseudo_label(file)

    def left_out(self) -> frozenset[str]:
        """Return none."""
        return frozenset()


class GivenLabels:
    """Label maps with FLARE's ids that another method wrote.

    Args:
        folder: holds ``CASE.nii.gz`` (or ``CASE.nii``) for each of the cases.
        cases: that need labels.
        digests: known ones of the label maps.

    Raises:
        UsageError: some of the files are not there.
    """

    def __init__(self, folder: Path, cases: Sequence[Case], digests: Digests) -> None:
        self.folder, self.digests = folder, digests
        if not folder.is_dir():
            raise UsageError(
                f"training.organ_labels: there is no folder {folder}; give one with label maps "
                f"CASE.nii.gz, or one of {', '.join(ORGAN_LABELS)}"
            )
        found = {case.name: _file_of(folder, case) for case in cases}
        missing = [name for name, file in found.items() if file is None]
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise UsageError(
                f"{folder} has no label map CASE.nii.gz of {len(missing)} of {len(found)} cases "
                f"that need one: {', '.join(missing[:_NAMED])}{more}"
            )
        self.files = {name: file for name, file in found.items() if file is not None}

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What decides the labels; JSON."""
        return {"given": [[name, self.digests.of(file)] for name, file in self.files.items()]}

    def about(self) -> str:
        """Return which labels they are, without where they lie."""
        contents = hashlib.sha256(json.dumps(self.inputs).encode()).hexdigest()
        return f"{len(self.files)} label maps of another method, sha256 {contents}"

    def digest(self, case: Case) -> str:
        """Return the sha256 of a case's labels, "" for a case that needs none."""
        return self.digests.of(self.files.get(case.name))

    def read(self, case: Case, geometry: Geometry) -> Ids:
        """Return what the file says, on the canonical axes of the scan.

        Raises:
            InputError: it cannot be read, or (``E_GRID``) lies on another grid than the scan.
        """
        file = self.files.get(case.name)
        if file is None:
            return np.zeros(geometry.shape, dtype=np.uint8)
        labels = read_label_map(file)[0]
        if not labels.geometry.matches(geometry):
            raise InputError(
                f"{file} lies on another grid than the scan {case.image.name}; resample it to the "
                "scan's",
                code="E_GRID",
            )
        return labels.ids

    def left_out(self) -> frozenset[str]:
        """Return none."""
        return frozenset()


def _file_of(folder: Path, case: Case) -> Path | None:
    candidates = (folder / f"{case.name}{suffix}" for suffix in (".nii.gz", ".nii"))
    return next((file for file in candidates if file.is_file()), None)
