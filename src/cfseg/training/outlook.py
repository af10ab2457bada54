"""What a training will do, before it does it."""

from collections.abc import Sequence
from pathlib import Path

from cfseg.recipes.training import Training
from cfseg.training.cost import estimated_hours
from cfseg.training.learners import Learner
from cfseg.training.steps import Step, changed, is_done


def outlook(
    steps: Sequence[Step], markers: Path, learners: Sequence[Learner], training: Training
) -> list[str]:
    """Return a line for each step: what it does, its hours if known, whether and why (again).

    Args:
        steps: of the chain.
        markers: folder of the steps' markers.
        learners: the networks of the chain.
        training: the recipe's.
    """
    return [
        f"{step.name}: {step.about}{_hours(step, learners, training)}{_state(step, markers)}"
        for step in steps
    ]


def _state(step: Step, markers: Path) -> str:
    if is_done(markers, step):
        return " (done)"
    others = changed(markers, step)
    return f" (again because of other {', '.join(others)})" if others else ""


def _hours(step: Step, learners: Sequence[Learner], training: Training) -> str:
    for learner in learners:
        if step.name in learner.networks:
            model = learner.folder.model(learner.networks.index(step.name) + 1)
            hours = estimated_hours(model, learner.stage, training)
            return "" if hours is None else f", about {hours:.1f} h"
    return ""
