"""The affine of a NIfTI header: which one counts, whether it can, and how skew it is."""

from collections.abc import Iterable
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from cfseg.errors import InputError
from cfseg.geometry import Triple
from cfseg.io.options import ReadingOptions
from cfseg.io.shear import angle_error

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM, MetaImage and NRRD count in the one, NIfTI in the other."""
SNAP_SILENT = 1e-5
SNAP_LIMIT = 1e-3
SHEAR_LIMIT_DEGREES = 30.0
QFORM_TOLERANCE_MM = 0.5
METER, MICRON = 1, 3
MOST_MM = 1e9
"""A thousand kilometers: far beyond any scan, and nothing that is computed of it overflows."""

_Affine = npt.NDArray[np.float64]


@np.errstate(over="ignore", invalid="ignore")  # of fields that are refused then
def stored_affine(
    header: nib.Nifti1Header, shape: Triple, options: ReadingOptions
) -> tuple[_Affine, list[str]]:
    """Return the affine that counts (sform before qform) after looking at the raw fields.

    nibabel would replace what is missing by a guess, and takes zooms from another field.
    """
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    assumed = options.assume_orientation if max(sform_code, qform_code) <= 0 else None
    if max(sform_code, qform_code) <= 0 and assumed is None:
        raise no_orientation(
            "the header has neither a coded qform nor a coded sform (both codes are 0)", options
        )
    unit = int(header["xyzt_units"])
    notes = unit_notes(f"xyzt_units = {unit}", options) if unit & 7 in (METER, MICRON) else []
    _check_zooms(header)
    if assumed is not None:
        notes.append(f"orientation_assumed: {assumed}, as the header has none")
        affine = assumed_affine(header["pixdim"][1:4], assumed)
        check_affine(affine)
        return affine, notes
    affine = header.get_sform() if sform_code > 0 else _qform(header)
    affine = np.asarray(affine, dtype=np.float64)
    check_affine(affine)
    if sform_code > 0 and qform_code > 0:
        notes += _qform_note(header, affine, shape)
    return affine, notes


def no_orientation(cause: str, options: ReadingOptions) -> InputError:
    """Return the refusal of a file that does not say where its axes point to."""
    advice = options.advice(
        "convert the scan again from its source, or say where its axes point to if you know it, as "
        "in --assume-orientation LAS"
    )
    return InputError(
        f"{cause}, so left and right cannot be told apart; {advice}", code="E_ORIENTATION"
    )


def unit_notes(unit: str, options: ReadingOptions) -> list[str]:
    """Refuse a unit of length that is not millimetre, or note that it is taken for it.

    Args:
        unit: as the header names it.
        options: say whether it is.

    Raises:
        InputError: ``E_SPACING``.
    """
    if options.force_spacing:
        return [f"spacing_forced: taken for mm, although the header's unit is {unit}"]
    advice = options.advice(
        "rescale the scan's grid to mm and say so, or pass --force-spacing if it is in mm already"
    )
    raise InputError(
        f"the header's unit of length is not millimetre but {unit}; {advice}", code="E_SPACING"
    )


def assumed_affine(spacing_mm: Iterable[float], letters: str) -> _Affine:
    """Return the affine of stored axes that point to what the letters say, origin at zero."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for stored, (letter, mm) in enumerate(zip(letters, spacing_mm, strict=True)):
        axis = next(a for a, ends in enumerate(("LR", "PA", "IS")) if letter in ends)
        affine[axis, stored] = abs(float(mm)) * (1 if letter in "RAS" else -1)
    return affine


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


def check_affine(affine: _Affine) -> None:
    """Refuse an affine that is singular, not finite or beyond :data:`MOST_MM`.

    Raises:
        InputError: ``E_GEOMETRY``.
    """
    if not (np.abs(affine) <= MOST_MM).all():
        raise InputError(
            "the affine holds values that are not finite, or larger than any scan: "
            f"{'; '.join(_numbers(row) for row in affine[:3])}; convert the scan again",
            code="E_GEOMETRY",
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths < 1 / MOST_MM).any():
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
        check_affine(qform)
    except InputError:
        return ["qform_ignored: the qform is broken, the sform is used"]
    corners = np.array([[*c, 1.0] for c in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in shape), 1]
    apart_mm = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if apart_mm <= QFORM_TOLERANCE_MM:
        return []
    return [f"qform_ignored: qform and sform lie up to {apart_mm:.2f} mm apart, the sform is used"]


def shear_degrees(affine: _Affine, options: ReadingOptions) -> float:
    """Return by how much the axes are off the right angle, 0 if too little to resample for.

    Raises:
        InputError: ``E_GEOMETRY``, it is too much, or not wanted.
    """
    error = angle_error(affine)
    degrees = float(np.degrees(np.arcsin(min(error, 1.0))))
    if error <= SNAP_LIMIT:
        return 0.0
    sheared = f"the axes are sheared by {degrees:.2f} degrees (a tilted gantry?)"
    if degrees > SHEAR_LIMIT_DEGREES:
        raise InputError(
            f"{sheared}, more than {SHEAR_LIMIT_DEGREES:g}; resample the scan to an orthogonal "
            "grid",
            code="E_GEOMETRY",
        )
    if options.strict_geometry:
        raise InputError(
            f"{sheared}; leave out --strict-geometry to have it resampled for the networks",
            code="E_GEOMETRY",
        )
    return degrees


def snapped(affine: _Affine, shape: Triple) -> tuple[_Affine, list[str]]:
    """Return the affine with orthogonal axes, turned about the volume's centre if off by little."""
    error = angle_error(affine)
    if error <= SNAP_SILENT:
        return affine, []
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(affine[:3, :3] / lengths)
    straight = affine.copy()
    straight[:3, :3] = (u @ vt) * lengths
    center = (np.asarray(shape, dtype=np.float64) - 1) / 2
    straight[:3, 3] += (affine[:3, :3] - straight[:3, :3]) @ center
    return straight, [f"affine_snapped: axes were off the right angle by {error:.1e}"]


def _numbers(values: Any) -> str:  # noqa: ANN401 - anything that numpy flattens
    return ", ".join(f"{float(value):.4g}" for value in np.ravel(values))
