"""Weights of a trained network that may go into the bundle."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from cfseg.bundle.checkpoints import read_checkpoint
from cfseg.bundle.nnunet_v2 import checkpoint_file, read_model_folder
from cfseg.inference.predictor import Stage
from cfseg.io import file_digest
from cfseg.networks.backends import Backend, load
from cfseg.plan import ROLES, Role
from cfseg.training.keep import kept_checkpoints

NETWORKS = ("coarse", "tumor_1", "tumor_2", "organ")
"""The order in which the candidates of each network are compared."""


@dataclass(frozen=True)
class Candidate:
    """Weights of a network that may go into the bundle.

    Attributes:
        checkpoint: as ``read_model_folder(..., checkpoint=...)`` takes it.
        epoch: after which these were the weights, counted from 1.
        digest: of the weights; candidates are told apart by it.
        load: gives the network, ready to predict.
        backend: what runs it.
    """

    checkpoint: str
    epoch: int
    digest: str
    load: Callable[[], Stage] = field(compare=False)
    backend: Backend = "torch"


def candidates_of(
    model: Path,
    network: str,
    device: torch.device,
    *,
    fallback: str = "checkpoint_best.pth",
    decoder_stop: int = 0,
    backend: Backend = "torch",
) -> tuple[Candidate, ...]:
    """Return the kept weights of a trained network, best by validation first.

    Args:
        model: nnU-Net's model folder.
        network: ``coarse``, ``tumor_1``, ``tumor_2`` or ``organ``.
        device: where candidates run.
        fallback: the checkpoint that is the only candidate where none was kept.
        decoder_stop: of the coarse network, see :class:`cfseg.recipes.recipe.Cascade`.
        backend: what runs candidates.

    Raises:
        ModelError: there is no checkpoint at all.
    """
    names = [(kept.checkpoint, kept.epoch) for kept in kept_checkpoints(model)]
    if not names:
        epoch = read_checkpoint(checkpoint_file(model, None, fallback)).get("current_epoch", 0)
        names = [(fallback, int(epoch))]
    stop = decoder_stop if network == "coarse" else 0
    return tuple(
        Candidate(
            name,
            epoch,
            file_digest(checkpoint_file(model, None, name)),
            partial(load_network_of, model, network, name, device, stop, backend),
            backend,
        )
        for name, epoch in names
    )


def load_network_of(
    model: Path,
    network: str,
    checkpoint: str,
    device: torch.device,
    decoder_stop: int = 0,
    backend: Backend = "torch",
) -> Stage:
    """Load a trained network as a stage of the cascade.

    Args:
        model: nnU-Net's model folder.
        network: ``coarse``, ``tumor_1``, ``tumor_2`` or ``organ``.
        checkpoint: see :class:`Candidate`.
        device: where it runs.
        decoder_stop: see :class:`cfseg.recipes.recipe.Cascade`.
        backend: what runs it.

    Raises:
        ModelError: something is missing or damaged.
    """
    role = role_of(network)
    plan, weights = read_model_folder(model, role, checkpoint=checkpoint)
    runner = load(plan, weights, device, decoder_stop, backend)
    return Stage(role, network, plan, runner, device, backend)


def role_of(network: str) -> Role:
    """Return the role of a network of this name.

    Raises:
        ValueError: there is no such network.
    """
    for role in ROLES:
        if network in NETWORKS and network.startswith(role):
            return role
    raise ValueError(f"no network is called {network!r}; they are {', '.join(NETWORKS)}")
