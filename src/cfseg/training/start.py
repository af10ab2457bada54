"""A network starts from known weights: those of a bundle, or of a network before it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cfseg.bundle.bundle import read_weights
from cfseg.bundle.manifest import StageEntry, digest, read_manifest
from cfseg.errors import ModelError, UsageError
from cfseg.plan import Role, StagePlan
from cfseg.training.curriculum import Learner
from cfseg.training.trained import read_trained

Start = Callable[[torch.nn.Module, StagePlan], str]
"""Copies weights into a fresh network with this plan, and says in words where they are from."""
RECIPE_KEYS = {
    "features": "features",
    "n_conv_encoder": "n_conv_encoder",
    "n_conv_decoder": "n_conv_decoder",
}
"""Which recipe key of a stage decides which part of the architecture."""


def start_of(learner: Learner, weight: int, init: Path | None, checkpoint: str) -> Start | None:
    """Return the weights that a network starts from; None for random ones.

    Args:
        learner: of the network.
        weight: 1 or 2.
        init: the bundle, for those that start from one.
        checkpoint: which weights of another network of the chain.
    """
    if init is not None and learner.init is not None:
        return partial(_from_bundle, learner, weight, init)
    other = learner.start
    return None if other is None else partial(_from_network, other, checkpoint)


def _from_bundle(
    learner: Learner, weight: int, init: Path, network: torch.nn.Module, plan: StagePlan
) -> str:
    entry = find_start(init, learner.role, weight)
    try:
        start_from(network, plan, init, entry)
    except UsageError:
        if not learner.is_teacher:
            raise
        # A teacher is often larger than the organ model that it teaches.
        return f"starting from random weights: {entry.name} of the bundle is built differently"
    return f"starting from {entry.name} of bundle {digest(init)[:12]}"


def _from_network(
    other: Learner, checkpoint: str, network: torch.nn.Module, plan: StagePlan
) -> str:
    start_from_network(network, plan, other, checkpoint)
    return f"starting from the weights of {other.networks[0]}"


def find_start(bundle: Path, role: Role, weight: int) -> StageEntry:
    """Return the bundle's network for a role: that of the same weight, else the first.

    Args:
        bundle: its folder.
        role: of the network to be trained.
        weight: 1 or 2.

    Raises:
        ModelError: it is not a bundle.
        UsageError: the bundle has no network for the role.
    """
    entries = [entry for entry in read_manifest(bundle).stages if entry.role == role]
    if not entries:
        raise UsageError(
            f"--init {bundle}: the bundle has no {role} network to start from; give another "
            "bundle, or train the stages that it has with --stage"
        )
    return entries[weight - 1] if weight <= len(entries) else entries[0]


def start_from(network: torch.nn.Module, plan: StagePlan, bundle: Path, entry: StageEntry) -> None:
    """Copy the weights of a bundle's network into a new one.

    Args:
        network: nnU-Net's, freshly initialized.
        plan: of that network.
        bundle: the folder of the bundle.
        entry: the bundle's network, see :func:`find_start`.

    Raises:
        UsageError: the two networks differ in their architecture or their labels.
        ModelError: the weights are missing or damaged.
    """
    _check_same(plan, entry, bundle)
    weights = read_weights(bundle / entry.weights, entry.sha256)
    # A bundle names each tensor once, nnU-Net's module some of them twice: hence not strict.
    unknown = network.load_state_dict(weights, strict=False).unexpected_keys
    if unknown:
        raise ModelError(
            f"{bundle / entry.weights}: {unknown[0]} is not a tensor of the network; make the "
            "bundle again"
        )


def start_from_network(
    network: torch.nn.Module, plan: StagePlan, other: Learner, checkpoint: str
) -> None:
    """Copy the weights of another network of the chain into one that is built alike.

    A tumor that the other one does not know keeps its random weights in the heads.

    Args:
        network: freshly initialized.
        plan: of that network.
        other: that is trained; of two weights the first.
        checkpoint: which of its weights.

    Raises:
        UsageError: the two networks differ in their architecture.
        ModelError: the checkpoint cannot be read.
    """
    trained = read_trained(other.network_folder(1), checkpoint)
    here, there = plan.architecture.model_dump(), trained.plan.architecture.model_dump()
    different = [key for key in here if here[key] != there[key]]
    if different:
        raise UsageError(
            f"it cannot start from {other.about}, which is built differently "
            f"({_listed(here, there)}); "
            f"set {', '.join(RECIPE_KEYS.get(key, key) for key in different)} alike in both, or "
            "start = random"
        )
    tensors = network.state_dict(keep_vars=True)
    for name, tensor in trained.weights.items():
        both = min(len(tensor), len(tensors[name]))
        tensors[name].data[:both].copy_(tensor[:both])


def _listed(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    return "; ".join(f"{k}: {there[k]}, here {here[k]}" for k in here if here[k] != there[k])


def _check_same(plan: StagePlan, entry: StageEntry, bundle: Path) -> None:
    here, there = plan.architecture.model_dump(), entry.plan.architecture.model_dump()
    here["labels"], there["labels"] = plan.labels, entry.plan.labels
    different = [key for key in here if here[key] != there[key]]
    if not different:
        return
    keys = [f"training.{entry.role}.{RECIPE_KEYS[key]}" for key in different if key in RECIPE_KEYS]
    advice = f"set {', '.join(keys)} as in the bundle" if keys else "give another bundle"
    raise UsageError(
        f"--init {bundle}: its {entry.name} network is built differently "
        f"({_listed(here, there)}); {advice}, "
        "or train from the start"
    )
