"""One stage of the cascade: CT in, logits out, label map on the CT's grid on demand.

Coarse, tumor and organ model are the same code with different plans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

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
from cfseg.preprocessing.prepare import Prepared, prepare
from cfseg.preprocessing.restore import Restoration, restore_labels
from cfseg.recipes.recipe import Cascade
from cfseg.volume import LabelMap, Volume

__all__ = [
    "Prediction",
    "Stage",
    "Windows",
    "half_on_gpu",
    "mean_prediction",
    "predict",
    "predict_labels",
    "windows_of",
]


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
        logits: (C, Z, Y, X) float32 on the network's grid.
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
    with half_on_gpu(stage.device):
        predict_planes(*_task(stage, prepared), windows, restoration.add, on_window, sums)
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


def mean_prediction(predictions: Sequence[Prediction]) -> Prediction:
    """Average the probabilities of several networks.

    Args:
        predictions: of one volume, on equal grids with equal labels. Patches may differ.

    Returns:
        The logarithm of the mean probabilities as logits.

    Raises:
        ModelError: the networks' grids or labels differ, so their voxels cannot be averaged.
    """
    if not predictions:
        raise ValueError("no predictions to average")
    first = predictions[0]
    for other in predictions[1:]:
        _check_alike(first, other)
    with torch.inference_mode():
        total = torch.log_softmax(first.logits, dim=0)
        for other in predictions[1:]:
            torch.logaddexp(total, torch.log_softmax(other.logits, dim=0), out=total)
        return Prediction(total - log(len(predictions)), first.prepared)


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
