"""Crops of phantoms that are made while a network learns, so that it never runs out of new ones."""

from functools import lru_cache
from threading import Lock

import numpy as np
import torch

from cfseg.feed.crops import Cohort, Crop, ResidentCase, Sampling
from cfseg.feed.store import counted, stored_hu, stored_labels
from cfseg.geometry import Triple
from cfseg.labels import IGNORE, TUMOR
from cfseg.phantoms.phantom import generate
from cfseg.plan import StagePlan

STEPS_EACH = 32
"""In which a phantom serves: one takes a second or two to make."""
HELD = 16
"""Phantoms that are kept, for steps that are made ahead of time and batches of several samples."""


class Phantoms:
    """Crops of synthetic abdomens; each sample of a batch has another, for some steps.

    Where a network does not know tumors, nobody knows which organ is under one: those voxels are
    ignored.

    Args:
        plan: of the network.
        sampling: which crops.
    """

    def __init__(self, plan: StagePlan, sampling: Sampling) -> None:
        self._plan, self._sampling = plan, sampling
        self._made, self._lock = lru_cache(HELD)(self._make), Lock()

    def crop(self, seed: int, step: int, sample: int, shape: Triple) -> Crop:
        """Return the crop of a sample."""
        with self._lock:  # else several threads would make the same phantom
            case = self._made(seed, step // STEPS_EACH, sample)
        air = self._plan.intensity.lower
        return Cohort([case], self._sampling, air).crop(seed, step, sample, shape)

    def _make(self, seed: int, span: int, sample: int) -> ResidentCase:
        phantom = generate(seed, span << 16 | sample)
        hu = stored_hu(phantom.volume, self._plan)
        ids = stored_labels(phantom.label_map, self._plan)
        if TUMOR.id not in self._plan.labels:
            ids = np.where(ids == TUMOR.id, np.uint8(IGNORE), ids)
        voxels, places = counted(ids)
        name = f"phantom {seed}.{span}.{sample}"
        return ResidentCase(name, torch.from_numpy(hu), torch.from_numpy(ids), voxels, places)
