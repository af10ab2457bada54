"""Which network learns from which cases and labels (paper 2.2; the teacher of FLARE22's winner).

The coarse model learns from the fully labelled cases; its labels complete the others for the tumor
models; the organ model learns from all cases, with labels from where the recipe says.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cfseg.dataset.cases import Case, read_labels
from cfseg.dataset.digests import Digests
from cfseg.dataset.label_names import IGNORE
from cfseg.errors import UsageError
from cfseg.geometry import Geometry
from cfseg.labelling.pseudo_labels import Teacher, label, pseudo_file, read_pseudo_label
from cfseg.labelling.targets import completed, truth_of
from cfseg.networks.backends import find_backend
from cfseg.plan import Role
from cfseg.recipes.training import ORGAN_LABELS, StageTraining, Training
from cfseg.training.atlases import Atlases
from cfseg.training.given import GivenCoarse
from cfseg.training.inputs import stage_inputs
from cfseg.training.label_sources import (
    GivenLabels,
    Labeller,
    LabelSource,
    NoLabels,
    PredictedLabels,
)
from cfseg.training.teacher import FILE, AgreedLabels, write_changes
from cfseg.training.trained import load_trained, read_trained

Ids = npt.NDArray[np.uint8]
BENCHMARK_CASES = 8


class Learner:
    """A network to be trained, or two that differ in their initialization, and what it learns from.

    Args:
        key: of its steps: ``coarse``, ``tumor``, ``organ``, ``teacher_1``.
        about: in words.
        work: the workspace.
        role: the stage, which decides the labels; a teacher has those of the organ model.
        stage: how it is trained.
        cases: that it learns from; those that ``labels`` leaves out are known only later.
        labels: of organs that nobody annotated.
        serves: the stages that cannot be had without it.
        training: the recipe's.
        digests: known ones of the cases' files.
        init: digest of the bundle whose weights it starts from; None for none.
        start: a network before it in the chain whose weights it starts from without a bundle; None
            for random ones.
        atlases: that it learns from too; None for none.
    """

    def __init__(
        self,
        key: str,
        about: str,
        work: Path,
        role: Role,
        stage: StageTraining,
        cases: Sequence[Case],
        labels: LabelSource,
        serves: tuple[Role, ...],
        training: Training,
        digests: Digests,
        init: str | None = None,
        start: "Learner | None" = None,
        atlases: Atlases | None = None,
    ) -> None:
        self.key, self.about, self.work, self.role, self.stage = key, about, work, role, stage
        self.cases, self.labels, self.serves = tuple(cases), labels, serves
        self.training, self.digests = training, digests
        self.init, self.start = init, start if init is None else None
        self.atlases = atlases

    @property
    def is_teacher(self) -> bool:
        """Whether it only labels cases for others."""
        return self.key != self.role

    @property
    def weights(self) -> int:
        """How many networks there are; a teacher is one."""
        return 1 if self.is_teacher else self.stage.weights

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks' steps."""
        if self.is_teacher:
            return (self.key,)
        return tuple(f"{self.key}_{weight}" for weight in range(1, self.weights + 1))

    @property
    def folder(self) -> Path:
        """Of its plan and of the list of its cases."""
        return self.work / "data" / self.key

    def network_folder(self, weight: int) -> Path:
        """Return the folder of a network's checkpoints; the first weight is 1."""
        return self.work / "networks" / self.networks[weight - 1]

    @property
    def network_folders(self) -> tuple[Path, ...]:
        """The folders of all of its networks' checkpoints, the first weight's first."""
        return tuple(self.network_folder(weight) for weight in range(1, self.weights + 1))

    @property
    def annotated(self) -> dict[str, frozenset[int]]:
        """What is annotated in each case."""
        return {case.name: case.known for case in self.cases}

    def serves_with(self, weight: int) -> tuple[Role, ...]:
        """Return the stages that need a weight: only the first one labels cases for others."""
        return self.serves if weight == 1 else (self.role,)

    @cached_property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """What decides the ``data``, and what decides each ``network``."""
        found = stage_inputs(
            self.training, self.stage, self.cases, self.labels.inputs, self.digests
        )
        if self.init is not None:
            found["network"]["init"] = self.init
        if self.start is not None:
            found["network"]["start"] = self.start.inputs["network"]
        if self.atlases is not None:
            found["network"]["atlases"] = self.atlases.inputs(self.digests)
        return found

    def for_benchmark(self, work: Path) -> "Learner":
        """Return a learner that takes as long for a step, of a few cases and what is known of them.

        Args:
            work: workspace of its own.
        """
        some = sorted(self.cases, key=lambda case: not case.annotated)[:BENCHMARK_CASES]
        return Learner(
            self.key, self.about, work, self.role, self.stage, some, NoLabels(), self.serves,
            self.training, self.digests, atlases=self.atlases,
        )  # fmt: skip

    def cases_now(self) -> tuple[Case, ...]:
        """Return the cases that it learns from, once all labels are there."""
        left_out = self.labels.left_out()
        return tuple(case for case in self.cases if case.name not in left_out)

    def target(self, case: Case, geometry: Geometry) -> Ids:
        """Return the (Z, Y, X) label map to be learned for a case.

        Args:
            case: in question.
            geometry: of its scan.

        Raises:
            InputError: a label map cannot be read, or lies on another grid than the scan.
        """
        truth = truth_of(case, geometry, keep_ignored=True)
        return completed(case, truth, self.labels.read(case, geometry), self.role)

    def open(self, checkpoint: str, step: float, device: torch.device) -> Teacher:
        """Load the trained network, of two weights the first, to label cases.

        Args:
            checkpoint: which weights, see :func:`cfseg.training.trained.read_trained`.
            step: distance between windows as a fraction of the patch.
            device: where it runs; on a CPU with OpenVINO if that is installed, as predicting does.

        Raises:
            ModelError: it is not trained.
        """
        trained = read_trained(self.network_folder(1), checkpoint)
        stage = load_trained(trained, self.role, self.key, device, find_backend("auto", device))
        return Teacher(lambda volume: label(stage, volume, step, organs_only=True), trained.digest)


