"""What comes of the trained networks: which of their weights go into the bundle (paper 2.2)."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from cfseg.bundle.bundle import Network
from cfseg.dataset.cases import Case
from cfseg.dataset.digests import Digests, facts
from cfseg.io import write_json
from cfseg.networks.backends import find_backend
from cfseg.plan import ROLES, Role
from cfseg.recipes.recipe import Cascade, Recipe
from cfseg.training.candidates import Candidate, candidates_of
from cfseg.training.curriculum import Curriculum, Learner
from cfseg.training.given import GivenCoarse
from cfseg.training.selection import select
from cfseg.training.steps import Report
from cfseg.training.trained import read_trained

FILE = "selection.json"


def decisive(
    curriculum: Curriculum, recipe: Recipe, selection: Sequence[Case], digests: Digests
) -> dict[str, Any]:
    """Return what decides which networks there are and which of their weights go on; JSON.

    Args:
        curriculum: the networks.
        recipe: of the training.
        selection: the selection set; none where weights are not ranked.
        digests: known ones of the cases' files.
    """
    inputs: dict[str, Any] = {role: getattr(curriculum, role).inputs for role in ROLES}
    inputs["recipe"] = recipe.model_dump(mode="json")
    if selection:
        inputs["selection"] = facts(selection, digests)
    return inputs


def network_name(role: Role, weight: int) -> str:
    """Return what a network is called in a cascade: ``coarse``, ``tumor_1``, ``organ``."""
    return f"{role}_{weight}" if role == "tumor" else role


def rank(
    curriculum: Curriculum,
    cascade: Cascade,
    cases: Sequence[Case],
    folder: Path,
    fallback: str,
    device: torch.device,
    report: Report,
) -> None:
    """Rank the kept weights of all networks by the whole cascade and write the winners.

    Args:
        curriculum: with its networks trained.
        cascade: how they work together.
        cases: the selection set, fully labelled.
        folder: gets ``selection.json``.
        fallback: checkpoint of a network of which no weights were kept.
        device: where they run; on a CPU with OpenVINO if that is installed, as predicting does.
        report: gets lines of progress and the table.
    """
    candidates: dict[str, Sequence[Candidate]] = {
        network_name(role, weight): candidates_of(
            learner.network_folder(weight),
            network_name(role, weight),
            device,
            fallback=fallback,
            decoder_stop=cascade.decoder_stop,
            backend=find_backend("auto", device),
        )
        for role, weight, learner in _networks(curriculum)
    }
    if isinstance(curriculum.coarse, GivenCoarse):
        candidates["coarse"] = [curriculum.coarse.candidate(device, cascade.decoder_stop)]
    found = select(candidates, cascade, cases, folder, report)
    write_json(folder / FILE, found.as_dict())


def selected(folder: Path, role: Role, weight: int) -> str:
    """Return the checkpoint of a network that :func:`rank` found best.

    Args:
        folder: that has ``selection.json``.
        role: of the network.
        weight: 1 or 2.
    """
    chosen = json.loads((folder / FILE).read_text(encoding="utf-8"))["chosen"]
    return str(chosen[network_name(role, weight)]["checkpoint"])


def trained_networks(
    curriculum: Curriculum, checkpoint_of: Callable[[Role, int], str]
) -> list[Network]:
    """Read the networks of a cascade for a bundle.

    Args:
        curriculum: with its networks trained.
        checkpoint_of: gives the file name of the weights of a network.
    """
    coarse = curriculum.coarse
    networks = [coarse.network()] if isinstance(coarse, GivenCoarse) else []
    for role, weight, learner in _networks(curriculum):
        trained = read_trained(learner.network_folder(weight), checkpoint_of(role, weight))
        about: dict[str, Any] = {"weight": weight, "cases": len(learner.cases_now())}
        about |= {"epochs": trained.epoch, "checkpoint": trained.checkpoint}
        networks.append((role, trained.plan, trained.weights, about))
    return networks


def _networks(curriculum: Curriculum) -> Iterator[tuple[Role, int, Learner]]:
    for role in ROLES:
        learner = getattr(curriculum, role)
        if isinstance(learner, Learner):
            for weight in range(1, learner.weights + 1):
                yield role, weight, learner
