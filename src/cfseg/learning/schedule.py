"""What moves the weights: the optimizer and the learning rate of each epoch (paper Table 2)."""

import math
from collections.abc import Iterable

import torch

from cfseg.recipes.training import Learning


def learning_rate(learning: Learning, epoch: int, epochs: int) -> float:
    """Return the learning rate of an epoch.

    Args:
        learning: gives the rate at the start and how it falls.
        epoch: counted from 0.
        epochs: of the whole training.
    """
    initial, warmup = learning.initial_lr, learning.warmup_epochs
    if epoch < warmup:
        return initial * (epoch + 1) / (warmup + 1)
    if learning.lr_schedule == "halve":
        return float(initial * 0.5 ** (epoch // learning.lr_halve_epochs))
    if learning.lr_schedule == "poly":
        return float(initial * (1 - epoch / epochs) ** 0.9)
    return initial * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2


def make_optimizer(
    weights: Iterable[torch.nn.Parameter], learning: Learning
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer (paper Table 2: SGD, Nesterov, 0.99)."""
    if learning.optimizer == "adamw":
        return torch.optim.AdamW(weights, learning.initial_lr, weight_decay=learning.weight_decay)
    return torch.optim.SGD(
        weights,
        learning.initial_lr,
        momentum=learning.momentum,
        weight_decay=learning.weight_decay,
        nesterov=True,
    )
