"""A crop of a label map, turned, scaled and bent: one read of the nearest voxel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from cfseg.feed.crops import Sampling, corner_around, labelled_voxel
from cfseg.feed.rendering.ranges import Rendering
from cfseg.feed.rendering.scene import smooth_noise
from cfseg.feed.store import counted
from cfseg.geometry import Triple, TripleMm
from cfseg.labels import IGNORE
from cfseg.phantoms import tissues as t
from cfseg.phantoms.atlas import Atlas


@dataclass(frozen=True)
class Map:
    """A label map on a device, with the places of its labels.

    Attributes:
        name: of the atlas.
        tissue: (Z, Y, X) uint8.
        labels: (Z, Y, X) uint8.
        spacing_mm: (z, y, x).
        voxels: how many voxels each label has.
        places: where some voxels of each label are in the flat array.
    """

    name: str
    tissue: torch.Tensor
    labels: torch.Tensor
    spacing_mm: TripleMm
    voxels: Mapping[int, int]
    places: Mapping[int, npt.NDArray[np.int32]]

    @classmethod
    def of(cls, atlas: Atlas, device: torch.device) -> Self:
        """Take an atlas to a device."""
        tissue = torch.from_numpy(np.ascontiguousarray(atlas.tissue)).to(device)
        labels = torch.from_numpy(np.ascontiguousarray(atlas.labels)).to(device)
        voxels, places = counted(atlas.labels)
        return cls(atlas.name, tissue, labels, atlas.spacing_mm, voxels, places)

    @property
    def shape(self) -> Triple:
        """(z, y, x) voxels."""
        z, y, x = self.tissue.shape
        return z, y, x

    def locations(self, label: int) -> npt.NDArray[np.int32]:
        """Return where some voxels of a label are in the flat array."""
        return self.places[label]


def place(
    source: Map, sampling: Sampling, reach_mm: Sequence[float], host: int, rng: np.random.Generator
) -> Triple:
    """Return the voxel of a map that a patch is centered on, within the map where that is large.

    Args:
        source: the map.
        sampling: how often the voxel has a label; all labels of a map alike, so rare ones and
            small ones are seen as often as the liver.
        reach_mm: (z, y, x) of the patch.
        host: label that is wanted there instead; 0 for none.
        rng: numbers are drawn from it.
    """
    z, y, x = (max(1, round(mm / own)) for mm, own in zip(reach_mm, source.spacing_mm, strict=True))
    if host in source.voxels and host:
        at = np.unravel_index(rng.choice(source.places[host]), source.shape)
        center: Triple | None = (int(at[0]), int(at[1]), int(at[2]))
    else:
        center = labelled_voxel(source, sampling, rng)
    corner = corner_around(center, source.shape, (z, y, x), rng)
    return corner[0] + z // 2, corner[1] + y // 2, corner[2] + x // 2


def read(
    source: Map,
    center: Triple,
    shape: Triple,
    mm: TripleMm,
    ranges: Rendering,
    rng: np.random.Generator,
    torch_rng: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tissue and the labels of a crop, (Z, Y, X) uint8 each.

    What lies beyond the map is air. Where the map ends within a body nobody knows what follows,
    so that is ignored. Left stays left: nothing is ever mirrored.

    Args:
        source: the map.
        center: voxel of it in the middle of the crop.
        shape: of the crop.
        mm: spacing of the crop, (z, y, x).
        ranges: how far it is turned, scaled and bent.
        rng: numbers are drawn from it.
        torch_rng: fields are drawn from it.
    """
    # Voxels are gathered by number: grid_sample would want the whole map as float.
    device = source.tissue.device
    flat = torch.zeros(shape, dtype=torch.int32, device=device)
    beyond = torch.zeros(shape, dtype=torch.bool, device=device)
    matrix = _matrix(mm, ranges, rng)
    bends = _bends(shape, mm, ranges, rng, torch_rng, device)
    for axis, size in enumerate(source.shape):
        at = bends[axis].div_(source.spacing_mm[axis]).add_(center[axis])
        for other, count in enumerate(shape):
            line = (torch.arange(count) - (count - 1) / 2) * (
                matrix[axis, other] / source.spacing_mm[axis]
            )
            at += line.to(at).reshape([-1 if a == other else 1 for a in range(3)])
        near = at.round_().clamp(0, size - 1)
        beyond |= near != at
        flat.mul_(size).add_(near.to(torch.int32))
    tissue, labels = (
        volume.flatten().index_select(0, flat.flatten()).reshape(shape)
        for volume in (source.tissue, source.labels)
    )
    body = (tissue != t.AIR) & (tissue != t.TABLE)
    labels[beyond] = 0
    labels[beyond & body] = IGNORE
    tissue[beyond] = t.AIR
    return tissue, labels


def _matrix(mm: TripleMm, ranges: Rendering, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return (3, 3): voxels from the middle of the crop to mm from the center in the map."""
    angles = np.radians(rng.normal(0, ranges.degrees_sd))
    shared, own = rng.normal(0, ranges.scale_sd), rng.normal(0, ranges.axis_scale_sd, 3)
    turn = Rotation.from_euler("xyz", angles).as_matrix()
    matrix: npt.NDArray[np.float64] = np.exp(shared + own)[:, None] * turn * np.array(mm)
    return matrix


def _bends(
    shape: Triple,
    mm: TripleMm,
    ranges: Rendering,
    rng: np.random.Generator,
    torch_rng: torch.Generator,
    device: torch.device,
) -> list[torch.Tensor]:
    """Return how far voxels are displaced along each axis, mm, (Z, Y, X) each."""
    total = [torch.zeros(shape, device=device) for _ in range(3)]
    for size_mm, sd_mm in ranges.bends_mm:
        strength, sigmas = sd_mm * abs(rng.normal()), [size_mm / 2 / side for side in mm]
        for along in total:
            along.add_(smooth_noise(torch_rng, shape, sigmas, device), alpha=strength)
    return total
