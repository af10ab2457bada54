"""How large a network is: its parameters, and the multiply-adds of a patch (paper Table 2)."""

from typing import Any

import torch

from cfseg.bundle.nnunet_v2 import flare_labels
from cfseg.bundle.plans_v2 import plan_from_json
from cfseg.networks.build import build_network
from cfseg.networks.operations import window_operations
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
    return window_operations(plan) // 2
