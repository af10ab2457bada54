"""What departs from nnU-Net's loss where a recipe asks for it; both parts are built from its own.

A tumor is a thousandth of the voxels and one label of fourteen: a mean over all says little of it.
"""

# nnU-Net ships no types.
# mypy: disable-error-code="misc,no-untyped-call,no-any-return"

from typing import Any

import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from torch import nn

from cfseg.labels import TUMOR


class TumorDice(nn.Module):
    """nnU-Net's Dice loss, in whose mean over the labels the tumor counts several times.

    Args:
        dice: of all labels, without the background; it is given probabilities from now on.
        weight: how often the tumor counts.
    """

    def __init__(self, dice: MemoryEfficientSoftDiceLoss, weight: float) -> None:
        super().__init__()
        self.dice, self.weight, self.probabilities = dice, weight, dice.apply_nonlin
        dice.apply_nonlin = None

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, loss_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return minus the weighted mean Dice.

        Args:
            logits: (B, C, Z, Y, X).
            target: (B, 1, Z, Y, X) ids.
            loss_mask: voxels that count, None for all.
        """
        found = self.probabilities(logits)
        labels = found.shape[1] - 1
        extra = (self.weight - 1) / (labels + self.weight - 1)
        everything = self.dice(found, target, loss_mask=loss_mask)
        alone = found[:, [0, TUMOR.id]]
        tumor = self.dice(alone, (target == TUMOR.id).to(target.dtype), loss_mask=loss_mask)
        return (1 - extra) * everything + extra * tumor


class HardVoxels(RobustCrossEntropyLoss):
    """Cross-entropy of those voxels of each window that are hardest to tell.

    They are chosen within a window, so that the loss of a batch does not depend on how many
    processes share it.

    Args:
        share: of the voxels that count.
        weight: (C,) of the labels, None for all alike.
    """

    def __init__(self, share: float, weight: torch.Tensor | None = None) -> None:
        super().__init__(weight=weight, reduction="none")
        self.share = share

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean over the hardest voxels of all windows.

        Args:
            logits: (B, C, Z, Y, X).
            target: (B, Z, Y, X) or (B, 1, Z, Y, X) ids.
        """
        losses = super().forward(logits, target).flatten(1)
        hardest = max(1, round(self.share * losses.shape[1]))
        return losses.topk(hardest, dim=1, sorted=False).values.mean()


def adapt(
    loss: Any,  # noqa: ANN401 - nnU-Net's
    *,
    hard_voxels: float,
    tumor_dice_weight: float,
    label_weights: torch.Tensor | None,
) -> None:
    """Let nnU-Net's Dice and cross-entropy loss weigh labels and voxels as the recipe says.

    Args:
        loss: of one resolution, with the parts ``dc`` and ``ce``.
        hard_voxels: see :class:`cfseg.recipes.training.Training`.
        tumor_dice_weight: see :class:`cfseg.recipes.training.StageTraining`.
        label_weights: (C,) of the cross-entropy, None for all alike.
    """
    if hard_voxels < 1:
        loss.ce = HardVoxels(hard_voxels, label_weights)
    elif label_weights is not None:
        loss.ce = RobustCrossEntropyLoss(weight=label_weights)
    if tumor_dice_weight != 1:
        loss.dc = TumorDice(loss.dc, tumor_dice_weight)
