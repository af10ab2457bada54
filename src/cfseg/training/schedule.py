"""What moves the weights: the optimizer and the learning rate of each epoch (paper Table 2)."""

from collections.abc import Iterator

import torch

from cfseg.recipes.training import Training


class Schedule:
    """The learning rate of each epoch: halved now and then (paper Table 2), or nnU-Net's poly."""

    def __init__(self, optimizer: torch.optim.Optimizer, training: Training, epochs: int) -> None:
        self.optimizer, self.training, self.epochs = optimizer, training, epochs

    def step(self, epoch: int) -> None:
        """Set the rate for ``epoch``, counted from 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(epoch)

    def rate(self, epoch: int) -> float:
        """Return the rate for ``epoch``, counted from 0."""
        training = self.training
        if epoch < training.warmup_epochs:
            return training.initial_lr * (epoch + 1) / (training.warmup_epochs + 1)
        if training.lr_schedule == "halve":
            return float(training.initial_lr * 0.5 ** (epoch // training.lr_halve_epochs))
        return float(training.initial_lr * (1 - epoch / self.epochs) ** 0.9)


def make_optimizer(
    weights: Iterator[torch.nn.Parameter], training: Training
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer (paper Table 2: SGD, Nesterov, 0.99)."""
    if training.optimizer == "adamw":
        return torch.optim.AdamW(weights, training.initial_lr, weight_decay=training.weight_decay)
    return torch.optim.SGD(
        weights,
        training.initial_lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=True,
    )
