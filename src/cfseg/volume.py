"""A CT volume and a label map are different types, so neither is treated as the other by accident.

A volume is interpolated with splines, a label map never is. Both carry their grid.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfseg.geometry import Box, Geometry
from cfseg.labels import LABELS


@dataclass(frozen=True)
class Volume:
    """A CT in Hounsfield units.

    Attributes:
        hu: (Z, Y, X) float32 or int16, in HU.
        geometry: the grid of ``hu``.
    """

    hu: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    geometry: Geometry

    def __post_init__(self) -> None:
        _check_shape(self.hu.shape, self.geometry)

    def crop(self, box: Box) -> "Volume":
        """Return the part inside ``box`` (a view, not a copy)."""
        return Volume(self.hu[box.slices], self.geometry.cropped(box))


@dataclass(frozen=True)
class LabelMap:
    """A label for each voxel.

    Attributes:
        ids: (Z, Y, X) uint8, values of :data:`cfseg.labels.LABELS`, 0 is background.
        geometry: the grid of ``ids``.
    """

    ids: npt.NDArray[np.uint8]
    geometry: Geometry

    def __post_init__(self) -> None:
        _check_shape(self.ids.shape, self.geometry)
        if self.ids.dtype != np.uint8:
            raise TypeError(f"a label map holds uint8, not {self.ids.dtype}")

    @classmethod
    def empty(cls, geometry: Geometry) -> "LabelMap":
        """Return a map that is background everywhere."""
        return cls(np.zeros(geometry.shape, dtype=np.uint8), geometry)

    def crop(self, box: Box) -> "LabelMap":
        """Return the part inside ``box`` (a view, not a copy)."""
        return LabelMap(self.ids[box.slices], self.geometry.cropped(box))

    def volumes_ml(self) -> dict[str, float]:
        """Return the volume of each label in millilitres, by name, in the table's order."""
        counts = np.zeros(256, dtype=np.int64)
        for plane in self.ids:  # counting makes eight bytes of each label
            counts += np.bincount(plane.ravel(), minlength=256)
        ml = self.geometry.voxel_ml
        return {label.name: round(float(counts[label.id] * ml), 3) for label in LABELS}


def _check_shape(shape: tuple[int, ...], geometry: Geometry) -> None:
    if tuple(shape) != geometry.shape:
        raise ValueError(f"array of shape {tuple(shape)} on a grid of shape {geometry.shape}")
