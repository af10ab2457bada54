"""Processes that share each batch: torchrun starts them, they join and add up what they found.

A process alone is a group of one, for which nothing is exchanged. NCCL on GPUs, gloo on CPUs.
"""

import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from cfseg.errors import ResourceError, UsageError

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a process waits for another: the first one may prepare data for hours. torchrun ends
all of them where one dies."""
QUIET_SECONDS = 20.0
"""How long a process with nothing new to tell waits to be ended by whoever started the group."""


@contextmanager
def group_of(device: str) -> Iterator[torch.device]:
    """Join the group of processes, and give the device of this one.

    Args:
        device: ``cuda`` or ``cpu``.
    """
    own = torch.device("cpu")
    if device == "cuda":
        number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= there:
            raise UsageError(
                f"process {number} of this machine has no GPU of its own, {there} are here; start "
                f"no more than {there} processes"
            )
        own = torch.device("cuda", number)
        torch.cuda.set_device(own)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    store, number, together = next(rendezvous("env://"))
    distributed.init_process_group(
        backend, store=store, rank=number, world_size=together, timeout=PATIENCE
    )
    try:
        with _first_to_fail_tells(store, number):
            yield own
    finally:
        gc.collect()  # what is left of a network must not be the last to hold the group
        distributed.destroy_process_group()


def _end_with(parent: int) -> None:
    """End this process as SIGTERM does once its parent is gone, even if that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _first_to_fail_tells(store: Store, number: int) -> Iterator[None]:
    """Let one process of the group tell what went wrong.

    Often all of them meet the same error, or they lose the one that has met it. These wait: whoever
    started the group ends them when the first one is gone.

    Args:
        store: of the group.
        number: of this process.

    Raises:
        ResourceError: another process of the group is gone and nobody ends this one.
    """
    try:
        yield
    except Exception as error:
        if _is_lost(error) or not _fails_first(store, str(number)):
            time.sleep(QUIET_SECONDS)
        if _is_lost(error):
            raise ResourceError(
                f"process {number}: another process of the group has ended or cannot be reached; "
                "look at what it says, and run it again to go on"
            ) from error
        raise


def _is_lost(error: Exception) -> bool:
    """Say whether an error means that another process is gone; gloo's have no type of their own."""
    is_of_gloo = type(error) is RuntimeError and "gloo" in str(error)
    return is_of_gloo or isinstance(error, distributed.DistError)


def _fails_first(store: Store, number: str) -> bool:
    try:
        return bool(store.compare_set("cfseg/failed", "", number).decode() == number)
    except distributed.DistError:
        return False  # the process that had the store is gone


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