def _is_teacher(labeller: Labeller) -> bool:
    return isinstance(labeller, Learner) and labeller.is_teacher


class Curriculum:
    """All networks of a recipe and the labels between them.

    Attributes:
        cases: all of the cohort.
        unfinished: those that get labels from a model: organs are missing, or hidden by a tumor.
        coarse: the coarse model, or a bundle in its place.
        tumor: the tumor models.
        organ: the organ model.
        steps: networks and labels in the order of the chain.

    Args:
        cases: of the cohort.
        work: the workspace.
        training: the recipe's.
        digests: known ones of the cases' files.
        init: digest of the bundle that the stages start from.
        init_has_organ: a teacher starts from it too.
        given: a bundle in the place of the coarse model.
        atlases: that all networks learn from too; None for none.

    Raises:
        UsageError: the cohort cannot teach a stage, or label maps of another method are missing.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        work: Path,
        training: Training,
        digests: Digests,
        init: str | None = None,
        *,
        init_has_organ: bool = False,
        given: GivenCoarse | None = None,
        atlases: Atlases | None = None,
    ) -> None:
        self.atlases = atlases
        self.cases, self.work, self.training = tuple(cases), work, training
        self.digests, self.init, self.init_has_organ = digests, init, init_has_organ
        self.unfinished = tuple(c for c in cases if not c.has_all_organs or c.has_tumor)
        from_folder = training.organ_labels not in ORGAN_LABELS
        first: tuple[Role, ...] = ("tumor",) if from_folder else ("tumor", "organ")
        users = {training.organ_labels, training.organ.start}
        if training.organ_labels == "teacher" and training.teacher is not None:
            users.add(training.teacher.start)
        served: tuple[Role, ...] = ("tumor", "organ") if "tumor" in users else ("tumor",)
        self.steps: list[Learner | PredictedLabels] = []
        self.coarse: Learner | GivenCoarse
        if given is None:
            cases = self._coarse_cases()
            self.coarse = self._stage("coarse", cases, NoLabels(), ("coarse", *first))
            self.steps.append(self.coarse)
        else:
            self._refuse_start_from_coarse()
            self.coarse = given
        labels = self._labels("pseudo_labels", work / "pseudo_labels", self.coarse, first)
        self.tumor = self._stage("tumor", self._tumor_cases(), labels, served)
        self.steps += [labels, self.tumor]
        self.organ = self._stage("organ", self.cases, self._organ_labels(labels), ("organ",))
        self.steps.append(self.organ)

    @property
    def learners(self) -> tuple[Learner, ...]:
        """The networks in the order of the chain."""
        return tuple(step for step in self.steps if isinstance(step, Learner))

    def compare_rounds(self, labels: PredictedLabels) -> None:
        """Write how much the labels of a round of the teacher differ from those of the one before.

        Args:
            labels: of the newer round; nothing is written for a first one.
        """
        before = labels.labeller.labels if isinstance(labels.labeller, Learner) else None
        if not (isinstance(before, PredictedLabels) and _is_teacher(before.labeller)):
            return

        def read(folder: Path, case: Case) -> Ids:
            pseudo = read_pseudo_label(pseudo_file(folder, case))
            truth = np.zeros_like(pseudo)
            if case.label is not None:
                truth = read_labels(case, keep_ignored=True).ids
            target = completed(case, truth, pseudo, "organ")
            return np.where(target == IGNORE, np.uint8(0), target)

        write_changes(
            labels.folder / FILE,
            labels.cases,
            lambda case: read(before.folder, case),
            lambda case: read(labels.folder, case),
        )

    def _coarse_cases(self) -> list[Case]:
        full_only = self.training.coarse_cases == "full"
        found = [c for c in self.cases if c.has_all_organs and not (full_only and c.has_tumor)]
        if not found:
            which = (
                "all 13 organs annotated and no tumor" if full_only else "all 13 organs annotated"
            )
            more = ", --set training.coarse_cases=all_organs to use those with tumors too,"
            raise UsageError(
                f"no case has {which}, so no coarse model can be trained; check manifest.json,"
                f"{more if full_only else ''} or give --coarse BUNDLE, whose labels complete the "
                "cases"
            )
        return found

    def _refuse_start_from_coarse(self) -> None:
        trained = {"tumor": self.init is None, "organ": self.init is None}
        if self.training.organ_labels == "teacher":
            trained["teacher"] = self.init is None or not self.init_has_organ
        for name, is_free in trained.items():
            if is_free and getattr(self.training, name).start == "coarse":
                raise UsageError(
                    f"training.{name}.start = coarse, but with --coarse no coarse model is trained;"
                    f" set training.{name}.start=random, or give --init BUNDLE too"
                )

    def _tumor_cases(self) -> list[Case]:
        if not any(c.has_tumor for c in self.cases):
            raise UsageError(
                "no case has tumors annotated, so no tumor model can be trained; "
                "check manifest.json"
            )
        known = self.training.tumor_cases == "known"
        return [c for c in self.cases if c.has_tumor or (known and c.is_tumor_free)]

    def _organ_labels(self, coarse: PredictedLabels) -> LabelSource:
        """Return the labels for the organ model, and put what they take into the chain."""
        source, teacher = self.training.organ_labels, self.training.teacher
        if source == "coarse":
            return coarse
        if source == "tumor":
            name = "tumor_labels"
            labels = self._labels(name, self.work / name, self.tumor, ("organ",))
            self.steps.append(labels)
            return labels
        if source != "teacher" or teacher is None:
            return GivenLabels(Path(source), self.unfinished, self.digests)
        labels = coarse
        for number in range(1, teacher.rounds + 1):
            labels = self._round(number, teacher, labels)
        return AgreedLabels(labels, labels.folder / FILE, teacher.drop_fraction)

    def _round(self, number: int, stage: StageTraining, labels: PredictedLabels) -> PredictedLabels:
        full = [c for c in self.cases if c.has_all_organs]
        cases = full if number == 1 and full else self.cases
        key = f"teacher_{number}"
        learner = Learner(
            key, f"the teacher, round {number}", self.work, "organ", stage,
            cases, labels, ("organ",), self.training, self.digests,
            self.init if self.init_has_organ else None, self._start(stage), self.atlases,
        )  # fmt: skip
        place = self.work / "teacher" / f"labels_{number}"
        found = self._labels(f"{key}_labels", place, learner, ("organ",))
        self.steps += [learner, found]
        return found

    def _stage(
        self, role: Role, cases: Sequence[Case], labels: LabelSource, serves: tuple[Role, ...]
    ) -> Learner:
        stage: StageTraining = getattr(self.training, role)
        return Learner(
            role, f"the {role} model", self.work, role, stage, cases, labels, serves,
            self.training, self.digests, self.init, self._start(stage), self.atlases,
        )  # fmt: skip

    def _start(self, stage: StageTraining) -> Learner | None:
        found = None if stage.start == "random" else getattr(self, stage.start)
        return found if isinstance(found, Learner) else None

    def _labels(
        self, name: str, folder: Path, labeller: Learner | GivenCoarse, serves: tuple[Role, ...]
    ) -> PredictedLabels:
        return PredictedLabels(
            name, folder, labeller, self.unfinished, self.training, self.digests, serves
        )
