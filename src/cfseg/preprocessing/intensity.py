"""Clip and z-score of a CT with the training set's foreground values (paper 2.1)."""

import numpy as np
import numpy.typing as npt
import torch

from cfseg.plan import Intensity

Hu = torch.Tensor | npt.NDArray[np.float32]

AIR_HU = -1024.0
"""Scanners mark voxels outside the field of view with less than this; air is never below it."""


def clamp(hu: Hu, intensity: Intensity) -> None:
    """Raise all values below :data:`AIR_HU` to it, or clamp to the plan's own limits; in place.

    It has to come before resampling: a spline rings next to padding of -3024 HU.

    Args:
        hu: (Z, Y, X) in HU.
        intensity: the plan's values.
    """
    lower, upper = intensity.clamp_hu or (AIR_HU, None)
    torch.as_tensor(hu).clamp_(lower, upper)


def normalize(hu: Hu, intensity: Intensity) -> None:
    """Clip to the foreground's percentiles, subtract its mean, divide by its deviation; in place.

    Args:
        hu: (Z, Y, X) in HU; afterwards z-scores.
        intensity: the plan's values.
    """
    view = torch.as_tensor(hu)
    view.clamp_(intensity.lower, intensity.upper).sub_(intensity.mean).div_(intensity.std)
