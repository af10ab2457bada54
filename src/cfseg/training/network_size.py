"""How large a network is: its parameters, and the multiply-adds of a patch (paper Table 2)."""

from typing import Any

import torch
from torch import nn

from cfseg.bundle.nnunet_v2 import flare_labels
from cfseg.bundle.plans_v2 import plan_from_json
from cfseg.networks.build import build_network
from cfseg.plan import StagePlan
from cfseg.training.workspace import CONFIGURATION


def read_plan(plans: dict[str, Any], dataset: dict[str, Any]) -> StagePlan:
    """Return the plan of a network from the contents of nnU-Net's two files."""
    return plan_from_json(plans, CONFIGURATION, flare_labels(dataset), "nnUNetTrainer")


def parameters(plan: StagePlan) -> int:
    """Return how many numbers a network learns, its deep-supervision heads included."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build_network(plan).parameters())


def multiply_adds(plan: StagePlan) -> int:
    """Return the multiply-adds of all convolutions for one patch, exactly; nothing is computed."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)  # noqa: S101 - tells mypy
        # A convolution uses each weight once for each output voxel, a transposed one for each
        # input voxel; groups are counted by the shape of the weight.
        voxels = inputs[0] if isinstance(module, nn.ConvTranspose3d) else output
        counts.append(weight.numel() * voxels[0, 0].numel() * voxels.shape[0])

    with torch.device("meta"):
        network = build_network(plan)
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                module.register_forward_hook(count)
        network(torch.empty(1, 1, *plan.patch))
    return sum(counts)
