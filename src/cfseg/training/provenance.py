"""Where the networks of a bundle come from, without naming the machine that made them."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from cfseg.recipes.recipe import Recipe
from cfseg.training.curriculum import Curriculum
from cfseg.training.given import GivenCoarse
from cfseg.training.label_sources import GivenLabels


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
    counts |= {item.key: len(item.cases_now()) for item in curriculum.learners}
    written = recipe.model_dump(mode="json")
    labels, coarse = curriculum.organ.labels, curriculum.coarse
    if isinstance(labels, GivenLabels):
        written["training"]["organ_labels"] = labels.about()
    return {
        "versions": {name: version(name) for name in ("torch", "numpy")},
        "recipe": written,
        "init": init,
        "coarse": coarse.digest if isinstance(coarse, GivenCoarse) else None,
        "atlases": {} if curriculum.atlases is None else curriculum.atlases.sources,
        "cases": counts,
        "left_out": dict(left_out),
        "seconds": dict(seconds),
    }
