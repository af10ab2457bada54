"""From a partly labelled cohort to a bundle (paper 2.2), as a chain of steps that resumes.

Coarse model on the fully labelled cases; its pseudo-labels complete the others; the tumor model
twice on the cases with tumors; the organ model on all cases; the selection; the bundle.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cfseg.bundle.manifest import digest, read_manifest
from cfseg.dataset.cases import Case, read_cases
from cfseg.dataset.digests import Digests
from cfseg.dataset.fitness import check_fitness, readable_cases
from cfseg.errors import UsageError
from cfseg.labelling.targets import refuse_ignored
from cfseg.plan import Role
from cfseg.recipes.recipe import Recipe
from cfseg.recipes.training import Training
from cfseg.training.cost import write_cost
from cfseg.training.keep import put_aside
from cfseg.training.label_sources import PredictedLabels
from cfseg.training.learners import Curriculum, Learner
from cfseg.training.outlook import outlook
from cfseg.training.provenance import provenance
from cfseg.training.steps import (
    Progress,
    Report,
    Step,
    nothing,
    remove,
    run_steps,
    seconds_of,
    shared,
)


class Pipeline:
    """The chain for one cohort, workspace and recipe.

    Args:
        dataset: the cohort, as :func:`cfseg.dataset.cases.read_cases` takes it.
        work: folder for everything in between; the bundle is ``work/bundle``.
        recipe: with a ``[training]`` table.
        device: ``auto``, ``cpu`` or ``cuda``.
        report: gets lines of progress.
        provenance: kept in the bundle.
        notice: shown with every output of the bundle.
        init: a bundle whose networks the training starts from.
        processes: that share each batch.
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
        device: str = "auto",
        report: Report,
        provenance: dict[str, Any] | None = None,
        notice: str = "",
        init: Path | None = None,
        processes: int = 1,
        selection_set: Path | None = None,
        progress: Progress | None = None,
        jobs: int = 0,
        skip_bad: bool = False,
    ) -> None:
        if recipe.training is None:
            raise UsageError(f"recipe {recipe.name} has no [training] table; choose another")
        self.work, self.recipe, self.report = work.resolve(), recipe, report
        self.training: Training = recipe.training
        self.device, self.notice, self.provenance = device, notice, provenance or {}
        self.init, self.processes, self.progress = init, processes, progress
        self.init_digest = None if init is None else digest(init)
        self.digests = Digests(self.work / "digests.json")
        self.dataset, self.jobs, self.skip_bad = dataset, jobs, skip_bad
        self.left_out: dict[str, str] = {}
        self._learn_from(readable_cases(dataset) if skip_bad else read_cases(dataset))
        self.selection_cases = () if selection_set is None else read_cases(selection_set)
        refuse_ignored((*self.cases, *self.selection_cases))

    def _learn_from(self, cases: Sequence[Case]) -> None:
        self.cases = tuple(cases)
        has_organ = self.init is not None and "organ" in read_manifest(self.init).roles
        self.curriculum = Curriculum(
            self.cases, self.work, self.training, self.digests, self.init_digest,
            init_has_organ=has_organ,
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
        self.left_out = found.bad
        if self.left_out:
            self._learn_from(found.good)

    # -- the chain -----------------------------------------------------------------------------

    def steps(self, stage: Role | None = None) -> list[Step]:
        """Return the steps in order; reading them is reading the paper's 2.2.

        Args:
            stage: leave out what this stage does not need; None keeps all.
        """
        chain: list[Step] = []
        for item in self.curriculum.steps:
            if isinstance(item, Learner):
                chain += self._training_steps(item)
            else:
                chain.append(self._labelling_step(item))
        networks = tuple(name for item in self.curriculum.learners for name in item.networks)
        if self.selection_cases:
            about = f"rank the kept weights on {len(self.selection_cases)} cases"
            clear = partial(remove, self.work / "selection")
            chain.append(Step("selection", about, self._outcome, self.select, clear, (), networks))
            networks += ("selection",)
        about = "write the bundle"
        chain.append(Step("bundle", about, self._outcome, self.write_bundle, nothing, (), networks))
        return [step for step in chain if stage is None or stage in step.serves]

    def _training_steps(self, learner: Learner) -> list[Step]:
        some, all_ = len(learner.cases), len(self.cases)
        counts = f"{some} cases" if some == all_ else f"{some} of {all_} cases"
        found = [
            Step(
                f"{learner.key}_data", f"prepare {counts} for {learner.about}",
                lambda: learner.inputs["data"], partial(self.write_data, learner),
                partial(self._clear_data, learner), learner.serves, learner.labels.needs,
            )
        ]  # fmt: skip
        before = () if learner.start is None else learner.start.networks[:1]
        for weight, name in enumerate(learner.networks, 1):
            which = f", weight {weight} of {learner.weights}" if learner.weights > 1 else ""
            found.append(
                Step(
                    name, f"train {learner.about}{which}", lambda: learner.inputs["network"],
                    partial(self.train, learner, weight),
                    partial(self._clear_model, learner, weight), learner.serves_with(weight),
                    (f"{learner.key}_data", *before),
                )
            )  # fmt: skip
        return found

    def _labelling_step(self, labels: PredictedLabels) -> Step:
        by = "" if labels.teacher is self.curriculum.coarse else f" with {labels.teacher.about}"
        return Step(
            labels.name, f"pseudo-label {len(labels.cases)} cases{by}", lambda: labels.inputs,
            partial(self.pseudo_label, labels), partial(remove, labels.folder), labels.serves,
            labels.teacher.networks[:1],
        )  # fmt: skip

    def _outcome(self) -> dict[str, Any]:
        from cfseg.training.outcome import decisive

        return decisive(self.curriculum, self.recipe, self.selection_cases, self.digests)

    def plan(self, stage: Role | None = None) -> list[str]:
        """Return a line for each step: what it does, whether it was done before, its hours.

        No image or label map is read for it as long as the workspace has no finished steps.
        """
        return outlook(self.steps(stage), self.markers, self.curriculum.learners, self.training)

    def run(self, stage: Role | None = None) -> None:
        """Run the chain, or only what one stage needs; several processes may share it.

        Raises:
            UsageError: another process does something else in this workspace.
            InputError: cases cannot be trained on.
        """
        task = {
            "recipe": self.recipe.model_dump(mode="json"),
            "cases": [case.name for case in self.cases],
            "init": self.init_digest,
        }
        with shared(self.work, task):
            self.check()
            try:
                run_steps(self.markers, self.steps(stage), self.report)
            finally:
                self.digests.save()

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
        """Predict the organs of all cases that need it with a network of the chain."""
        from cfseg.networks.device import find_device
        from cfseg.training.labelling import write_labels

        # Not the selected weights: those are known only when all networks are.
        write_labels(
            labels, self.checkpoint, self.training.pseudo_label_step, find_device(self.device),
            self.report, self.progress,
        )  # fmt: skip
        self.curriculum.compare_rounds(labels)

    def write_data(self, learner: Learner) -> None:
        """Write and preprocess the cases of a learner with the labels that it learns."""
        self.digests.save()
        learner.prepare(lambda line: self.report(f"  {line}"), self.jobs)

    def _clear_data(self, learner: Learner) -> None:
        remove(learner.folder.raw)
        remove(learner.folder.preprocessed)

    # -- networks ------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> str:
        """The file name of the weights that go on by the recipe."""
        return f"checkpoint_{self.training.checkpoint}.pth"

    def checkpoint_of(self, role: Role, weight: int) -> str:
        """Return the file name of the weights that go into the bundle.

        Args:
            role: of the network.
            weight: 1 or 2.
        """
        if not self.selection_cases:
            return self.checkpoint
        from cfseg.training.outcome import selected

        return selected(self.work / "selection", role, weight)

    def _clear_model(self, learner: Learner, weight: int) -> None:
        """Put a network of other inputs aside."""
        name = learner.networks[weight - 1]
        shelf = put_aside(learner.folder.model(weight), self.work / "replaced", name)
        if shelf is not None:
            self.report(f"  inputs changed; the network trained before is now {shelf}")

    def train(self, learner: Learner, weight: int) -> None:
        """Train one network with nnU-Net, from its last checkpoint if there is one."""
        from cfseg.networks.device import find_device
        from cfseg.training.finetune import start_of
        from cfseg.training.train_network import train_network

        train_network(
            learner.folder, weight, self.training, learner.stage, find_device(self.device),
            lambda line: self.report(f"  {line}"),
            init=start_of(learner, self.init, self.checkpoint), processes=self.processes,
            progress=self.progress,
        )  # fmt: skip

    def select(self) -> None:
        """Rank the kept weights of all networks by the whole cascade on the selection set."""
        from cfseg.networks.device import find_device
        from cfseg.training.outcome import rank

        rank(
            self.curriculum, self.recipe.cascade, self.selection_cases, self.work / "selection",
            self.checkpoint, find_device(self.device), self.report,
        )  # fmt: skip

    def write_bundle(self) -> None:
        """Put the networks into a bundle with the recipe's cascade, and write what they cost."""
        from cfseg.bundle.bundle import write_bundle
        from cfseg.training.outcome import trained_networks

        write_bundle(
            self.bundle, self.recipe.name, trained_networks(self.curriculum, self.checkpoint_of),
            self.recipe.cascade, self._provenance(), self.notice, overwrite=True,
        )  # fmt: skip
        write_cost(self.work, self.training)
        self.report(f"  {self.bundle}")

    def _provenance(self) -> dict[str, Any]:
        seconds = seconds_of(self.markers, self.steps()[:-1])
        return self.provenance | provenance(
            self.recipe, self.curriculum, self.init_digest, self.left_out, seconds
        )
