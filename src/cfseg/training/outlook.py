"""What a training will do and take, before it does it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cfseg.dataset.fitness import Grid
from cfseg.feed.planning import Facts, plan_with, target_spacing
from cfseg.feed.store import plan_bytes
from cfseg.geometry import Triple, TripleMm
from cfseg.networks.operations import parameters, sgemm_gflops, window_operations
from cfseg.plan import Intensity, StagePlan
from cfseg.recipes.training import Training
from cfseg.training.cost import last_state
from cfseg.training.curriculum import Learner
from cfseg.training.data import in_words
from cfseg.training.steps import Step, changed, is_done

_ANY = Intensity(lower=-1000, upper=1000, mean=0, std=1)
_NO_HU = np.zeros(0, dtype=np.int16)
PASSES = 3
"""A step computes a network forward, and twice as much backward."""


def outlook(
    steps: Sequence[Step],
    markers: Path,
    learners: Sequence[Learner],
    training: Training,
    grids: Mapping[str, Grid],
    device: torch.device,
) -> list[str]:
    """Return a line for each step: what it does and takes, whether it was done, why again.

    Args:
        steps: of the chain.
        markers: folder of the steps' markers.
        learners: the networks of the chain.
        training: the recipe's.
        grids: of the cases' scans.
        device: where networks are trained.
    """
    forecast, lines = _Forecast(training, grids, device), []
    of_step = {name: it for it in learners for name in (f"{it.key}_data", *it.networks)}
    for step in steps:
        learner = of_step.get(step.name)
        about = "" if learner is None else forecast.takes(step.name, learner)
        lines.append(f"{step.name}: {step.about}{about}{_state(step, markers)}")
    return [*lines, *forecast.total()]


class _Forecast:
    """What steps will take, by what earlier ones took or, at the very least, by this machine."""

    def __init__(self, training: Training, grids: Mapping[str, Grid], device: torch.device) -> None:
        self.training, self.grids, self.device = training, grids, device
        self.seconds, self.is_known = 0.0, True

    @cached_property
    def speed(self) -> float:
        """Operations per second."""
        return 1e9 * sgemm_gflops(device=self.device)

    def takes(self, step: str, learner: Learner) -> str:
        grids = [self.grids[case.name] for case in learner.cases if case.name in self.grids]
        if not grids:
            return ""
        facts = [_facts(*grid) for grid in grids]
        spacing = learner.stage.spacing_mm or target_spacing(facts)
        plan = plan_with(learner.role, learner.stage, spacing, _ANY)
        if step not in learner.networks:
            return f", at most {in_words(plan_bytes(facts, plan), plan)}"
        folder = learner.network_folder(learner.networks.index(step) + 1)
        return f", {_words(plan)}; {self._time(learner.stage.epochs, plan, folder)}"

    def _time(self, epochs: int, plan: StagePlan, folder: Path) -> str:
        per_epoch = self.training.iterations_per_epoch
        words, found = f"{epochs} epochs of {per_epoch} steps", last_state(folder)
        if found is not None and found[0].cost.steps:
            cost = found[0].cost
            seconds = epochs * per_epoch * cost.seconds / cost.steps
            self.seconds += seconds
            return f"{words}, about {_duration(seconds)}"
        operations = PASSES * self.training.batch_size * window_operations(plan)
        seconds = epochs * per_epoch * operations / self.speed
        self.seconds, self.is_known = self.seconds + seconds, False
        return f"{words}, at least {_duration(seconds)}"

    def total(self) -> list[str]:
        if not self.seconds:
            return []
        whole = _duration(self.seconds)
        if self.is_known:
            return [f"training the networks takes about {whole} in all"]
        return [
            f"training the networks takes at least {whole} in all, were every operation done at "
            f"the {self.speed / 1e9:.0f} GFLOPS that this machine reaches in matrix products; "
            "cfseg train --benchmark measures it"
        ]


def _facts(shape: Triple, spacing_mm: TripleMm) -> Facts:
    """Return what is known of a scan before its labels are read: all of its slices may count."""
    return Facts((0, shape[0]), shape, spacing_mm, _NO_HU, _NO_HU.astype(np.int32))


def _words(plan: StagePlan) -> str:
    patch = "x".join(map(str, plan.patch))
    features = ", ".join(map(str, plan.architecture.features))
    return f"patch {patch}, features {features} ({parameters(plan) / 1e6:.2f} M parameters)"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _state(step: Step, markers: Path) -> str:
    if is_done(markers, step):
        return " (done)"
    others = changed(markers, step)
    return f" (again because of other {', '.join(others)})" if others else ""
