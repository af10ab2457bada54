"""One stage of the cascade: CT in, logits out, label map on the CT's grid on demand.

Coarse, tumor and organ model are the same code with different plans.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cfseg.errors import ModelError
from cfseg.geometry import Triple
from cfseg.inference.sliding_window import (
    OnWindow,
    Windows,
    predict_planes,
    predict_windows,
)
from cfseg.networks.backends import Backend, Restful, Runner
from cfseg.plan import Role, StagePlan
from cfseg.preprocessing.prepare import Prepared, prepare, slab_planes
from cfseg.preprocessing.restore import Restoration, restore_labels
from cfseg.recipes.recipe import Cascade
from cfseg.volume import LabelMap, Volume

__all__ = [
    "Prediction",
    "Stage",
    "Windows",
    "half_on_gpu",
    "mean_labels",
    "predict",
    "predict_labels",
    "windows_of",
]

MEAN_VOXELS = 1 << 20
"""Logits of each network that are averaged at a time; they stay in the cache."""


@dataclass(frozen=True)
class Stage:
    """A loaded network and what is needed to feed it.

    Attributes:
        role: what it is used for.
        name: ``coarse``, ``tumor_1``, ``tumor_2`` or ``organ``.
        plan: the plan that trained it.
        network: on ``device``, ready to predict.
        device: where it runs.
        backend: what runs it.
    """

    role: Role
    name: str
    plan: StagePlan
    network: Runner
    device: torch.device
    backend: Backend = "torch"

    def rest(self) -> None:
        """Give back the memory that only a running network needs."""
        if isinstance(self.network, Restful):
            self.network.rest()


@dataclass(frozen=True)
class Prediction:
    """What a network says about a volume.

    Attributes:
        logits: (C, Z, Y, X) on the network's grid, in the precision of the sums.
        prepared: what the network saw.
    """

    logits: torch.Tensor
    prepared: Prepared

    def label_map(self) -> LabelMap:
        """Return the best label of each voxel on the volume's own grid."""
        return restore_labels(self.logits, self.prepared)


def predict(
    stage: Stage,
    volume: Volume,
    windows: Windows,
    on_window: OnWindow | None = None,
    sums: torch.dtype = torch.float32,
) -> Prediction:
    """Run one network over a volume.

    On a GPU it runs in half precision where that is safe, as in training.

    Args:
        stage: the network.
        volume: (Z, Y, X) in HU.
        windows: step, weights, mirroring and padding.
        on_window: called after each window with how many are done and how many there are.
        sums: precision in which the windows' logits are added up.
    """
    prepared = prepare(volume, stage.plan, stage.device)
    with half_on_gpu(stage.device):
        logits = predict_windows(*_task(stage, prepared), windows, on_window, sums)
    return Prediction(logits, prepared)


def predict_labels(
    stage: Stage,
    volume: Volume,
    windows: Windows,
    on_window: OnWindow | None = None,
    sums: torch.dtype = torch.float32,
) -> LabelMap:
    """Run one network over a volume and return the best label of each voxel on its own grid.

    It is ``predict(...).label_map()``, but logits are held only of the planes that windows still
    reach: labels are found in between.

    Args:
        stage: the network.
        volume: (Z, Y, X) in HU.
        windows: step, weights, mirroring and padding.
        on_window: called after each window with how many are done and how many there are.
        sums: precision in which the windows' logits are added up.
    """
    prepared = prepare(volume, stage.plan, stage.device)
    restoration = Restoration(prepared)

    def restore(planes: torch.Tensor) -> None:
        with torch.autocast(stage.device.type, enabled=False):  # labels are found in float32
            restoration.add(planes)

    with half_on_gpu(stage.device):
        predict_planes(*_task(stage, prepared), windows, restore, on_window, sums)
    return restoration.label_map()


def windows_of(cascade: Cascade, role: Role, *, remember: bool = True) -> Windows:
    """Return how the windows of a role's networks lie.

    Args:
        cascade: the recipe's values.
        role: of the stage.
        remember: see :class:`Windows`.
    """
    step = getattr(cascade.step, role)
    return Windows(step, cascade.gaussian, cascade.mirror, cascade.pad, remember)


def _task(stage: Stage, prepared: Prepared) -> tuple[Runner, torch.Tensor, int, Triple]:
    """Return network, image, classes and patch."""
    return stage.network, prepared.image, len(stage.plan.labels), stage.plan.patch


def half_on_gpu(device: torch.device) -> torch.autocast:
    """Return a block inside which networks on a GPU run in half precision where that is safe."""
    return torch.autocast(device.type, enabled=device.type == "cuda")


def mean_labels(predictions: Sequence[Prediction]) -> LabelMap:
    """Average the probabilities of several networks and take the best label of each voxel.

    Args:
        predictions: of one volume, on equal grids with equal labels. Patches may differ.

    Returns:
        The labels on the volume's own grid, where the logarithms of the means are interpolated.

    Raises:
        ModelError: the networks' grids or labels differ, so their voxels cannot be averaged.
    """
    if not predictions:
        raise ValueError("no predictions to average")
    first = predictions[0]
    for other in predictions[1:]:
        _check_alike(first, other)
    restoration = Restoration(first.prepared)
    shape = first.logits.shape[1:]
    some = slab_planes(shape)
    for start in range(0, shape[0], some):
        restoration.add(_log_mean([p.logits[:, start : start + some] for p in predictions]))
    return restoration.label_map()


@torch.inference_mode()
def _log_mean(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the logarithm of the mean probabilities of logits (C, Z, Y, X), float32."""
    first, *others = logits
    mean = torch.empty(first.shape, device=first.device)
    some = max(1, MEAN_VOXELS // first[:, :1].numel())
    for start in range(0, first.shape[1], some):
        planes = np.s_[:, start : start + some]
        total = torch.softmax(first[planes].float(), dim=0)
        for other in others:
            total += torch.softmax(other[planes].float(), dim=0)
        total /= len(logits)
        # What is impossible for all networks stays finite.
        torch.log(total.clamp_(min=torch.finfo(total.dtype).tiny), out=mean[planes])
    return mean


def _check_alike(first: Prediction, other: Prediction) -> None:
    one, two = first.prepared, other.prepared
    alike = {
        "spacings": one.plan.spacing_mm == two.plan.spacing_mm,
        "axis orders": one.plan.transpose == two.plan.transpose,
        "ways of resampling": one.plan.resampling == two.plan.resampling,
        "labels": one.plan.labels == two.plan.labels,
        "volumes": one.geometry.matches(two.geometry),
        "shapes": first.logits.shape == other.logits.shape,
    }
    different = [what for what, same in alike.items() if not same]
    if different:
        raise ModelError(
            f"The mean of two networks needs equal grids, but their {', '.join(different)} differ. "
            'Use the union instead (merge.tumor = "union", merge.organ = "weight2").'
        )
