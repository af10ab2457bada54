"""Networks that read the label off the HU value, and scans for them: what comes out is known."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import nn

from cfseg.dataset.cases import Case
from cfseg.geometry import Box, Geometry
from cfseg.inference.predictor import Stage
from cfseg.plan import Architecture, Intensity, Role, StagePlan
from cfseg.volume import LabelMap, Volume

SHAPE = (24, 26, 28)
SPACING_MM = 4.0
HU_STEP = 60.0
PLACES: dict[int, list[Box]] = {
    1: [Box((6, 7, 7), (15, 16, 16))],
    3: [Box((8, 10, 18), (12, 14, 22))],
    14: [Box((8, 9, 9), (11, 12, 12))],
}


class Reader(nn.Module):
    """Takes a voxel for the label whose value is nearest, or for background if blind to it."""

    def __init__(self, classes: int, blind: tuple[int, ...]) -> None:
        super().__init__()
        self.values = (torch.arange(classes) * HU_STEP / 100).view(1, -1, 1, 1, 1)
        self.blind = torch.tensor(blind, dtype=torch.long)
        self.passes = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        logits = -((image - self.values) ** 2)
        unseen = torch.isin(logits.argmax(dim=1), self.blind)
        logits[:, 0][unseen] = 1e6
        return logits


def reader(role: Role, name: str, blind: tuple[int, ...] = ()) -> Stage:
    """Return a stage that finds every label but those to which it is blind."""
    classes = 15 if role == "tumor" else 14
    plan = StagePlan(
        spacing_mm=(SPACING_MM,) * 3,
        patch=(24, 24, 24),
        labels=tuple(range(classes)),
        architecture=Architecture(
            features=(4, 8),
            kernel_sizes=((3, 3, 3),) * 2,
            strides=((1, 1, 1), (2, 2, 2)),
            n_conv_encoder=(1, 1),
            n_conv_decoder=(1,),
        ),
        intensity=Intensity(lower=-1000, upper=1000, mean=0, std=100),
    )
    return Stage(role, name, plan, Reader(classes, blind), torch.device("cpu"))


def volume_of(places: Mapping[int, list[Box]], seed: int | None = None) -> tuple[Volume, LabelMap]:
    """Return a body with boxes of labels in it, and its labels; noise if there is a seed."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 3:-3, 3:-3] = 0
    ids = np.zeros(SHAPE, dtype=np.uint8)
    for label, boxes in places.items():
        for box in boxes:
            hu[box.slices], ids[box.slices] = HU_STEP * label, label
    if seed is not None:
        noise = np.random.default_rng(seed).normal(0, 100, SHAPE).astype(np.int16)
        hu[hu > -1000] += noise[hu > -1000]
    geometry = Geometry.from_spacing(SHAPE, (SPACING_MM,) * 3)
    return Volume(hu, geometry), LabelMap(ids, geometry)


def write_reading_case(
    folder: Path, name: str, places: Mapping[int, list[Box]], *, seed: int | None = None
) -> Case:
    """Write what :func:`volume_of` gives as a case in nnU-Net's raw layout."""
    volume, labels = volume_of(places, seed)
    image = folder / "imagesTr" / f"{name}_0000.nii.gz"
    label = folder / "labelsTr" / f"{name}.nii.gz"
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1])
    for array, path in ((volume.hu, image), (labels.ids, label)):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), path)
    return Case(name, image, label, frozenset(range(1, 15)))
