"""The page of a training: what was learned from, how it went, what it cost, what was chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cfseg.dataset.cases import Case
from cfseg.dataset.groups import MEANING, group
from cfseg.evaluation.environment import environment
from cfseg.learning.run import Epoch
from cfseg.recipes.recipe import Recipe
from cfseg.reports.curves import CurvePoint, draw_curves
from cfseg.reports.training_page import TrainingPage, write_training_page
from cfseg.training.cost import cost_rows, last_state, network_cost
from cfseg.training.curriculum import Learner
from cfseg.training.looks import pictures
from cfseg.training.trained import PLAN, read_trained

PAGE, CURVES = "training.html", "curves.png"


def write_page(
    work: Path,
    recipe: Recipe,
    notice: str,
    learners: Sequence[Learner],
    cases: Sequence[Case],
    left_out: Mapping[str, str],
    chosen: Mapping[str, str],
) -> None:
    """Write ``training.html`` and ``curves.png`` of what is trained so far.

    Args:
        work: the workspace.
        recipe: of the training.
        notice: what a reader of it has to know.
        learners: the networks of the chain.
        cases: of the cohort.
        left_out: cases that were not fit, with their codes.
        chosen: the checkpoint of each network that went into the bundle, by its name.

    Raises:
        ResourceError: ``E_DISK``.
    """
    folders = [folder for it in learners for folder in it.network_folders]
    begun = [folder for folder in folders if last_state(folder) and (folder / PLAN).is_file()]
    curves = {folder.name: _curve(folder) for folder in begun}
    draw_curves(work / CURVES, curves)
    looks = [look for it in begun for look in pictures(work, it.name)]
    numbered = group(cases).numbered()
    write_training_page(
        work / PAGE,
        TrainingPage(
            title=f"Training of {recipe.name}",
            recipe=recipe.name,
            notice=notice,
            groups={f"group {n}: {MEANING[n]}": len(numbered[n]) for n in sorted(numbered)},
            learned={it.about: len(it.cases_now()) for it in learners},
            curves=curves,
            cost=_cost(begun, recipe),
            environment=environment(),
            chosen=[_choice(it, chosen[it.name]) for it in begun if it.name in chosen],
            looks=[look for look in looks if look.is_file()],
            left_out=left_out,
        ),
        work / CURVES,
    )


def _curve(folder: Path) -> list[CurvePoint]:
    found = last_state(folder)
    history: Sequence[Epoch] = found[0].history if found else ()
    return [CurvePoint(it.epoch, it.loss, it.lr, it.score) for it in history]


def _cost(folders: Sequence[Path], recipe: Recipe) -> list[dict[str, str]]:
    if recipe.training is None:
        return []
    costs = [c for folder in folders if (c := network_cost(folder, recipe.training)) is not None]
    rows = cost_rows(costs, recipe.training)
    return [
        {"network": cost.network} | {name: cells[number] for name, cells in rows.items()}
        for number, cost in enumerate(costs)
    ]


def _choice(folder: Path, checkpoint: str) -> dict[str, str]:
    trained = read_trained(folder, checkpoint)
    scores = {point.epoch: point.score for point in _curve(folder)}
    score = scores.get(trained.epoch)
    return {
        "network": folder.name,
        "epoch": str(trained.epoch),
        "checkpoint": trained.checkpoint,
        "validation DSC": "" if score is None else f"{score:.2%}",
    }
