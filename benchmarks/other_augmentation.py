"""Seconds per window of libraries' augmentation on tensors, beside cfseg's, on the same crops.

    pip install monai
    python benchmarks/other_augmentation.py FOLDER

Each library has nnU-Net's operations and probabilities, without elastic deformation, the nearest
label, and all threads of one process. FOLDER keeps the crops.
"""

import os
import sys
from collections.abc import Callable
from math import radians
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from augmentation import CT, _StockLoader, settings_of, write_crops
from monai import transforms

from cfseg.feed.augmentation import Augmentation, augment, draw
from cfseg.geometry import Triple

PATCH: Triple = (64, 160, 224)
ROUNDS, SAMPLES = 5, 40
Window = Callable[[int], object]


def monai(s: Augmentation) -> transforms.Compose:
    """Return MONAI's transforms; it turns and scales together, as often as either happens."""
    either = 1 - (1 - s.rotation_probability) * (1 - s.scale_probability)
    scales = tuple(end - 1 for end in s.scale)
    made = transforms.Compose([
        transforms.RandAffined(
            ("image", "label"), prob=either, rotate_range=(radians(s.degrees), 0, 0),
            scale_range=((0, 0), scales, scales), spatial_size=PATCH,
            mode=("bilinear", "nearest"), padding_mode="zeros",
        ),
        transforms.RandGaussianNoised("image", s.noise_probability, std=s.noise[1]),
        transforms.RandGaussianSmoothd("image", *[s.blur] * 3, prob=s.blur_probability),
        transforms.RandScaleIntensityd("image", 0.25, s.brightness_probability),
        transforms.RandScaleIntensityFixedMeand(
            "image", factors=0.25, preserve_range=True, prob=s.contrast_probability
        ),
        transforms.RandSimulateLowResolutiond(
            "image", s.resolution_probability, "nearest", "trilinear", s.resolution
        ),
        transforms.RandAdjustContrastd(
            "image", s.gamma_inverted_probability, s.gamma, invert_image=True, retain_stats=True
        ),
        transforms.RandAdjustContrastd("image", s.gamma_probability, s.gamma, retain_stats=True),
    ])  # fmt: skip
    return made.set_random_state(0)


def ways(crops: Path) -> dict[str, Window]:
    """Return what makes the n-th window, by name."""
    settings, stored = settings_of(PATCH, 0), np.load(crops)
    hu, ids = torch.from_numpy(stored["hu"]), torch.from_numpy(stored["ids"])
    stock = _StockLoader({"patch": PATCH, "elastic": 0, "crops": crops, "seed": 0})
    stock.spatial.mode_seg = "nearest"
    stock.set_thread_id(0)
    others = monai(settings)

    def crop(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        return hu[n % len(hu)][None], ids[n % len(hu)][None]

    def z_scores(n: int) -> torch.Tensor:
        return (crop(n)[0].float() - CT.mean) / CT.std

    return {
        "cfseg": lambda n: augment(*crop(n), draw(settings, 0, n, range(1)), PATCH, CT),
        "batchgeneratorsv2": lambda n: stock.transforms(
            image=z_scores(n), segmentation=crop(n)[1].short()
        ),
        "MONAI": lambda n: others({"image": z_scores(n), "label": crop(n)[1].float()}),
    }


def seconds(way: Window, first: int) -> float:
    """Return the mean seconds of a window."""
    start = perf_counter()
    for number in range(first, first + SAMPLES):
        way(number)
    return (perf_counter() - start) / SAMPLES


def main() -> None:
    """Time all in turns and print a line for each round, and the medians of the ratios."""
    found = ways(write_crops(PATCH, Path(sys.argv[1])))
    rows = []
    print(*found, f"load {os.getloadavg()[0]:.1f}")
    for number in range(ROUNDS + 1):
        row = [seconds(way, number * SAMPLES) for way in found.values()]
        if number:  # the first one warms up
            rows.append(row)
            print(*(f"{s:.3f}" for s in row), flush=True)
    for name, ratios in zip(
        found, zip(*([s / row[0] for s in row] for row in rows), strict=True), strict=True
    ):
        print(f"{name}: {median(ratios):.2f} times cfseg's seconds")


if __name__ == "__main__":
    main()
