"""A network that reads the label off the HU value, so that the cascade's logic can be tested."""

import numpy as np
import torch
from torch import nn

from cfseg.geometry import Box, Geometry
from cfseg.inference.predictor import Stage
from cfseg.plan import Architecture, Intensity, Role, StagePlan
from cfseg.volume import Volume

BODY_HU = 0.0
SPACING_MM = (4.0, 4.0, 4.0)


def hu_of(label: int) -> float:
    """Voxels of a label have this value; the body is 0, the air -1000."""
    return 60.0 * label


class ByValue(nn.Module):
    """Logits are highest for the label whose HU is nearest; ``blind`` labels are never found."""

    def __init__(self, classes: int, blind: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.values = torch.tensor([hu_of(c) / 100 for c in range(classes)]).view(1, -1, 1, 1, 1)
        self.blind = blind
        self.seen: list[torch.Size] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image.shape)
        logits = -((image - self.values) ** 2)
        for label in self.blind:
            logits[:, label] = -1e6
        return logits


def stage(role: Role, name: str, blind: tuple[int, ...] = ()) -> Stage:
    classes = 15 if role == "tumor" else 14
    plan = StagePlan(
        spacing_mm=SPACING_MM,
        patch=(16, 16, 16),
        labels=tuple(range(classes)),
        architecture=Architecture(
            features=(4, 8),
            kernel_sizes=((3, 3, 3), (3, 3, 3)),
            strides=((1, 1, 1), (2, 2, 2)),
            n_conv_encoder=(1, 1),
            n_conv_decoder=(1,),
        ),
        intensity=Intensity(lower=-1000, upper=1000, mean=0, std=100),
    )
    return Stage(role, name, plan, ByValue(classes, blind), torch.device("cpu"))


def scan(shape: tuple[int, int, int], boxes: dict[int, list[Box]]) -> Volume:
    """A body of 0 HU in air, with boxes of labels in it."""
    hu = np.full(shape, -1000, dtype=np.float32)
    hu[:, 3:-3, 3:-3] = BODY_HU
    for label, places in boxes.items():
        for box in places:
            hu[box.slices] = hu_of(label)
    return Volume(hu, Geometry.from_spacing(shape, SPACING_MM))
