"""What networks see: which windows are drawn, how they are augmented, what labels weigh."""

# nnU-Net ships no types.
# mypy: disable-error-code="misc"

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from cfseg.labels import TUMOR
from cfseg.recipes.training import Training


def set_augmentation(loader: Any, training: Training, tumor_focus: float) -> None:  # noqa: ANN401
    """Let nnU-Net's loader augment and sample as the recipe says.

    Elastic deformation is on, as the paper's 2.1 lists it; nnU-Net leaves it off.

    Args:
        loader: nnU-Net's loader of training windows.
        training: the recipe's numbers.
        tumor_focus: see :func:`focused_box`.
    """
    for transform in getattr(getattr(loader, "transforms", None), "transforms", ()):
        if isinstance(transform, SpatialTransform):
            transform.p_elastic_deform = training.elastic_probability
            if training.label_interpolation == "nearest":
                transform.mode_seg = "nearest"
    if tumor_focus:
        loader.get_bbox = partial(focused_box, loader.get_bbox, tumor_focus)


def focused_box(
    get_bbox: Callable[..., Any],
    focus: float,
    shape: Any,  # noqa: ANN401
    force_fg: bool,
    class_locations: dict[Any, Any] | None,
) -> Any:  # noqa: ANN401
    """Choose a window as nnU-Net's loader does, but more often one around a tumor.

    Args:
        get_bbox: the loader's own choice.
        focus: how often, among the windows centered on a label, it is the tumor.
        shape: of the case.
        force_fg: whether the window has to be centered on a label.
        class_locations: voxels of each label.
    """
    wanted = force_fg and class_locations is not None and len(class_locations.get(TUMOR.id, ()))
    chosen = TUMOR.id if wanted and np.random.uniform() < focus else None  # noqa: NPY002
    return get_bbox(shape, force_fg, class_locations, chosen)


def rare_label_weights(
    label_maps: Iterable[np.ndarray], classes: int, exponent: float
) -> torch.Tensor:
    """Return (C,) weights of the labels whose mean over all voxels is 1.

    Args:
        label_maps: of the training cases; negative values count as background.
        classes: C.
        exponent: see :class:`cfseg.recipes.training.Training`, ``rare_label_exponent``.
    """
    counts = np.zeros(classes)
    for label_map in label_maps:
        ids = np.maximum(label_map, 0).astype(np.int64)
        counts += np.bincount(ids.ravel(), minlength=classes)
    weights = np.maximum(counts, 1) ** -exponent
    weights *= counts.sum() / (weights * counts).sum()
    return torch.from_numpy(weights.astype(np.float32))
