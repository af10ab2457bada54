"""The grid of an input file, and the exact way from it to the canonical axes and back.

nibabel's affines map a stored index to millimetres in RAS (x right, y front, z up); cfseg counts
(z, y, x) with z up, y back, x left. Only the order and the direction of the axes change, so the
way back is exact; what rotation is left stays in the affine. A sheared grid alone is resampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import xform_codes
from nibabel.orientations import io_orientation

from cfseg.errors import InputError
from cfseg.geometry import Geometry, Triple
from cfseg.io.affine import SNAP_LIMIT, check_affine, shear_degrees, snapped, stored_affine
from cfseg.io.hounsfield import AIR_HU
from cfseg.io.memory import check_memory, check_voxels, reading_bytes
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.io.plausible import check_grid
from cfseg.io.shear import angle_error, orthogonal_grid, resample

RAS_TO_ZYX = np.array([[0, 0, 1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
"""(x right, y front, z up) to (z up, y back, x left): a swap and two signs."""

LABEL_MAP_SIDE = np.iinfo(np.int16).max
"""NIfTI-1, in which a label map is written, counts voxels with 16 bits."""
MOST_GROWTH = 1000
"""Of a sheared scan's grid. A tilt of 30 degrees makes it several times as large; with a few fine
rows in many thick slices, a hundred times."""
ALIGNED = 2
"""NIfTI's code of the space of another scan."""

