"""The grid of an input file, and the exact way from it to the canonical axes and back.

nibabel's affines map a stored index to millimetres in RAS (x right, y front, z up); cfseg counts
(z, y, x) with z up, y back, x left. Only the order and the direction of the axes change, so the
way back is exact; what rotation is left stays in the affine.
"""

from dataclasses import dataclass
from typing import Any, Self, TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError

from cfseg.errors import InputError
from cfseg.geometry import Geometry, Triple

RAS_TO_ZYX = np.array([[0, 0, 1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
"""(x right, y front, z up) to (z up, y back, x left): a swap and two signs."""

SNAP_SILENT = 1e-5
SNAP_LIMIT = 1e-3
QFORM_TOLERANCE_MM = 0.5
METER, MICRON = 1, 3

_T = TypeVar("_T", bound=np.generic)
_Affine = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SourceGrid:
    """Everything needed to lay a label map back onto the grid of an input.

    Attributes:
        header: the input's NIfTI header, made ready for a uint8 label map; sform, qform, their
            codes and the zooms are the input's own. A DICOM series gets one made from its geometry.
        shape: voxels along the stored axes (i, j, k).
        affine: (4, 4), stored index to millimetres in RAS, as in the header.
        order: for each of (z, y, x), the stored axis that runs along it.
        flips: for each of (z, y, x), whether the stored axis runs the other way.
        geometry: the canonical grid. Its axes are made orthogonal where ``affine`` is off by less
            than :data:`SNAP_LIMIT`.
        notes: what had to be decided about the geometry.
    """

    header: nib.Nifti1Header
    shape: Triple
    affine: _Affine
    order: Triple
    flips: tuple[bool, bool, bool]
    geometry: Geometry
    notes: tuple[str, ...] = ()

    @classmethod
    def from_header(cls, header: nib.Nifti1Header, shape: Triple) -> Self:
        """Return the grid that a NIfTI header describes for an array of ``shape`` (i, j, k).

        Raises:
            InputError: ``E_ORIENTATION`` without qform and sform, ``E_GEOMETRY`` where the affine
                is broken or sheared, ``E_SPACING`` for a header in metres.
        """
        affine, notes = _stored_affine(header, shape)
        straight, snapped = _orthogonal(affine, shape)
        order, flips = _axes(straight)
        back = _index_back(order, flips, shape)
        canonical = (shape[order[0]], shape[order[1]], shape[order[2]])
        geometry = Geometry(canonical, RAS_TO_ZYX @ straight @ back)
        return cls(
            header=_label_header(header, shape),
            shape=shape,
            affine=affine,
            order=order,
            flips=flips,
            geometry=geometry,
            notes=(*notes, *snapped),
        )

    def to_canonical(self, stored: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Turn an array on the stored axes (I, J, K) to (Z, Y, X); contiguous, a copy if needed."""
        return np.ascontiguousarray(stored.transpose(self.order)[self._reversal()])

    def to_stored(self, canonical: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Undo :meth:`to_canonical`: an array (Z, Y, X) to the stored axes (I, J, K), a view."""
        if canonical.shape != self.geometry.shape:
            raise ValueError(
                f"array of shape {canonical.shape} for a grid of shape {self.geometry.shape}"
            )
        inverse = tuple(self.order.index(axis) for axis in range(3))
        return canonical[self._reversal()].transpose(inverse)

    def _reversal(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(None, None, -1 if flip else None) for flip in self.flips)
        return z, y, x


def _stored_affine(header: nib.Nifti1Header, shape: Triple) -> tuple[_Affine, list[str]]:
    """Return the affine that counts (sform before qform) after looking at the raw fields.

    nibabel would replace what is missing by a guess, and takes zooms from another field.
    """
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        raise InputError(
            "the header has neither a coded qform nor a coded sform (both codes are 0), so left "
            "and right cannot be told apart; convert the scan again from its source, or set the "
            "sform if you know the orientation",
            code="E_ORIENTATION",
        )
    if int(header["xyzt_units"]) & 7 in (METER, MICRON):
        raise InputError(
            "the header's unit of length is not millimetre (xyzt_units = "
            f"{int(header['xyzt_units'])}); rescale the affine to mm and set the unit to 2",
            code="E_SPACING",
        )
    _check_zooms(header)
    affine = header.get_sform() if sform_code > 0 else _qform(header)
    affine = np.asarray(affine, dtype=np.float64)
    _check_affine(affine)
    if sform_code > 0 and qform_code > 0:
        return affine, _qform_note(header, affine, shape)
    return affine, []


def _check_zooms(header: nib.Nifti1Header) -> None:
    zooms = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(zooms).all() or (zooms == 0).any():
        raise InputError(
            f"the header's voxel size is {_numbers(zooms)} mm; repair pixdim[1..3]",
            code="E_GEOMETRY",
        )


def _qform(header: nib.Nifti1Header) -> _Affine:
    quaternion = [float(header[f"quatern_{name}"]) for name in "bcd"]
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputError(
            f"the qform cannot be used: quaternion {_numbers(quaternion)}, voxel size "
            f"{_numbers(header['pixdim'][1:4])} ({error}); convert the scan again",
            code="E_GEOMETRY",
        ) from error


def _check_affine(affine: _Affine) -> None:
    if not np.isfinite(affine).all():
        raise InputError(
            "the affine holds values that are not finite: "
            f"{'; '.join(_numbers(row) for row in affine[:3])}; convert the scan again",
            code="E_GEOMETRY",
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths == 0).any():
        raise InputError(
            f"an axis of the affine has length zero (spacing {_numbers(lengths)} mm); convert the "
            "scan again",
            code="E_GEOMETRY",
        )
    volume = abs(float(np.linalg.det(affine[:3, :3] / lengths)))
    if volume < 1e-3:
        raise InputError(
            f"the affine is singular: its axes span a unit volume of {volume:.2g}; convert the "
            "scan again",
            code="E_GEOMETRY",
        )


def _qform_note(header: nib.Nifti1Header, sform: _Affine, shape: Triple) -> list[str]:
    try:
        qform = _qform(header)
    except InputError:
        return ["qform_ignored: the qform is broken, the sform is used"]
    corners = np.array([[*c, 1.0] for c in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in shape), 1]
    apart_mm = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if apart_mm <= QFORM_TOLERANCE_MM:
        return []
    return [f"qform_ignored: qform and sform lie up to {apart_mm:.2f} mm apart, the sform is used"]


def _orthogonal(affine: _Affine, shape: Triple) -> tuple[_Affine, list[str]]:
    """Return the affine with orthogonal axes, turned about the volume's centre if off by little."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / lengths
    error = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if error <= SNAP_SILENT:
        return affine, []
    if error > SNAP_LIMIT:
        degrees = float(np.degrees(np.arcsin(min(error, 1.0))))
        raise InputError(
            f"the axes are sheared by {degrees:.2f} degrees (a tilted gantry?), which cfseg cannot "
            "process yet; resample the scan to an orthogonal grid",
            code="E_GEOMETRY",
        )
    u, _, vt = np.linalg.svd(axes)
    straight = affine.copy()
    straight[:3, :3] = (u @ vt) * lengths
    center = (np.asarray(shape, dtype=np.float64) - 1) / 2
    straight[:3, 3] += (affine[:3, :3] - straight[:3, :3]) @ center
    return straight, [f"affine_snapped: axes were off the right angle by {error:.1e}"]


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


def _label_header(header: nib.Nifti1Header, shape: Triple) -> nib.Nifti1Header:
    """Return a copy of the header that describes a uint8 label map on the same grid."""
    made: nib.Nifti1Header = header.as_byteswapped("<")
    made.extensions = type(made.extensions)()
    made.set_data_shape(shape)
    made.set_data_dtype(np.uint8)
    made.set_slope_inter(1, 0)
    made.set_data_offset(0)
    made.set_intent("none")
    for field in ("cal_min", "cal_max"):
        made[field] = 0
    made["descrip"] = b"cfseg label map"
    made["aux_file"] = b""
    return made


def _numbers(values: Any) -> str:  # noqa: ANN401 - anything that numpy flattens
    return ", ".join(f"{float(value):.4g}" for value in np.ravel(values))
