"""Each lesion in figures: a connected part of the tumor label, its size, density and place."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from cfseg.components import Component, components
from cfseg.findings.diameters import Diameters, axial_diameters
from cfseg.findings.organs import BORDER_SLICES, Density, Side, density, sides_cut
from cfseg.geometry import Box, Geometry
from cfseg.labels import LABELS, NAMES, ORGAN_IDS, TUMOR
from cfseg.volume import LabelMap, Volume

HOST_SHARE = 0.2
"""A lesion lies in the organ that covers most of its surface, if that is at least this share."""

_Ids = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        number: from 1, the largest first.
        voxels: how many it has.
        visible_ml: volume of what the scan shows of it.
        diameters: longest axial diameter and the one across it; ``slice`` and ``ends`` are those of
            the scan.
        density: HU inside.
        host: name of the organ that it lies in, or None.
        nearest: name of the host or, without one, of the nearest organ; None without organs.
        nearest_mm: from the lesion to that organ between voxel centers, 0 where they touch.
        centroid: mean index (z, y, x).
        box: smallest box around it.
        cut_by: the sides of the scan at which it may go on.
    """

    number: int
    voxels: int
    visible_ml: float
    diameters: Diameters
    density: Density
    host: str | None
    nearest: str | None
    nearest_mm: float | None
    centroid: tuple[float, float, float]
    box: Box
    cut_by: tuple[Side, ...]

    @property
    def volume_ml(self) -> float | None:
        """Its volume, or None where the scan shows only a part of it."""
        return None if self.cut_by else self.visible_ml


def find_lesions(
    volume: Volume,
    label_map: LabelMap,
    border_slices: int = BORDER_SLICES,
    host_share: float = HOST_SHARE,
) -> tuple[Lesion, ...]:
    """Return the 26-connected parts of the tumor label, the largest first.

    Args:
        volume: (Z, Y, X) in HU.
        label_map: on the volume's grid.
        border_slices: what reaches into so many outer slices counts as cut.
        host_share: see :data:`HOST_SHARE`.
    """
    parts, found = components(label_map.ids == TUMOR.id)
    organs = _Organs(label_map)
    ordered = sorted(found, key=lambda part: (-part.voxels, part.label))
    lesions = []
    for number, part in enumerate(ordered, start=1):
        mask = parts[part.box.slices] == part.label
        host, nearest, nearest_mm = organs.around(mask, part.box, host_share)
        lesions.append(
            Lesion(
                number=number,
                voxels=part.voxels,
                visible_ml=part.voxels * label_map.geometry.voxel_ml,
                diameters=_diameters(mask, part, label_map.geometry),
                density=density(volume.hu[part.box.slices][mask]),
                host=host,
                nearest=nearest,
                nearest_mm=nearest_mm,
                centroid=part.centroid,
                box=part.box,
                cut_by=sides_cut(part.box, label_map.geometry.shape, border_slices),
            )
        )
    return tuple(lesions)


def contact_mm2(mask: _Mask, ids: _Ids, geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return how much of a mask's surface touches each label, by label id.

    Args:
        mask: (Z, Y, X) of a lesion.
        ids: (Z, Y, X) labels around it.
        geometry: of both; only its spacing counts.

    Returns:
        (15,) areas in square millimeters; what lies outside of the array is not counted.
    """
    area = np.zeros(len(LABELS) + 1)
    voxel_mm3 = geometry.voxel_ml * 1000
    for axis, mm in enumerate(geometry.spacing_mm):
        inside, labels = np.moveaxis(mask, axis, 0), np.moveaxis(ids, axis, 0)
        for here, there in ((slice(1, None), slice(-1)), (slice(-1), slice(1, None))):
            touched = labels[there][inside[here] & ~inside[there]]
            area += np.bincount(touched, minlength=area.size)[: area.size] * voxel_mm3 / mm
    return area


class _Organs:
    """The organs around lesions; their surface is sought only for lesions that touch none."""

    def __init__(self, label_map: LabelMap) -> None:
        self.ids, self.geometry = label_map.ids, label_map.geometry
        self._surface: tuple[KDTree, _Ids] | None = None

    def around(
        self, mask: _Mask, box: Box, host_share: float
    ) -> tuple[str | None, str | None, float | None]:
        """Return host, nearest organ and the distance to it in mm."""
        grown = box.grow((1, 1, 1), self.geometry.shape)
        wide = np.zeros(grown.shape, dtype=np.bool_)
        inner = box.shifted(tuple(-a for a in grown.start))  # type: ignore[arg-type]
        wide[inner.slices] = mask
        area = contact_mm2(wide, self.ids[grown.slices], self.geometry)
        organs = area[list(ORGAN_IDS)]
        most = int(organs.argmax())
        if organs[most] > 0:
            name = NAMES[ORGAN_IDS[most]]
            return (name if organs[most] >= host_share * area.sum() else None), name, 0.0
        return (None, *self.nearest(wide, grown))

    def nearest(self, mask: _Mask, box: Box) -> tuple[str | None, float | None]:
        """Return the organ nearest to a mask in a box, and its distance in mm."""
        tree, labels = self.surface()
        if labels.size == 0:
            return None, None
        found = tree.query(self.points_mm(np.argwhere(mask) + box.start))
        distances, places = np.asarray(found[0]), np.asarray(found[1])
        best = int(distances.argmin())
        return NAMES[int(labels[places[best]])], float(distances[best])

    def surface(self) -> tuple[KDTree, _Ids]:
        """Return the outer voxels of all organs, in mm, and their labels."""
        if self._surface is None:
            organs = np.isin(self.ids, ORGAN_IDS)
            where = np.argwhere(organs & ~binary_erosion(organs, border_value=0))
            self._surface = KDTree(self.points_mm(where)), self.ids[tuple(where.T)]
        return self._surface

    def points_mm(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        points: npt.NDArray[np.float64] = indices @ self.geometry.affine[:3, :3].T
        return points


def _diameters(mask: _Mask, part: Component, geometry: Geometry) -> Diameters:
    found = axial_diameters(mask, geometry.affine)
    z, y, x = part.box.start
    (y0, x0), (y1, x1) = found.ends
    ends = ((y0 + y, x0 + x), (y1 + y, x1 + x))
    return Diameters(found.longest_mm, found.perpendicular_mm, found.slice + z, ends)
