"""Clip and z-score of a CT with the training set's foreground values (paper 2.1)."""

import numpy as np
import numpy.typing as npt
import torch

from cfseg.plan import Intensity

AIR_HU = -1024.0
"""Scanners mark voxels outside the field of view with less than this; air is never below it."""


def clamp_to_air(hu: npt.NDArray[np.float32]) -> None:
    """Raise all values below :data:`AIR_HU` to it, in place.

    Args:
        hu: (Z, Y, X) in HU.
    """
    torch.from_numpy(hu).clamp_(min=AIR_HU)


def normalize(hu: npt.NDArray[np.float32], intensity: Intensity) -> None:
    """Clip to the foreground's percentiles, subtract its mean, divide by its deviation; in place.

    Args:
        hu: (Z, Y, X) in HU; afterwards z-scores.
        intensity: the plan's values.
    """
    view = torch.from_numpy(hu)
    view.clamp_(intensity.lower, intensity.upper).sub_(intensity.mean).div_(intensity.std)
