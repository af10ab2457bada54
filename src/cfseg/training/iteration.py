"""One step of the optimizer, left out where the loss or its gradients are not finite.

Such a step would end the training: every later one would meet weights that are no numbers.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from cfseg.errors import ModelError

MOST_IN_A_ROW = 20
MAX_NORM = 12.0
"""nnU-Net's, of all gradients together."""


@dataclass
class Skipped:
    """Steps that were left out.

    Attributes:
        in_a_row: since the last one that was not.
    """

    in_a_row: int = 0

    def note(self, finite: bool, name: str) -> bool:
        """Count a step; return whether it is the first of a row to be left out.

        Args:
            finite: whether it was a step.
            name: of the network.

        Raises:
            ModelError: too many were left out in a row.
        """
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if self.in_a_row >= MOST_IN_A_ROW:
            raise ModelError(
                f"{name}: the loss was not finite in {MOST_IN_A_ROW} steps in a row; the last "
                "checkpoint is untouched. Look for damaged cases with cfseg dataset check, lower "
                "training.initial_lr, or train in fp32, and run it again",
                code="E_NONFINITE_LOSS",
            )
        return self.in_a_row == 1


def learn(
    network: torch.nn.Module,
    loss_of: Callable[[Any, Any], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    batch: dict[str, Any],
    device: torch.device,
) -> tuple[float, bool]:
    """Take one step, as nnU-Net does.

    Args:
        network: from (B, 1, Z, Y, X) to logits, of each resolution.
        loss_of: logits and target.
        optimizer: of the network.
        scaler: of half precision on a GPU; it leaves out steps by itself.
        batch: ``data`` and ``target``.
        device: where the network is.

    Returns:
        The loss, and whether it was a step; all processes of a group agree on that.
    """
    data, target = batch["data"].to(device, non_blocking=True), batch["target"]
    if isinstance(target, list):
        target = [level.to(device, non_blocking=True) for level in target]
    else:
        target = target.to(device, non_blocking=True)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type) if device.type == "cuda" else nullcontext():
        loss = loss_of(network(data), target)
    if scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
    else:
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
    finite = _agreed(torch.isfinite(loss.detach()) & torch.isfinite(norm), device)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    elif finite:
        optimizer.step()
    return float(loss.detach()), finite


def _agreed(finite: torch.Tensor, device: torch.device) -> bool:
    """Return whether it is so in all processes of the group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return bool(finite)
    flag = finite.to(device=device, dtype=torch.int32)
    distributed.all_reduce(flag, distributed.ReduceOp.MIN)
    return bool(flag)