_T = TypeVar("_T", bound=np.generic)
_Affine = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SourceGrid:
    """Everything needed to lay a label map back onto the grid of an input.

    Attributes:
        header: the input's NIfTI header, made ready for a uint8 label map; sform, qform, their
            codes and the zooms are the input's own, and nothing else is. Other formats get one
            made from their geometry.
        shape: voxels along the stored axes (i, j, k).
        affine: (4, 4), stored index to millimetres in RAS; in a header of single precision it is
            rounded.
        order: for each of (z, y, x), the stored axis that runs along it.
        flips: for each of (z, y, x), whether the stored axis runs the other way.
        geometry: the canonical grid. Its axes are made orthogonal where ``affine`` is off by less
            than :data:`cfseg.io.affine.SNAP_LIMIT`; beyond, it is a grid of its own that covers
            the sheared one.
        notes: what had to be decided about the geometry.
        options: with which the header was read.
        shear: (4, 4), index (z, y, x, 1) on the canonical grid to one on the stored axes in
            canonical order; None where both are the same.
    """

    header: nib.Nifti1Header
    shape: Triple
    affine: _Affine
    order: Triple
    flips: tuple[bool, bool, bool]
    geometry: Geometry
    notes: tuple[str, ...] = ()
    options: ReadingOptions = AS_IS
    shear: _Affine | None = None

    @classmethod
    def from_header(
        cls, header: nib.Nifti1Header, shape: Triple, options: ReadingOptions = AS_IS
    ) -> Self:
        """Return the grid that a NIfTI header describes for an array of ``shape`` (i, j, k).

        Raises:
            InputError: ``E_ORIENTATION`` without qform and sform, ``E_SPACING`` for a header in
                metres, and as :meth:`from_affine`.
        """
        affine, notes = stored_affine(header, shape, options)
        return cls._of(header, affine, notes, shape, options)

    @classmethod
    def from_affine(
        cls,
        affine: _Affine,
        shape: Triple,
        options: ReadingOptions = AS_IS,
        notes: Sequence[str] = (),
    ) -> Self:
        """Return the grid of an array of ``shape`` (i, j, k) that no NIfTI header describes.

        Args:
            affine: (4, 4), stored index to millimetres in RAS.
            shape: voxels along the stored axes.
            options: what to do where it would be refused.
            notes: what had to be decided about the affine.

        Raises:
            InputError: ``E_GEOMETRY`` where the affine is broken or sheared too far, ``E_SPACING``
                and ``E_TOO_FEW_SLICES`` where it cannot be a CT's, ``E_TOO_LARGE``.
        """
        if max(shape) > LABEL_MAP_SIDE:
            raise InputError(
                f"the scan has {shape} voxels; along no axis can a label map have more than "
                f"{LABEL_MAP_SIDE}: crop it",
                code="E_TOO_LARGE",
            )
        check_affine(affine)
        return cls._of(_coded_header(affine, shape), affine, notes, shape, options)

    @classmethod
    def _of(
        cls,
        header: nib.Nifti1Header,
        affine: _Affine,
        notes: Sequence[str],
        shape: Triple,
        options: ReadingOptions,
    ) -> Self:
        degrees = shear_degrees(affine, options)
        straight, more = (affine, []) if degrees else snapped(affine, shape)
        order, flips = _axes(straight)
        back = _index_back(order, flips, shape)
        canonical = (shape[order[0]], shape[order[1]], shape[order[2]])
        geometry, shear = Geometry(canonical, RAS_TO_ZYX @ straight @ back), None
        if degrees:
            geometry, shear = orthogonal_grid(geometry.affine, canonical)
            more = [
                f"affine_sheared: axes off the right angle by {degrees:.2f} degrees; processed on "
                "an orthogonal grid, labels taken back by nearest neighbor"
            ]
            what = f"the orthogonal grid of {geometry.shape} voxels that the sheared scan needs"
            check_voxels(what, geometry.shape)
            if math.prod(geometry.shape) > MOST_GROWTH * math.prod(shape):
                raise InputError(
                    f"{what} is more than {MOST_GROWTH} times as large as the scan; are its voxel "
                    "sizes right?",
                    code="E_TOO_LARGE",
                )
            check_memory(what, 2 * math.prod(geometry.shape))  # HU in 16 bits, at the least
        if not options.labels:
            more += check_grid(geometry, options)
        return cls(
            header=_label_header(header, shape),
            shape=shape,
            affine=affine,
            order=order,
            flips=flips,
            geometry=geometry,
            notes=(*notes, *more),
            options=options,
            shear=shear,
        )

    def reading_bytes(self, dtype: np.dtype[Any]) -> int:
        """Return the memory that reading takes at its peak, of voxels stored as ``dtype``."""
        resampled = 0 if self.shear is None else math.prod(self.geometry.shape)
        return reading_bytes(math.prod(self.shape), dtype, resampled)

    def hu_to_canonical(self, stored: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Turn HU on the stored axes (I, J, K) to (Z, Y, X); outside of a sheared grid lies air."""
        turned = self._turned(stored)
        if self.shear is None:
            return turned
        # Padding far below air would bleed into its neighbors.
        clamped = np.maximum(turned, np.asarray(AIR_HU, dtype=turned.dtype))
        return resample(clamped, self.shear, self.geometry.shape, order=1, outside=AIR_HU)

    def to_canonical(self, stored: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Turn labels on the stored axes (I, J, K) to (Z, Y, X); contiguous, a copy if needed."""
        turned = self._turned(stored)
        if self.shear is None:
            return turned
        return resample(turned, self.shear, self.geometry.shape, order=0, outside=0)

    def to_stored(self, canonical: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Undo :meth:`to_canonical`: an array (Z, Y, X) to the stored axes (I, J, K).

        Exact, and a view, unless the grid is sheared: then each voxel takes the nearest one.
        """
        if canonical.shape != self.geometry.shape:
            raise ValueError(
                f"array of shape {canonical.shape} for a grid of shape {self.geometry.shape}"
            )
        if self.shear is not None:
            i, j, k = (self.shape[axis] for axis in self.order)
            back = np.asarray(np.linalg.inv(self.shear), dtype=np.float64)
            canonical = resample(canonical, back, (i, j, k), order=0, outside=0)
        inverse = tuple(self.order.index(axis) for axis in range(3))
        return canonical[self._reversal()].transpose(inverse)

    def _turned(self, stored: npt.NDArray[_T]) -> npt.NDArray[_T]:
        return np.ascontiguousarray(stored.transpose(self.order)[self._reversal()])

    def _reversal(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(None, None, -1 if flip else None) for flip in self.flips)
        return z, y, x


def _axes(affine: _Affine) -> tuple[Triple, tuple[bool, bool, bool]]:
    """Return for each of (z, y, x) the nearest stored axis and whether it runs the other way."""
    orientation = io_orientation(RAS_TO_ZYX @ affine)
    stored = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    z, y, x = (bool(orientation[axis, 1] < 0) for axis in stored)
    return (stored[0], stored[1], stored[2]), (z, y, x)


def _index_back(order: Triple, flips: tuple[bool, bool, bool], shape: Triple) -> _Affine:
    """Return the matrix from a canonical index (z, y, x, 1) to a stored index (i, j, k, 1)."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis, (stored, flip) in enumerate(zip(order, flips, strict=True)):
        matrix[stored, axis] = -1 if flip else 1
        matrix[stored, 3] = shape[stored] - 1 if flip else 0
    return matrix


_GEOMETRY_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
"""What a label map takes over of its scan's header, with the first four of ``pixdim``. The rest,
above all free text, describes the scan or the patient."""


def _label_header(header: nib.Nifti1Header, shape: Triple) -> nib.Nifti1Header:
    """Return a header for a uint8 label map on the same grid; only the geometry is the scan's."""
    kind = nib.Nifti2Header if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header
    made: nib.Nifti1Header = kind(endianness="<")  # type: ignore[no-untyped-call]
    made.set_data_shape(shape)
    made.set_data_dtype(np.uint8)
    made.set_slope_inter(1, 0)
    for field in _GEOMETRY_FIELDS:
        made[field] = header[field]
    for field in ("qform_code", "sform_code"):
        made[field] = _written_code(int(header[field]))
    made["pixdim"][0], made["pixdim"][1:4] = header["pixdim"][0], np.abs(header["pixdim"][1:4])
    made["descrip"] = b"cfseg label map"
    return made


def _written_code(code: int) -> int:
    """Return a code of qform or sform as nibabel can write it; of others it makes something else.

    A positive one that it does not know tells of a space all the same, a negative one of none.
    """
    known = code in xform_codes.value_set("code")
    return code if known else ALIGNED if code > 0 else 0


def _coded_header(affine: _Affine, shape: Triple) -> nib.Nifti1Header:
    """Return the NIfTI header of a grid in scanner coordinates.

    A qform cannot say that axes are sheared, so the sform alone does.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code=1)
    if angle_error(affine) <= SNAP_LIMIT:
        header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return header
