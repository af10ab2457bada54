"""Where the networks of a bundle come from, without naming the machine that made them."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from cfseg.recipes.recipe import Recipe
from cfseg.training.label_sources import GivenLabels
from cfseg.training.learners import Curriculum


def provenance(
    recipe: Recipe,
    curriculum: Curriculum,
    init: str | None,
    left_out: Mapping[str, str],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return what a bundle says about its training; JSON.

    Args:
        recipe: of the training.
        curriculum: with its cases prepared.
        init: digest of the bundle that it started from.
        left_out: cases that were not fit, with their codes.
        seconds: of each step.
    """
    counts = {"all": len(curriculum.cases), "pseudo_labelled": len(curriculum.unfinished)}
    counts |= {item.key: len(item.folder.cases()) for item in curriculum.learners}
    written = recipe.model_dump(mode="json")
    labels = curriculum.organ.labels
    if isinstance(labels, GivenLabels):
        written["training"]["organ_labels"] = labels.about()
    return {
        "versions": {name: version(name) for name in ("nnunetv2", "torch", "numpy")},
        "recipe": written,
        "init": init,
        "cases": counts,
        "left_out": dict(left_out),
        "seconds": dict(seconds),
    }
