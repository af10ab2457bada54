"""What is measured: paper-size networks with random weights, synthetic scans of real sizes."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import zoom

from cfseg.geometry import Box, Geometry, Triple, TripleMm
from cfseg.networks.build import build_network
from cfseg.phantoms.phantom import generate
from cfseg.plan import Architecture, Intensity, Role, StagePlan
from cfseg.recipes.recipe import load
from cfseg.volume import LabelMap, Volume

SEED = 990_010
DEFAULT_STEP = load("paper").cascade.step.coarse
"""Of the bundle that ``cfseg bundle create`` makes of one network."""
PAPER_SIZES: dict[int, float] = {
    55: 5.0, 100: 5.0, 150: 3.0, 215: 2.5, 334: 1.5, 448: 1.0, 499: 1.0, 554: 1.0,
}  # fmt: skip
"""Slices of the paper's Table 8, each with a spacing (mm) that gives the extent of a scan."""

# The paper's patches (Table 2); the grids are those of the authors' code, as it names none.
GRIDS: dict[str, tuple[TripleMm, Triple, int]] = {
    "coarse": ((2.3009669, 1.26433326, 1.26433326), (64, 160, 224), 14),
    "tumor_1": ((1.76326792, 1.43954253, 1.43954253), (96, 128, 192), 15),
    "tumor_2": ((1.76326792, 1.43954253, 1.43954253), (96, 128, 192), 15),
    "organ": ((2.5, 1.25834116, 1.25834116), (96, 160, 192), 14),
    "whole": ((2.5, 0.8, 0.8), (64, 160, 224), 14),
}
SMALL = 4
"""With ``--quick`` features and patches are divided by this: to see that it runs, no more."""


def plan_of(name: str, *, quick: bool = False) -> StagePlan:
    """Return the plan of a paper-size network; ``whole`` is one over the whole field."""
    spacing_mm, patch, classes = GRIDS[name]
    features = (32, 64, 128, 256, 320, 320)
    if quick:
        features, spacing_mm = tuple(n // SMALL for n in features), tuple(4 * s for s in spacing_mm)
        patch = tuple(max(32, n // SMALL // 32 * 32) for n in patch)
    return StagePlan(
        spacing_mm=spacing_mm,
        patch=patch,
        labels=tuple(range(classes)),
        architecture=Architecture(
            features=features,
            kernel_sizes=((3, 3, 3),) * 6,
            strides=((1, 1, 1), *((2, 2, 2),) * 4, (1, 2, 2)),
            n_conv_encoder=(2,) * 6,
            n_conv_decoder=(2,) * 5,
        ),
        intensity=Intensity(lower=-160, upper=300, mean=70, std=80),
    )


def weights_of(plan: StagePlan) -> dict[str, torch.Tensor]:
    """Return random weights, the same each time, each tensor once."""
    torch.manual_seed(SEED)
    return {
        name: tensor
        for name, tensor in build_network(plan).state_dict().items()
        if "all_modules" not in name and not name.startswith("decoder.encoder.")
    }


def role_of(name: str) -> Role:
    """Return the role of a network."""
    return "tumor" if name.startswith("tumor") else "organ" if name == "organ" else "coarse"


def synthetic_scan(shape: Triple, spacing_mm: TripleMm, folder: Path) -> tuple[Path, LabelMap]:
    """Write a phantom stretched to a scan's shape, with noise, and return it with its labels.

    Args:
        shape: (z, y, x).
        spacing_mm: (z, y, x).
        folder: keeps the file; it is not made again.
    """
    phantom = generate(SEED, 0)
    grid = Geometry.from_spacing(shape, spacing_mm)
    factors = [n / m for n, m in zip(shape, phantom.volume.geometry.shape, strict=True)]
    labels = LabelMap(zoom(phantom.label_map.ids, factors, order=0), grid)
    file = folder / f"ct_{'x'.join(map(str, shape))}_{spacing_mm[0]:g}mm.nii.gz"
    if not file.is_file():
        hu = zoom(phantom.volume.hu.astype(np.float32), factors, order=1)
        hu += np.random.default_rng(SEED).normal(0, 12, shape).astype(np.float32)
        affine = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
        image = nib.Nifti1Image(np.ascontiguousarray(hu.astype(np.int16).T), affine)
        image.set_sform(affine, code=1)
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(image, file)
    return file, labels


def abdomen(labels: LabelMap, margin_mm: float = 20.0) -> Box:
    """Return the box around the phantom's organs: random weights would give none."""
    box = Box.around(labels.ids > 0)
    if box is None:
        raise ValueError("the phantom has no organs")
    return box.grow(labels.geometry.margin_voxels(margin_mm), labels.geometry.shape)


def middle(box: Box, most: Triple) -> Box:
    """Return the middle of a box, no larger than ``most`` (z, y, x) voxels."""
    start, stop = [], []
    for first, last, size in zip(box.start, box.stop, most, strict=True):
        cut = max(0, last - first - size) // 2
        start.append(first + cut)
        stop.append(min(last, first + cut + size))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def volume_of(shape: Triple, spacing_mm: TripleMm) -> Volume:
    """Return noise on a grid; for what does not look at its values."""
    hu = np.random.default_rng(0).normal(0, 100, shape).astype(np.int16)
    return Volume(hu, Geometry.from_spacing(shape, spacing_mm))
