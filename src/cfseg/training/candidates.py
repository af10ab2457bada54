"""Weights of a trained network that may go into the bundle."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from cfseg.inference.predictor import Stage
from cfseg.learning.keeper import kept_weights
from cfseg.networks.backends import Backend
from cfseg.plan import ROLES, Role
from cfseg.training.trained import load_trained, read_trained

NETWORKS = ("coarse", "tumor_1", "tumor_2", "organ")
"""The order in which the candidates of each network are compared."""


@dataclass(frozen=True)
class Candidate:
    """Weights of a network that may go into the bundle.

    Attributes:
        checkpoint: as :func:`cfseg.training.trained.read_trained` takes it.
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
    folder: Path,
    network: str,
    device: torch.device,
    *,
    fallback: str = "final",
    decoder_stop: int = 0,
    backend: Backend = "torch",
) -> tuple[Candidate, ...]:
    """Return the kept weights of a trained network, best by validation first.

    Args:
        folder: of its checkpoints.
        network: ``coarse``, ``tumor_1``, ``tumor_2`` or ``organ``.
        device: where candidates run.
        fallback: the checkpoint that is the only candidate where none was kept.
        decoder_stop: of the coarse network, see :class:`cfseg.recipes.recipe.Cascade`.
        backend: what runs candidates.

    Raises:
        ModelError: there is no checkpoint at all.
    """
    names = [kept.path.stem for kept in kept_weights(folder)] or [fallback]
    stop = decoder_stop if network == "coarse" else 0
    found = [read_trained(folder, name) for name in names]
    return tuple(
        Candidate(
            one.checkpoint, one.epoch, one.digest,
            partial(_load, folder, network, one.checkpoint, device, stop, backend), backend,
        )
        for one in found
    )  # fmt: skip


def _load(
    folder: Path,
    network: str,
    checkpoint: str,
    device: torch.device,
    decoder_stop: int,
    backend: Backend,
) -> Stage:
    trained = read_trained(folder, checkpoint)
    return load_trained(trained, role_of(network), network, device, backend, decoder_stop)


def role_of(network: str) -> Role:
    """Return the role of a network of this name.

    Raises:
        ValueError: there is no such network.
    """
    for role in ROLES:
        if network in NETWORKS and network.startswith(role):
            return role
    raise ValueError(f"no network is called {network!r}; they are {', '.join(NETWORKS)}")
