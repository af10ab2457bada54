"""A CT and label maps, small enough to be part of a page: NIfTI, gzip, base64.

Voxels become about 2 mm wide by averaging whole blocks of them, so slices of a scan stay slices.
HU become one byte each, in steps of 3 HU where soft tissue is and coarser ones elsewhere.
"""

import base64
import gzip
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt

from cfseg.geometry import Geometry, Triple
from cfseg.io.source import RAS_TO_ZYX
from cfseg.volume import LabelMap, Volume

TARGETS_MM = (2.0, 2.5, 3.0, 4.0, 6.0)
"""Widths of voxels; the first is taken with which the CT stays under :data:`CT_BYTES`."""
CT_BYTES = 7_500_000
"""Greatest size of the compressed CT. In base64 it takes a third more, and the page with the
viewer's 2.3 MB and its pictures then stays under 15 MB."""

HU_STEPS: tuple[tuple[float, int], ...] = ((-1000, 0), (-200, 40), (300, 215), (1500, 255))
"""Pairs of a value in HU and its byte; between them it is linear, beyond them it is clipped."""

_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Embedded:
    """What the viewer loads.

    Attributes:
        ct: base64 of a gzipped NIfTI of bytes, see :data:`HU_STEPS`.
        label_maps: the same of each label map, by name.
        geometry: the grid of all of them.
        block: how many voxels of the scan along (z, y, x) became one.
    """

    ct: str
    label_maps: dict[str, str]
    geometry: Geometry
    block: Triple


def embed(volume: Volume, label_maps: dict[str, LabelMap]) -> Embedded:
    """Return a CT and label maps on its grid in a form for a page.

    Args:
        volume: (Z, Y, X) in HU.
        label_maps: by name, on the volume's grid.
    """
    for target_mm in TARGETS_MM:
        block = block_of(volume.geometry, target_mm)
        geometry = blocks_geometry(volume.geometry, block)
        ct = _packed(hu_bytes(_means(volume.hu, block)), geometry)
        if len(ct) <= CT_BYTES:
            break
    packed = {
        name: _base64(_packed(_middles(label_map.ids, block), geometry))
        for name, label_map in label_maps.items()
    }
    return Embedded(_base64(ct), packed, geometry, block)


def block_of(geometry: Geometry, target_mm: float) -> Triple:
    """Return how many voxels along (z, y, x) become one."""
    z, y, x = (max(1, round(target_mm / mm)) for mm in geometry.spacing_mm)
    return z, y, x


def blocks_geometry(geometry: Geometry, block: Triple) -> Geometry:
    """Return the grid of the blocks; the last of each axis may reach beyond the scan."""
    z, y, x = (-(-n // b) for n, b in zip(geometry.shape, block, strict=True))
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.asarray(block) - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * block
    return Geometry((z, y, x), affine)


def hu_bytes(hu: npt.NDArray[np.floating | np.integer]) -> _Bytes:
    """Return HU as bytes, see :data:`HU_STEPS`."""
    values, codes = zip(*HU_STEPS, strict=True)
    codes_of_hu: npt.NDArray[np.float64] = np.interp(hu, values, codes)
    return np.rint(codes_of_hu).astype(np.uint8)


def ras_mm(geometry: Geometry, index: tuple[float, float, float]) -> list[float]:
    """Return where a voxel (z, y, x) lies in NIfTI's millimeters: right, front, up."""
    place = np.linalg.inv(RAS_TO_ZYX) @ geometry.affine @ np.array([*index, 1.0])
    return [round(float(mm), 3) for mm in place[:3]]


def _means(hu: npt.NDArray[np.generic], block: Triple) -> npt.NDArray[np.float32]:
    """Return the mean of each block; beyond the scan its last slices go on."""
    padding = [(0, -n % b) for n, b in zip(hu.shape, block, strict=True)]
    if any(after for _, after in padding):
        hu = np.pad(hu, padding, mode="edge")
    z, y, x = (n // b for n, b in zip(hu.shape, block, strict=True))
    split = hu.reshape(z, block[0], y, block[1], x, block[2])
    return np.asarray(split.mean(axis=(1, 3, 5), dtype=np.float32))


def _middles(ids: _Bytes, block: Triple) -> _Bytes:
    """Return the label in the middle of each block: a label is never averaged."""
    places = (
        np.minimum(np.arange(b // 2, n + b // 2, b), n - 1)
        for n, b in zip(ids.shape, block, strict=True)
    )
    return ids[np.ix_(*places)]


def _packed(values: _Bytes, geometry: Geometry) -> bytes:
    """Return a gzipped NIfTI of an array (Z, Y, X), stored as (right, front, up)."""
    back, left = (n - 1 for n in geometry.shape[1:])
    stored_to_zyx = np.array([[0, 0, 1, 0], [0, -1, 0, back], [-1, 0, 0, left], [0, 0, 0, 1.0]])
    affine = np.linalg.inv(RAS_TO_ZYX) @ geometry.affine @ stored_to_zyx
    image = nib.Nifti1Image(values.transpose(2, 1, 0)[::-1, ::-1], affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
