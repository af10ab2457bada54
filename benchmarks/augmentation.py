"""Samples per second of augmentation: cfseg beside stock nnU-Net, on the same crops of a phantom.

Neither reads files: the crops are cut before. Stock nnU-Net's workers are started by its own
augmenter, with a thread each, as its trainer starts them.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.ndimage import zoom

from cfseg.feed.augmentation import Augmentation, augment, crop_shape, draw
from cfseg.geometry import Triple
from cfseg.networks.operations import sgemm_gflops
from cfseg.phantoms.phantom import generate
from cfseg.plan import Intensity
from cfseg.recipes.recipe import load

Values = dict[str, Any]
SEED = 990_020
BATCH = 2
SPACING_MM = (2.3009669, 1.26433326, 1.26433326)
"""Of the paper's coarse network, by the authors' code."""
CT = Intensity(lower=-160, upper=300, mean=70, std=80)
CROPS = 8
"""So many different ones are used in turn."""
AUGMENTED: tuple[Values, ...] = (
    {"patch": (64, 160, 224), "elastic": 0.0, "samples": 60},
    {"patch": (64, 160, 224), "elastic": 0.2, "samples": 60},
    {"patch": (96, 160, 192), "elastic": 0.0, "samples": 20},
)
"""Stock nnU-Net leaves elastic deformation out; nnU-Net warps the first patch within the slices."""
QUICK: tuple[Values, ...] = ({"patch": (16, 32, 32), "elastic": 0.2, "samples": 4},)


def settings_of(patch: Triple, elastic: float) -> Augmentation:
    """Return nnU-Net's augmentation of a patch, without mirroring."""
    return replace(Augmentation.of(load("paper").training, patch), elastic_probability=elastic)


def write_crops(patch: Triple, folder: Path) -> Path:
    """Write crops of a phantom around organs, where nnU-Net oversamples, and return the file.

    Args:
        patch: (z, y, x) of the windows that are made of them; nnU-Net's crops are larger.
        folder: keeps the file; it is not made again.
    """
    shape = crop_shape(settings_of(patch, 0), patch)
    file = folder / f"crops-{'x'.join(map(str, shape))}.npz"
    if file.is_file():
        return file
    phantom = generate(SEED, 0)
    spacing = phantom.volume.geometry.spacing_mm
    factors = [had / wanted for had, wanted in zip(spacing, SPACING_MM, strict=True)]
    hu = zoom(phantom.volume.hu.astype(np.float32), factors, order=1)
    hu += np.random.default_rng(SEED).normal(0, 12, hu.shape).astype(np.float32)
    room = [(n, n) for n in shape]
    hu = np.pad(np.clip(hu, CT.lower, CT.upper), room, constant_values=CT.lower).astype(np.int16)
    ids = np.pad(zoom(phantom.label_map.ids, factors, order=0), room)
    organs = np.argwhere(ids > 0)
    centers = organs[np.random.default_rng(SEED).integers(len(organs), size=CROPS)]
    boxes = [
        tuple(slice(c - n // 2, c - n // 2 + n) for c, n in zip(center, shape, strict=True))
        for center in centers
    ]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(file, hu=np.stack([hu[b] for b in boxes]), ids=np.stack([ids[b] for b in boxes]))
    return file


def augmentation(v: Values) -> Values:
    """Windows by cfseg, in this process on all threads."""
    patch: Triple = tuple(v["patch"])
    settings, stored = settings_of(patch, v["elastic"]), np.load(v["crops"])
    hu, ids = (torch.from_numpy(stored[name]).unflatten(0, (-1, BATCH)) for name in ("hu", "ids"))

    def batches() -> Iterator[Any]:
        for step in count():
            which, draws = step % len(hu), draw(settings, v["seed"], step, range(BATCH))
            yield augment(hu[which], ids[which], draws, patch, CT)

    return _timed(batches(), v["samples"], warm_up=2) | {"gflops": sgemm_gflops(2048, 2)}


def stock_augmentation(v: Values) -> Values:
    """Windows by stock nnU-Net, in worker processes."""
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
        NonDetMultiThreadedAugmenter,
    )

    batches = NonDetMultiThreadedAugmenter(
        _StockLoader(v), None, v["processes"], num_cached=6, wait_time=0.002
    )
    try:
        return _timed(batches, v["samples"], warm_up=2 * v["processes"])
    finally:
        batches._finish()


def library_augmentation(v: Values) -> Values:
    """nnU-Net's transforms on tensors in this process, on all threads; the nearest label."""
    loader = _StockLoader(v)
    loader.spatial.mode_seg = "nearest"
    loader.set_thread_id(0)
    return _timed(loader, v["samples"], warm_up=2)


class _StockLoader:
    """Batches as nnU-Net's loader makes them, of crops that have been read."""

    def __init__(self, v: Values) -> None:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        patch, stored = tuple(v["patch"]), np.load(v["crops"])
        settings = settings_of(patch, v["elastic"])
        limit = np.radians(settings.degrees)
        self.transforms = nnUNetTrainer.get_training_transforms(
            patch, (-limit, limit), None, (), settings.flat
        )
        made = self.transforms.transforms
        self.spatial = next(t for t in made if hasattr(t, "p_elastic_deform"))
        self.spatial.p_elastic_deform = v["elastic"]
        self.blur = next(
            t.transform for t in made if hasattr(getattr(t, "transform", 0), "blur_sigma")
        )
        self.scans = (stored["hu"].astype(np.float32) - CT.mean) / CT.std
        self.labels = stored["ids"].astype(np.int16)
        self.patch, self.seed, self.place = patch, v["seed"], 0

    def set_thread_id(self, number: int) -> None:
        """Begin where no other worker does, with the way to blur chosen, which takes seconds."""
        self.place = number * CROPS // 2
        np.random.seed(self.seed + 1000 * number)  # noqa: NPY002 - nnU-Net draws from it
        torch.manual_seed(self.seed + 1000 * number)
        for axis in range(3):
            for sigma in (0.5, 0.75, 1.0):
                self.blur._benchmark_wrapper(torch.zeros(1, *self.patch), sigma, axis)

    def __iter__(self) -> Iterator[Values]:
        return self

    def __next__(self) -> Values:
        data = torch.empty(BATCH, 1, *self.patch)
        target = torch.empty(BATCH, 1, *self.patch, dtype=torch.int16)
        for sample in range(BATCH):
            image, labels = (
                torch.from_numpy(of[self.place % CROPS][None]).clone()
                for of in (self.scans, self.labels)
            )
            with torch.no_grad():
                made = self.transforms(image=image, segmentation=labels)
            data[sample], target[sample] = made["image"], made["segmentation"]
            self.place += 1
        return {"data": data, "target": target}


def _timed(batches: Iterator[Any], samples: int, warm_up: int) -> Values:
    for _ in range(warm_up):
        next(batches)
    start = perf_counter()
    for _ in range(samples // BATCH):
        next(batches)
    seconds = perf_counter() - start
    return {"seconds": {"total": seconds}, "samples_per_s": samples / seconds}
