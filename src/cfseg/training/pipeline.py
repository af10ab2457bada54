"""From a partly labelled cohort to a bundle (paper 2.2), as a chain of steps that resumes.

Coarse model on the fully labelled cases; its pseudo-labels complete the others; the tumor model
twice on the cases with tumors; the organ model on all cases; the bundle.
"""

import shutil
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.dataset.cases import Case, read_cases
from cfseg.dataset.pseudo_labels import merge, organs_under_tumor
from cfseg.dataset.splits import split
from cfseg.errors import UsageError
from cfseg.io import read_label_map, read_scan
from cfseg.plan import Role, StagePlan
from cfseg.recipes.recipe import Recipe
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.inputs import facts, stage_inputs
from cfseg.training.pseudo_labels import pseudo_file, read_pseudo_label
from cfseg.training.steps import Report, Step, is_done, lock, run_steps, seconds_of
from cfseg.training.workspace import StageFolder, prepare, write_case
from cfseg.volume import LabelMap


class Pipeline:
    """The chain for one cohort, workspace and recipe.

    Args:
        dataset: folder in nnU-Net's raw layout, with ``manifest.json`` where labels are partial.
        work: folder for everything in between; the bundle is ``work/bundle``.
        recipe: with a ``[training]`` table.
        device: ``auto``, ``cpu`` or ``cuda``.
        report: gets lines of progress.
        provenance: kept in the bundle.
        notice: shown with every output of the bundle.

    Raises:
        UsageError: the cohort or recipe does not serve.
    """

    def __init__(
        self,
        dataset: Path,
        work: Path,
        recipe: Recipe,
        *,
        device: str = "auto",
        report: Report,
        provenance: dict[str, Any] | None = None,
        notice: str = "",
    ) -> None:
        if recipe.training is None:
            raise UsageError(f"recipe {recipe.name} has no [training] table; choose another")
        self.work, self.recipe, self.report = work.resolve(), recipe, report
        self.training: Training = recipe.training
        self.device, self.notice, self.provenance = device, notice, provenance or {}
        self.cases = read_cases(dataset)
        full_only = self.training.coarse_cases == "full"
        self.coarse_cases = [
            c for c in self.cases if c.has_all_organs and not (full_only and c.has_tumor)
        ]
        self.tumor_cases = [c for c in self.cases if c.has_tumor]
        # A case with tumors needs the organ under the tumor, for the organ model.
        self.unfinished = [c for c in self.cases if not c.has_all_organs or c.has_tumor]
        self._check()

    def _check(self) -> None:
        if not self.coarse_cases:
            raise UsageError(
                "no case has all 13 organs annotated, so no coarse model can be trained; check "
                "manifest.json, or set training.coarse_cases=all_organs to use cases with tumors"
            )
        if not self.tumor_cases:
            raise UsageError(
                "no case has tumors annotated, so no tumor model can be trained; "
                "check manifest.json"
            )

    # -- the chain -----------------------------------------------------------------------------

    def steps(self, stage: Role | None = None) -> list[Step]:
        """Return the steps in order; reading them is reading the paper's 2.2.

        Args:
            stage: leave out what this stage does not need; None keeps all.
        """
        coarse = self._inputs("coarse", self.coarse_cases)
        labels = {
            "teacher": coarse["network"],
            "checkpoint": self.training.checkpoint,
            "step": self.training.pseudo_label_step,
            "cases": facts(self.unfinished),
        }
        tumor = self._inputs("tumor", self.tumor_cases, labels)
        organ = self._inputs("organ", self.cases, labels)
        whole = {"tumor": tumor, "organ": organ, "recipe": self.recipe.model_dump(mode="json")}
        chain = [
            *self._stage_steps("coarse", self.coarse_cases, coarse),
            Step(
                "pseudo_labels", f"pseudo-label {len(self.unfinished)} cases", labels,
                self.pseudo_label, lambda: _remove(self.pseudo_folder), ("tumor", "organ"),
            ),
            *self._stage_steps("tumor", self.tumor_cases, tumor),
            *self._stage_steps("organ", self.cases, organ),
            Step("bundle", "write the bundle", whole, self.write_bundle, _nothing, ()),
        ]  # fmt: skip
        return [step for step in chain if stage is None or stage in step.serves]

    def _stage_steps(
        self, role: Role, cases: Sequence[Case], inputs: dict[str, dict[str, Any]]
    ) -> list[Step]:
        serves: tuple[Role, ...] = ("coarse", "tumor", "organ") if role == "coarse" else (role,)
        about = f"prepare {len(cases)} cases for the {role} model"
        run, clear = partial(self.write_data, role, cases), partial(self._clear_data, role)
        found = [Step(f"{role}_data", about, inputs["data"], run, clear, serves)]
        weights = self._stage(role).weights
        for weight in range(1, weights + 1):
            which = f", weight {weight} of {weights}" if weights > 1 else ""
            found.append(
                Step(
                    f"{role}_{weight}", f"train the {role} model{which}", inputs["network"],
                    partial(self.train, role, weight), partial(self._clear_model, role, weight),
                    serves,
                )
            )  # fmt: skip
        return found

    def _inputs(
        self, role: Role, cases: Sequence[Case], labels: dict[str, Any] | None = None
    ) -> dict[str, dict[str, Any]]:
        return stage_inputs(self.training, self._stage(role), cases, labels)

    def plan(self, stage: Role | None = None) -> list[str]:
        """Return a line for each step: what it does, and whether it was done before."""
        return [
            f"{step.name}: {step.about}{' (done)' if is_done(self.markers, step) else ''}"
            for step in self.steps(stage)
        ]

    def run(self, stage: Role | None = None) -> None:
        """Run the chain, or only what one stage needs.

        Raises:
            UsageError: another process works in this workspace.
        """
        with lock(self.work):
            run_steps(self.markers, self.steps(stage), self.report)

    @property
    def markers(self) -> Path:
        """The folder of the steps' markers."""
        return self.work / "steps"

    @property
    def bundle(self) -> Path:
        """The folder of the finished bundle."""
        return self.work / "bundle"

    @property
    def pseudo_folder(self) -> Path:
        """The folder of the pseudo-labels."""
        return self.work / "pseudo_labels"

    # -- data ----------------------------------------------------------------------------------

    def pseudo_label(self) -> None:
        """Predict the organs of all cases that need it with the coarse model."""
        from cfseg.networks.device import find_device
        from cfseg.training.pseudo_labels import label_cases, load_teacher

        total = len(self.unfinished)

        def on_case(number: int) -> None:
            if number % 10 == 0 or number == total:
                self.report(f"  {number}/{total} cases")

        model = StageFolder(self.work, "coarse").model(1)
        teacher = load_teacher(model, self.checkpoint, find_device(self.device))
        step = self.training.pseudo_label_step
        label_cases(self.unfinished, self.pseudo_folder, teacher, step, on_case)

    def write_data(self, role: Role, cases: Sequence[Case]) -> None:
        """Write and preprocess the cases of a stage with the labels that it learns."""
        folder, training = StageFolder(self.work, role), self.training
        for case in cases:
            if not folder.image(case.name).exists():
                volume = read_scan(case.image).volume
                labels = LabelMap(self.target(role, case, volume.geometry.shape), volume.geometry)
                write_case(folder, case.name, volume, labels, training.z_margin_slices)
        names = [case.name for case in cases]
        parts = split(names, training.validation_fraction, training.seed)
        prepare(folder, training, self._stage(role), parts)

    def target(self, role: Role, case: Case, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        """Return the (Z, Y, X) label map that a stage learns for a case."""
        truth = np.zeros(shape, dtype=np.uint8)
        if case.label is not None:
            truth = read_label_map(case.label)[0].ids
        pseudo, file = np.zeros(shape, dtype=np.uint8), pseudo_file(self.pseudo_folder, case)
        if role != "coarse" and file.exists():
            pseudo = read_pseudo_label(file)
        rule = merge if role == "tumor" else organs_under_tumor
        return rule(truth, pseudo, case.annotated)

    def _clear_data(self, role: Role) -> None:
        folder = StageFolder(self.work, role)
        _remove(folder.raw)
        _remove(folder.preprocessed)

    # -- networks ------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> str:
        """The file name of the weights that go on."""
        return f"checkpoint_{self.training.checkpoint}.pth"

    def _stage(self, role: Role) -> StageTraining:
        stage: StageTraining = getattr(self.training, role)
        return stage

    def _clear_model(self, role: Role, weight: int) -> None:
        """Put a network of other inputs aside: it may have cost days."""
        model = StageFolder(self.work, role).model(weight)
        if model.exists():
            shelf = self.work / "replaced" / f"{role}_{weight}_{time.strftime('%Y%m%dT%H%M%S')}"
            shelf.parent.mkdir(parents=True, exist_ok=True)
            model.replace(shelf)
            self.report(f"  inputs changed; the network trained before is now {shelf}")

    def train(self, role: Role, weight: int) -> None:
        """Train one network with nnU-Net, from its last checkpoint if there is one."""
        from cfseg.networks.device import find_device
        from cfseg.training.trainer import train_network

        train_network(
            StageFolder(self.work, role), weight, self.training, self._stage(role),
            find_device(self.device), lambda line: self.report(f"  {line}"),
        )  # fmt: skip

    def write_bundle(self) -> None:
        """Put the networks into a bundle with the recipe's cascade."""
        from cfseg.bundle.bundle import write_bundle
        from cfseg.bundle.nnunet_v2 import read_model_folder

        networks: list[tuple[Role, StagePlan, dict[str, Any], dict[str, Any]]] = []
        roles: tuple[Role, ...] = ("coarse", "tumor", "organ")
        for role in roles:
            folder, stage = StageFolder(self.work, role), self._stage(role)
            for weight in range(1, stage.weights + 1):
                plan, weights = read_model_folder(
                    folder.model(weight), role, checkpoint=self.checkpoint
                )
                about = {"weight": weight, "cases": len(folder.cases()), "epochs": stage.epochs}
                networks.append((role, plan, weights, about))
        write_bundle(
            self.bundle, self.recipe.name, networks, self.recipe.cascade, self._provenance(),
            self.notice, overwrite=True,
        )  # fmt: skip
        self.report(f"  {self.bundle}")

    def _provenance(self) -> dict[str, Any]:
        return self.provenance | {
            "versions": {name: version(name) for name in ("nnunetv2", "torch", "numpy")},
            "recipe": self.recipe.model_dump(mode="json"),
            "cases": {
                "all": len(self.cases),
                "coarse": len(self.coarse_cases),
                "tumor": len(self.tumor_cases),
                "pseudo_labelled": len(self.unfinished),
            },
            "seconds": seconds_of(self.markers, self.steps()[:-1]),
        }


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _nothing() -> None:
    """The bundle is replaced when it is written."""
