"""Can a grid be that of a CT? Asked of the header, before any voxel is read."""

from cfseg.errors import InputError
from cfseg.geometry import Geometry
from cfseg.io.options import ReadingOptions

IN_PLANE_MM = (0.1, 5.0)
SLICE_MM = (0.1, 20.0)
THIN_SLICES = 15
THIN_MM = 40.0
ANISOTROPY_NOTED = 8.0


def check_grid(geometry: Geometry, options: ReadingOptions) -> list[str]:
    """Refuse a grid that cannot be a CT's, and return notes about one that can.

    Args:
        geometry: the canonical grid.
        options: say whether an implausible spacing is taken for right.

    Raises:
        InputError: ``E_TOO_FEW_SLICES`` or ``E_SPACING``.
    """
    if min(geometry.shape) < 2:
        raise InputError(
            f"the volume has {geometry.shape} voxels along (z, y, x); at least two slices are "
            "needed along each axis",
            code="E_TOO_FEW_SLICES",
        )
    return [*_spacing_notes(geometry, options), *_shape_notes(geometry)]


def _spacing_notes(geometry: Geometry, options: ReadingOptions) -> list[str]:
    allowed = (SLICE_MM, IN_PLANE_MM, IN_PLANE_MM)
    for axis, mm, (least, most) in zip("zyx", geometry.spacing_mm, allowed, strict=True):
        if least <= mm <= most:
            continue
        found = f"the spacing along {axis} is {mm:.4g} mm, outside {least} to {most} mm"
        if options.force_spacing:
            return [f"spacing_forced: {found}"]
        raise InputError(
            f"{found}; is the header in another unit than mm? Repair it, or pass --force-spacing "
            "if it is right",
            code="E_SPACING",
        )
    return []


def _shape_notes(geometry: Geometry) -> list[str]:
    notes = []
    slices, spacing_mm = geometry.shape[0], geometry.spacing_mm
    extent_mm = slices * spacing_mm[0]
    if slices <= THIN_SLICES or extent_mm < THIN_MM:
        notes.append(f"thin_volume: {slices} slices over {extent_mm:.0f} mm")
    ratio = max(spacing_mm) / min(spacing_mm)
    if ratio > ANISOTROPY_NOTED:
        notes.append(f"anisotropic: the longest spacing is {ratio:.1f} times the shortest")
    return notes
