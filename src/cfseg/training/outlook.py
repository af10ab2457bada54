"""What a training will do and take, before it does it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from cfseg.dataset.fitness import Grid
from cfseg.feed.planning import Facts, plan_with, target_spacing
from cfseg.feed.store import plan_bytes
from cfseg.networks.operations import parameters, sgemm_gflops, window_operations
from cfseg.plan import Intensity, StagePlan
from cfseg.recipes.training import Training
from cfseg.training.cost import estimated_hours, last_state
from cfseg.training.curriculum import Learner
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
    lines = []
    for step in steps:
        learner = _learner_of(step, learners)
        about = "" if learner is None else _takes(step, learner, training, grids, device)
        lines.append(f"{step.name}: {step.about}{about}{_state(step, markers)}")
    return lines


def _learner_of(step: Step, learners: Sequence[Learner]) -> Learner | None:
    names = {name: it for it in learners for name in (f"{it.key}_data", *it.networks)}
    return names.get(step.name)


def _takes(
    step: Step,
    learner: Learner,
    training: Training,
    grids: Mapping[str, Grid],
    device: torch.device,
) -> str:
    facts = [_facts(*grids[case.name]) for case in learner.cases if case.name in grids]
    if not facts:
        return ""
    plan = _plan(learner, facts)
    if step.name in learner.networks:
        return f", {_words(plan)}; {_hours(step, learner, plan, training, device)}"
    size = plan_bytes(facts, plan)
    spacing = " x ".join(f"{mm:.2f}" for mm in plan.spacing_mm)
    return (
        f" at {spacing} mm: at most {size.stored / 1e9:.1f} GB on disk, "
        f"{size.stored / size.cases / 1e6:.1f} MB a case"
    )


def _facts(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Facts:
    """Return what is known of a scan before its labels are read: all of its slices may count."""
    return Facts((0, shape[0]), shape, spacing_mm, _NO_HU, _NO_HU.astype(np.int32))


def _plan(learner: Learner, facts: Sequence[Facts]) -> StagePlan:
    spacing = learner.stage.spacing_mm or target_spacing(facts)
    return plan_with(learner.role, learner.stage, spacing, _ANY)


def _words(plan: StagePlan) -> str:
    patch = "x".join(map(str, plan.patch))
    features = ", ".join(map(str, plan.architecture.features))
    return f"patch {patch}, features {features} ({parameters(plan) / 1e6:.1f} M parameters)"


def _hours(
    step: Step, learner: Learner, plan: StagePlan, training: Training, device: torch.device
) -> str:
    epochs, per_epoch = learner.stage.epochs, training.iterations_per_epoch
    steps = epochs * per_epoch
    words = f"{epochs} epochs of {per_epoch} steps"
    known = last_state(learner.network_folder(learner.networks.index(step.name) + 1))
    hours = None if known is None else estimated_hours(known[0].cost, steps)
    if hours is not None:
        return f"{words}, about {_short(hours)} h"
    operations = PASSES * training.batch_size * window_operations(plan) * steps
    speed = 1e9 * sgemm_gflops(device=device)
    return (
        f"{words}, at the very least {_short(operations / speed / 3600)} h at the "
        f"{speed / 1e9:.0f} GFLOPS of this machine (cfseg train --benchmark measures it)"
    )


def _short(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


def _state(step: Step, markers: Path) -> str:
    if is_done(markers, step):
        return " (done)"
    others = changed(markers, step)
    return f" (again because of other {', '.join(others)})" if others else ""
