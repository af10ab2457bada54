"""From a partly labelled cohort to a bundle (paper 2.2), as a chain of steps that resumes.

Coarse model on the fully labelled cases; its pseudo-labels complete the others; the tumor model
twice on the cases with tumors; the organ model on all cases; the selection; the bundle.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from cfseg.bundle.bundle import write_bundle
from cfseg.bundle.manifest import MANIFEST, digest, read_manifest
from cfseg.dataset.cases import Case, read_cases
from cfseg.dataset.digests import Digests
from cfseg.dataset.fitness import Grid, check_fitness, readable_cases
from cfseg.errors import UsageError
from cfseg.foreign import read_object
from cfseg.io import make_folder, write_json
from cfseg.learning.group import as_first, is_first
from cfseg.networks.device import find_device
from cfseg.plan import Role
from cfseg.recipes.recipe import Recipe
from cfseg.recipes.training import Training
from cfseg.training.atlases import Atlases
from cfseg.training.benchmark import measure
from cfseg.training.cost import write_cost
from cfseg.training.curriculum import Curriculum, Learner
from cfseg.training.data import is_whole, prepare, remove_unused
from cfseg.training.fit import fit
from cfseg.training.given import GivenCoarse
from cfseg.training.label_sources import PredictedLabels
from cfseg.training.looks import pictures
from cfseg.training.outcome import FILE as SELECTION
from cfseg.training.outcome import decisive, rank, selected, trained_networks
from cfseg.training.outlook import outlook
from cfseg.training.page import write_page
from cfseg.training.provenance import provenance
from cfseg.training.start import start_of
from cfseg.training.steps import (
    Progress,
    Report,
    Step,
    alone_in,
    nothing,
    remove,
    run_steps,
    seconds_of,
)
from cfseg.training.trained import is_trained

PAGE_SECONDS = 60.0
"""The page is not written anew more often, but for the last time."""
MADE_BY = "workspace.json"
ENGINE = 2
"""Counts up when a workspace can no longer be gone on with."""


class Pipeline:
    """The chain for one cohort, workspace and recipe.

    Args:
        dataset: the cohort, as :func:`cfseg.dataset.cases.read_cases` takes it.
        work: folder for everything in between; the bundle is ``work/bundle``.
        recipe: with a ``[training]`` table.
        device: where networks are trained and run; None takes a GPU where there is one.
        report: gets lines of progress.
        provenance: kept in the bundle.
        notice: shown with every output of the bundle.
        init: a bundle whose networks the training starts from.
        coarse: a bundle that takes the coarse model's part.
        atlases: a file or folder of atlases that networks learn from too.
        selection_set: cohort, fully labelled, by which the kept weights are ranked; None takes
            those that the recipe's ``checkpoint`` says.
        progress: is told after each iteration and each labelled case.
        jobs: threads that check and prepare cases; 0: as many as cores, up to four.
        skip_bad: leave out the cases that cannot be trained on, instead of refusing them all.

    Raises:
        UsageError: the cohort or recipe does not serve.
        ModelError: ``init`` is no bundle.
    """

    def __init__(
        self,
        dataset: Path,
        work: Path,
        recipe: Recipe,
        *,
        device: torch.device | None = None,
        report: Report,
        provenance: dict[str, Any] | None = None,
        notice: str = "",
        init: Path | None = None,
        coarse: Path | None = None,
        atlases: Path | None = None,
        selection_set: Path | None = None,
        progress: Progress | None = None,
        jobs: int = 0,
        skip_bad: bool = False,
    ) -> None:
        if recipe.training is None:
            raise UsageError(f"recipe {recipe.name} has no [training] table; choose another")
        self.work, self.recipe, self.report = work.resolve(), recipe, report
        self.training: Training = recipe.training
        self.atlases = Atlases.of(atlases, self.training)
        self.device = device or find_device("auto")
        self.provenance, self.init, self.progress = provenance or {}, init, progress
        self.init_digest = None if init is None else digest(init)
        self.given = None if coarse is None else GivenCoarse(coarse)
        said = [notice, "" if self.given is None else self.given.manifest.notice]
        self.notice = "\n".join(dict.fromkeys(it for it in said if it))
        self.digests = Digests(self.work / "digests.json")
        self.dataset, self.jobs, self.skip_bad = dataset, jobs, skip_bad
        self.left_out: dict[str, str] = {}
        self.grids: Mapping[str, Grid] = {}
        self.page_at = perf_counter()
        self._learn_from(readable_cases(dataset) if skip_bad else read_cases(dataset))
        self.selection_set = selection_set
        self.selection_cases = () if selection_set is None else read_cases(selection_set)
        _refuse_other_engine(self.work)

    def _learn_from(self, cases: Sequence[Case]) -> None:
        self.cases = tuple(cases)
        has_organ = self.init is not None and "organ" in read_manifest(self.init).roles
        self.curriculum = Curriculum(
            self.cases, self.work, self.training, self.digests, self.init_digest,
            init_has_organ=has_organ, given=self.given, atlases=self.atlases,
        )  # fmt: skip

    def check(self, *, remember: bool = True) -> None:
        """Look at all cases before any work; the bad ones are left out if that is wanted.

        Args:
            remember: write down what was found, so that no file is read again next time.

        Raises:
            InputError: ``E_BAD_CASES``, there are some and it is not wanted.
            UsageError: the others do not suffice.
        """
        on_case = None if self.progress is None else partial(self.progress, "check")
        memory = self.work / "fitness.json"
        found = check_fitness(self.dataset, memory, self.jobs, on_case, remember=remember)
        found.judge(self.report, skip_bad=self.skip_bad)
        self.left_out, self.grids = found.bad, found.grids
        self._check_selection(remember=remember)
        if self.left_out:
            self._learn_from(found.good)

    def _check_selection(self, *, remember: bool) -> None:
        if self.selection_set is None:
            return
        for case in self.selection_cases:
            if case.label is None or case.ignore is not None or not case.has_all_organs:
                raise UsageError(
                    f"--selection-set {self.selection_set}: {case.name} is not fully labelled; "
                    "every case needs a label map with all organs and nothing to be ignored"
                )
        memory = self.work / "selection_fitness.json"
        found = check_fitness(self.selection_set, memory, self.jobs, remember=remember)
        found.judge(self.report, skip_bad=False)

    # -- the chain -----------------------------------------------------------------------------

    def steps(self, stage: Role | None = None) -> list[Step]:
        """Return the steps in order; reading them is reading the paper's 2.2.

        Args:
            stage: leave out what this stage does not need; None keeps all.

        Raises:
            UsageError: a bundle takes the part of this stage.
        """
        chain: list[Step] = []
        for item in self.curriculum.steps:
            if isinstance(item, Learner):
                chain += self._training_steps(item)
            else:
                chain.append(self._labelling_step(item))
        if self.selection_cases:
            about = f"rank the kept weights on {len(self.selection_cases)} cases"
            clear = partial(remove, self.work / "selection")
            there = (self.work / "selection" / SELECTION).is_file
            chain.append(
                Step("selection", about, self._outcome, self.select, clear, (), is_whole=there)
            )
        about, there = "write the bundle", (self.bundle / MANIFEST).is_file
        chain.append(
            Step("bundle", about, self._outcome, self.write_bundle, nothing, (), is_whole=there)
        )
        found = [step for step in chain if stage is None or stage in step.serves]
        if not found:
            raise UsageError(
                f"--stage {stage}: with --coarse no {stage} model is trained; give another stage"
            )
        return found

    def _training_steps(self, learner: Learner) -> list[Step]:
        some, all_ = len(learner.cases), len(self.cases)
        counts = f"{some} cases" if some == all_ else f"{some} of {all_} cases"
        found = [
            Step(
                f"{learner.key}_data", f"prepare {counts} for {learner.about}",
                lambda: learner.inputs["data"], partial(self.write_data, learner),
                partial(remove, learner.folder), learner.serves,
                is_whole=partial(is_whole, learner),
            )
        ]  # fmt: skip
        for weight, name in enumerate(learner.networks, 1):
            which = f", weight {weight} of {learner.weights}" if learner.weights > 1 else ""
            found.append(
                Step(
                    name, f"train {learner.about}{which}", lambda: learner.inputs["network"],
                    partial(self.train, learner, weight),
                    partial(self._clear_network, learner, weight), learner.serves_with(weight),
                    is_joint=True, is_whole=partial(is_trained, learner.network_folder(weight)),
                )
            )  # fmt: skip
        return found

    def _labelling_step(self, labels: PredictedLabels) -> Step:
        is_usual = labels.labeller is self.curriculum.coarse and self.given is None
        by = "" if is_usual else f" with {labels.labeller.about}"
        return Step(
            labels.name, f"pseudo-label {len(labels.cases)} cases{by}", lambda: labels.inputs,
            partial(self.pseudo_label, labels), partial(remove, labels.folder), labels.serves,
            is_whole=labels.is_whole,
        )  # fmt: skip

    def _outcome(self) -> dict[str, Any]:
        return decisive(self.curriculum, self.recipe, self.selection_cases, self.digests)

    def plan(self, stage: Role | None = None) -> list[str]:
        """Return a line for each step: what it does, whether it was done before, its hours.

        No image or label map is read for it as long as the workspace has no finished steps.
        """
        return outlook(
            self.steps(stage), self.markers, self.curriculum.learners, self.training, self.grids,
            self.device,
        )  # fmt: skip

    def run(self, stage: Role | None = None) -> None:
        """Run the chain, or only what one stage needs.

        In a group of processes (torchrun) all of them call it.

        Raises:
            UsageError: another process works in this workspace.
            InputError: cases cannot be trained on.
        """
        if not is_first():
            self._learn_from(as_first(()))
            run_steps(self.markers, self.steps(stage), self.report)
            return
        with alone_in(self.work):
            write_json(self.work / MADE_BY, {"engine": ENGINE})
            self.steps(stage)  # refuses a stage that nobody trains before a case is read
            self.check()
            as_first(self.cases)
            try:
                run_steps(self.markers, self.steps(stage), self.report)
            finally:
                self.digests.save()
            if not (self.bundle / MANIFEST).is_file():  # whose step has written the page
                self.write_page({})

    def benchmark(self, stage: Role | None = None) -> Iterator[str]:
        """Time each network on a few cases, with the labels that are known; yield a line for each.

        Args:
            stage: only this one's; None times all.
        """
        with TemporaryDirectory() as folder:
            for learner in self.curriculum.learners:
                if stage in (None, learner.role) and not learner.is_teacher:
                    alike = learner.for_benchmark(Path(folder))
                    prepare(alike, self._say, self.jobs, self.progress)
                    yield measure(alike, self.device).line

    @property
    def markers(self) -> Path:
        """The folder of the steps' markers."""
        return self.work / "steps"

    @property
    def bundle(self) -> Path:
        """The folder of the finished bundle."""
        return self.work / "bundle"

    # -- data ----------------------------------------------------------------------------------

    def pseudo_label(self, labels: PredictedLabels) -> None:
        """Predict the organs of all cases that need it with a model."""
        labels.write(self.device, self.report, self.progress)
        self.curriculum.compare_rounds(labels)

    def write_data(self, learner: Learner) -> None:
        """Plan a network and store its cases with the labels that it learns."""
        self.digests.save()
        prepare(learner, self._say, self.jobs, self.progress)
        remove_unused(self.work, self.curriculum.learners)

    def _say(self, line: str) -> None:
        self.report(f"  {line}")

    # -- networks ------------------------------------------------------------------------------

    def checkpoint_of(self, role: Role, weight: int) -> str:
        """Return which weights of a network go into the bundle.

        Args:
            role: of the network.
            weight: 1 or 2.
        """
        if not self.selection_cases:
            return self.training.checkpoint
        return selected(self.work / "selection", role, weight)

    def _clear_network(self, learner: Learner, weight: int) -> None:
        """Put a network of other inputs aside."""
        folder = learner.network_folder(weight)
        for picture in pictures(self.work, folder.name):
            picture.unlink(missing_ok=True)
        shelf = put_aside(folder, self.work / "replaced")
        if shelf is not None:
            self._say(f"inputs changed; the network trained before is now {shelf}")

    def train(self, learner: Learner, weight: int) -> None:
        """Train one network, from its last checkpoint if there is one."""
        start = start_of(learner, weight, self.init, self.training.checkpoint)
        fit(
            learner, weight, self.recipe.cascade, self.device, self._say,
            start=start, progress=self.progress,
        )  # fmt: skip
        if is_first() and perf_counter() - self.page_at > PAGE_SECONDS:
            self.write_page({})
            self.page_at = perf_counter()

    def select(self) -> None:
        """Rank the kept weights of all networks by the whole cascade on the selection set."""
        rank(
            self.curriculum, self.recipe.cascade, self.selection_cases, self.work / "selection",
            self.training.checkpoint, self.device, self.report,
        )  # fmt: skip

    def write_bundle(self) -> None:
        """Put the networks into a bundle with the recipe's cascade, and write what they cost."""
        write_bundle(
            self.bundle, self.recipe.name, trained_networks(self.curriculum, self.checkpoint_of),
            self.recipe.cascade, self._provenance(), self.notice, overwrite=True,
        )  # fmt: skip
        self.write_cost()
        learners = [it for it in self.curriculum.learners if not it.is_teacher]
        places = [(it, weight) for it in learners for weight in range(1, it.weights + 1)]
        self.write_page({it.networks[w - 1]: self.checkpoint_of(it.role, w) for it, w in places})
        self._say(str(self.bundle))

    def write_page(self, chosen: Mapping[str, str]) -> None:
        """Write the page of what is trained so far.

        Args:
            chosen: checkpoint of each network that went into the bundle.
        """
        write_page(
            self.work, self.recipe, self.notice, self.curriculum.learners, self.cases,
            self.left_out, chosen,
        )  # fmt: skip

    def write_cost(self) -> str:
        """Write what the networks cost so far, and return it as Markdown."""
        folders = [folder for it in self.curriculum.learners for folder in it.network_folders]
        return write_cost(self.work, folders, self.training)

    def _provenance(self) -> dict[str, Any]:
        seconds = seconds_of(self.markers, self.steps()[:-1])
        return self.provenance | provenance(
            self.recipe, self.curriculum, self.init_digest, self.left_out, seconds
        )


def put_aside(folder: Path, shelves: Path) -> Path | None:
    """Move a network's folder out of the way; return where to, None if nothing was there.

    Args:
        folder: of its checkpoints.
        shelves: gets it under its name and a number.
    """
    if not folder.exists():
        return None
    make_folder(shelves)
    number = 1
    while (shelf := shelves / f"{folder.name}_{number}").exists():
        number += 1
    folder.rename(shelf)
    return shelf


def _refuse_other_engine(work: Path) -> None:
    """Refuse a workspace that cannot be gone on with.

    Raises:
        UsageError: it is of cfseg 0.1.0, which trained with nnU-Net.
    """
    old = ("nnUNet_preprocessed", "nnUNet_raw")
    if any((work / name).exists() for name in old):
        raise UsageError(
            f"{work}: this workspace is of cfseg 0.1.0, whose training engine is gone; finish it "
            "with that version, or give a new folder"
        )
    made_by = work / MADE_BY
    if made_by.exists() and read_object(made_by).get("engine") != ENGINE:
        raise UsageError(
            f"{work}: this workspace is of another version of cfseg; finish it with that version, "
            "or give a new folder"
        )
