"""Dice and cross-entropy over all heads of a network, as nnU-Net has them (paper 3.2).

Besides, as a recipe wishes: weights of rare labels and of the tumor, hard voxels alone, voxels
that nobody labelled. In a group of processes the sums that a mean or a Dice is made of are those
of the joined batch, so that the averaged gradients are those of one process with all of it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

from cfseg.labels import IGNORE, TUMOR
from cfseg.learning.group import processes, sum_of_all

SMOOTH = 1e-5
"""nnU-Net's, added to both parts of a Dice."""


def head_weights(heads: int) -> tuple[float, ...]:
    """Return nnU-Net's weights of the losses at each resolution, finest first.

    Each counts half of the one before it, and the coarsest nothing, unless it is the only one.
    """
    halves = [0.5**head for head in range(heads)]
    if heads > 1:
        halves[-1] = 0.0
    return tuple(half / sum(halves) for half in halves)


def rare_label_weights(voxels: Sequence[int], exponent: float) -> tuple[float, ...]:
    """Return the weight of each label, whose mean over all voxels is 1.

    Args:
        voxels: (C,) of each label in the training cases.
        exponent: see :class:`cfseg.recipes.training.Training`, ``rare_label_exponent``.
    """
    weights = [max(count, 1) ** -exponent for count in voxels]
    mean = sum(w * n for w, n in zip(weights, voxels, strict=True)) / sum(voxels)
    return tuple(weight / mean for weight in weights)


class Loss(nn.Module):
    """The loss of a batch at one resolution: minus the mean Dice, plus the cross-entropy.

    Args:
        batch_dice: the Dice counts a batch as one scan, instead of each window by itself.
        hard_voxels: share of each window's labelled voxels that count in the cross-entropy.
        tumor_dice_weight: how often the tumor counts in the mean Dice.
        label_weights: (C,) of the cross-entropy; None for all alike.
    """

    label_weights: torch.Tensor | None

    def __init__(
        self,
        *,
        batch_dice: bool,
        hard_voxels: float = 1.0,
        tumor_dice_weight: float = 1.0,
        label_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.batch_dice, self.hard_voxels = batch_dice, hard_voxels
        self.tumor_dice_weight = tumor_dice_weight
        weights = None if label_weights is None else torch.tensor(label_weights)
        self.register_buffer("label_weights", weights)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss, computed in fp32 or better.

        Args:
            logits: (B, C, Z, Y, X).
            labels: (B, Z, Y, X) uint8, at the logits' resolution.
        """
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_p = exact.flatten(2).log_softmax(dim=1)
        ids = labels.flatten(1)
        return self._cross_entropy(log_p, ids) - self._dice(log_p, ids)

    def _dice(self, log_p: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the mean soft Dice of all labels but the background; (B, C, V) and (B, V)."""
        classes = torch.arange(1, log_p.shape[1], dtype=ids.dtype, device=ids.device)
        there = ids[:, None] == classes[:, None]
        seen = log_p.exp()[:, 1:] * (ids != IGNORE)[:, None]
        sums = torch.stack(
            [(seen * there).sum(2), seen.sum(2), there.sum(2, dtype=seen.dtype)]
        )  # (3, B, C - 1)
        if self.batch_dice:
            sums = sum_of_all(sums.sum(1))
        both, predicted, true = sums.unbind()
        scores = (2 * both + SMOOTH) / (predicted + true + SMOOTH).clamp_min(1e-8)
        if self.tumor_dice_weight == 1:
            return scores.mean()
        weights = torch.where(classes == TUMOR.id, self.tumor_dice_weight, 1.0).to(scores)
        return (scores * weights / weights.sum()).sum(-1).mean()

    def _cross_entropy(self, log_p: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean over the voxels that count; (B, C, V) and (B, V)."""
        is_known = ids != IGNORE
        target = ids.masked_fill(~is_known, 0).long()
        weights = is_known.to(log_p.dtype)
        if self.label_weights is not None:
            weights = weights * self.label_weights.to(log_p.dtype)[target]
        losses = F.nll_loss(log_p, target, reduction="none") * weights
        if self.hard_voxels < 1:
            losses, number = self._hardest(losses, is_known)
        else:
            number = weights.sum()
        # Gradients are averaged over the processes, so each divides by the mean of their numbers.
        mean_number = sum_of_all(number) / processes()
        return losses.sum() / mean_number.clamp_min(torch.finfo(number.dtype).tiny)

    def _hardest(
        self, losses: torch.Tensor, is_known: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the largest losses of each window (B, K), and how many voxels they are of.

        They are chosen within a window, so that the loss of a batch does not depend on how many
        processes share it.
        """
        most = max(1, round(self.hard_voxels * losses.shape[1]))
        share = (self.hard_voxels * is_known.sum(1).to(losses.dtype)).round().clamp(1, most)
        largest = losses.topk(most, dim=1).values  # sorted
        counts = torch.arange(most, device=losses.device) < share[:, None]
        return largest * counts, share.sum()


class DeepSupervision(nn.Module):
    """The weighted sum of a loss over all heads of a network.

    Args:
        loss: of one head.
        weights: of the heads, finest first.
    """

    def __init__(self, loss: Loss, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.weights = loss, tuple(weights)

    def forward(
        self, heads: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            heads: logits (B, C, Z, Y, X), finest first; a network with one head may give it alone.
            labels: (B, Z, Y, X) uint8 of the finest.
        """
        logits = [heads] if isinstance(heads, torch.Tensor) else heads
        losses = [
            weight * self.loss(head, at_resolution(labels, head.shape[2:]))
            for weight, head in zip(self.weights, logits, strict=True)
            if weight
        ]
        return torch.stack(losses).sum()


def at_resolution(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return every n-th voxel of label maps, that in the middle as nnU-Net takes it.

    Args:
        labels: (B, Z, Y, X).
        shape: wanted; each side divides that of the labels.
    """
    steps = [fine // coarse for fine, coarse in zip(labels.shape[1:], shape, strict=True)]
    return labels[:, *(slice(step // 2, None, step) for step in steps)]
