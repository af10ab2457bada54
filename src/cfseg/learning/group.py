"""Processes that share each batch: torchrun starts them, they join and add up what they found.

A process alone is a group of one, for which nothing is exchanged. NCCL on GPUs, gloo on CPUs.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from cfseg.errors import UsageError

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a process waits for another: the first one may prepare data for hours. torchrun ends
all of them where one dies."""


def is_launched() -> bool:
    """Say whether torchrun, or what sets the same variables, started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def group_of(device: str) -> Iterator[torch.device]:
    """Join the group of processes, and give the device of this one.

    Args:
        device: ``cuda`` or ``cpu``.
    """
    own = torch.device("cpu")
    if device == "cuda":
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield own
    finally:
        gc.collect()  # what is left of a network must not be the last to hold the group
        distributed.destroy_process_group()


def is_joined() -> bool:
    """Say whether this process shares its batches with others."""
    return distributed.is_available() and distributed.is_initialized()


def processes() -> int:
    """Return how many processes share each batch."""
    return distributed.get_world_size() if is_joined() else 1


def rank() -> int:
    """Return the number of this process; the first one's is 0."""
    return distributed.get_rank() if is_joined() else 0


def is_first() -> bool:
    """Say whether this process is the one that writes."""
    return rank() == 0


def own_samples(batch_size: int) -> range:
    """Return which samples of each batch are this process's.

    Args:
        batch_size: of all processes together.

    Raises:
        UsageError: they cannot be shared evenly.
    """
    share, rest = divmod(batch_size, processes())
    if rest:
        raise UsageError(
            f"a batch of {batch_size} cannot be shared evenly by {processes()} processes; set "
            f"training.batch_size to a multiple of {processes()}, or start another number"
        )
    return range(rank() * share, (rank() + 1) * share)


def sum_of_all(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, through which gradients flow."""
    return _SumOfAll.apply(values) if is_joined() else values  # type: ignore[no-untyped-call]


def mean_of_all(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all processes; no gradient flows through it."""
    return sum_of_all(values.detach()) / processes()


def as_first(value: T) -> T:
    """Return what the first process gave; the others' values are dropped."""
    if not is_joined():
        return value
    values = [value]
    distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def of_all(value: T) -> list[T]:
    """Return what each process gave, in their order."""
    if not is_joined():
        return [value]
    values: list[Any] = [None] * processes()
    distributed.all_gather_object(values, value)
    return values


class _SumOfAll(torch.autograd.Function):
    """torch's own is deprecated, and that which replaces it is private."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:  # noqa: ANN401, ARG004 - torch's
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # noqa: ANN401, ARG004
        # Each process's loss depends on the values of all.
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
