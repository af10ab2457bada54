"""The slices of a DICOM series as one regular stack, or the reason why they are none.

Positions come from ImagePositionPatient along the normal of the slices, and from nothing else:
SliceLocation and SpacingBetweenSlices are often wrong.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.spatial import create_affine_matrix_from_attributes
from pydicom.dataset import Dataset

from cfseg.errors import InputError
from cfseg.geometry import Triple
from cfseg.io.gaps import Filling, even_spacing, filling

SAME_PLACE_MM = 1e-3
SAME_DIRECTION = 1e-3
STRAY_SHARE = 0.2
"""Slices of another orientation are a localizer if they are at most this share of the stack."""

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """One CT image of a series.

    Attributes:
        path: its file.
        header: its dataset without the pixels.
        position: (3,) of the first pixel, mm in LPS.
        orientation: (6,) direction cosines of a row and of a column.
        pixel_mm: distance between rows, between columns.
        rows: number of rows.
        columns: number of columns.
    """

    path: Path
    header: Dataset
    position: _Vector
    orientation: _Vector
    pixel_mm: tuple[float, float]
    rows: int
    columns: int

    @property
    def normal(self) -> _Vector:
        """(3,) unit vector that makes (column, row, slice) right-handed."""
        return np.asarray(np.cross(self.orientation[:3], self.orientation[3:]), dtype=np.float64)

    @property
    def along_mm(self) -> float:
        """Position along the normal."""
        return float(self.position @ self.normal)


@dataclass(frozen=True)
class Stack:
    """Slices in order along their normal, evenly spaced.

    Attributes:
        slices: ascending along the normal.
        affine_lps: (4, 4), index (column, row, slice) to mm in LPS.
        filling: makes them even, where they are not.
    """

    slices: tuple[Slice, ...]
    affine_lps: npt.NDArray[np.float64]
    filling: Filling | None = None

    @property
    def shape(self) -> Triple:
        """Number of columns, rows and slices, with those that are filled in."""
        count = len(self.slices) if self.filling is None else self.filling.count
        return self.slices[0].columns, self.slices[0].rows, count


def make_slice(path: Path, header: Dataset) -> Slice:
    """Take position and orientation out of a header.

    Raises:
        InputError: ``E_GEOMETRY`` where one is missing or unusable, ``E_FORMAT`` for a
            multi-frame file.
    """
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(
            f"{path} is a multi-frame DICOM file, which cfseg cannot read yet; convert it to "
            "NIfTI, for example with dcm2niix",
            code="E_FORMAT",
        )
    spacing = _floats(path, header, "PixelSpacing", 2)
    orientation = _floats(path, header, "ImageOrientationPatient", 6)
    if abs(float(orientation[:3] @ orientation[3:])) > SAME_DIRECTION or (spacing <= 0).any():
        raise InputError(
            f"{path} has an unusable geometry: orientation {orientation.tolist()}, pixel spacing "
            f"{spacing.tolist()} mm",
            code="E_GEOMETRY",
        )
    return Slice(
        path=path,
        header=header,
        position=_floats(path, header, "ImagePositionPatient", 3),
        orientation=orientation,
        pixel_mm=(float(spacing[0]), float(spacing[1])),
        rows=int(header.Rows),
        columns=int(header.Columns),
    )


def _floats(path: Path, header: Dataset, name: str, count: int) -> _Vector:
    try:
        values = np.array([float(value) for value in header.get(name) or []], dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array([])
    if values.size != count or not np.isfinite(values).all():
        raise InputError(
            f"{path} does not say where it lies ({name} is missing or unusable); remove it from "
            "the folder if it is not part of the scan, else export the series again",
            code="E_GEOMETRY",
        )
    return values


def drop_duplicates(
    slices: list[Slice], pixels: Callable[[Slice], npt.NDArray[Any]]
) -> tuple[list[Slice], list[str]]:
    """Drop slices that lie where another lies and hold the same pixels.

    Args:
        slices: of one series, in any order.
        pixels: reads the stored values of a slice.

    Raises:
        InputError: ``E_DUPLICATE_SLICES`` where two slices at one place differ.
    """
    kept: list[Slice] = []
    dropped = []
    for item in sorted(slices, key=lambda s: (*s.orientation.round(3), s.along_mm, s.path)):
        if not kept or not _same_place(kept[-1], item):
            kept.append(item)
        elif np.array_equal(pixels(kept[-1]), pixels(item)):
            dropped.append(item.path.name)
        else:
            raise InputError(
                f"{kept[-1].path.name} and {item.path.name} lie at the same place but differ; "
                "the folder mixes two reconstructions: keep one",
                code="E_DUPLICATE_SLICES",
            )
    if not dropped:
        return kept, []
    return kept, [f"duplicates_dropped: {len(dropped)} identical slices: {', '.join(dropped[:5])}"]


def _same_place(a: Slice, b: Slice) -> bool:
    return (
        float(np.abs(a.position - b.position).max()) <= SAME_PLACE_MM
        and float(np.abs(a.orientation - b.orientation).max()) <= SAME_DIRECTION
    )


def build_stack(slices: list[Slice], *, allow_gaps: bool = False) -> tuple[Stack, list[str]]:
    """Order slices along their normal and check that they make a regular volume.

    A stack that does not run along its normal (a tilted gantry) gets a sheared affine.

    Args:
        slices: of one series, in any order.
        allow_gaps: fill in what is missing or lies unevenly.

    Returns:
        The stack and notes about slices left aside.

    Raises:
        InputError: ``E_GEOMETRY`` (mixed orientation, matrix or pixel size),
            ``E_MISSING_SLICES``, ``E_SPACING_IRREGULAR`` or ``E_TOO_FEW_SLICES``.
    """
    slices, notes = _main_orientation(slices)
    _check_uniform(slices)
    if len(slices) < 2:
        raise InputError(
            f"the series has {len(slices)} slice; at least two are needed",
            code="E_TOO_FEW_SLICES",
        )
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda item: float(item.position @ normal))
    positions = np.array([item.position for item in ordered])
    filled = filling(positions @ normal) if allow_gaps else None
    if filled is None:
        spacing_mm = even_spacing(positions @ normal)
    else:
        spacing_mm = filled.spacing_mm
        notes.append(f"gaps_filled: {filled.made} of {filled.count} slices are interpolated")
    first = ordered[0]
    affine = np.asarray(
        create_affine_matrix_from_attributes(
            image_position=first.position.tolist(),
            image_orientation=first.orientation.tolist(),
            pixel_spacing=list(first.pixel_mm),
            spacing_between_slices=spacing_mm,
        ),
        dtype=np.float64,
    )
    affine[:3, 2] = _direction(positions, normal) * spacing_mm
    return Stack(tuple(ordered), affine, filled), notes


def _main_orientation(slices: list[Slice]) -> tuple[list[Slice], list[str]]:
    """Leave a few slices of another orientation aside: a localizer that does not say so."""
    keys = [tuple(item.orientation.round(2) + 0.0) for item in slices]
    main, count = Counter(keys).most_common(1)[0]
    near = [bool(np.abs(np.subtract(key, main)).max() <= 0.02) for key in keys]
    strays = [item for item, same in zip(slices, near, strict=True) if not same]
    if not strays:
        return slices, []
    if len(strays) > STRAY_SHARE * count:
        raise InputError(
            f"the slices of the series have {len(set(keys))} different orientations; keep the "
            "files of one volume only",
            code="E_GEOMETRY",
        )
    names = ", ".join(item.path.name for item in strays[:5])
    kept = [item for item, same in zip(slices, near, strict=True) if same]
    return kept, [f"localizer_skipped: {len(strays)} slices of another orientation: {names}"]


def _check_uniform(slices: list[Slice]) -> None:
    first = slices[0]
    for item in slices[1:]:
        same = (
            (item.rows, item.columns) == (first.rows, first.columns)
            and np.allclose(item.pixel_mm, first.pixel_mm, rtol=1e-3)
            and np.abs(item.orientation - first.orientation).max() <= SAME_DIRECTION
        )
        if not same:
            raise InputError(
                f"{item.path.name} ({item.columns} x {item.rows} pixels of {item.pixel_mm} mm) "
                f"does not fit {first.path.name} ({first.columns} x {first.rows} of "
                f"{first.pixel_mm} mm); keep the files of one volume only",
                code="E_GEOMETRY",
            )


def _direction(positions: npt.NDArray[np.float64], normal: _Vector) -> _Vector:
    """Return (3,) the way from slice to slice, scaled to 1 mm along the normal.

    It is the normal itself, unless the gantry was tilted.

    Raises:
        InputError: ``E_GEOMETRY``, the slices do not lie on a straight line.
    """
    along = positions - positions[0]
    run = along[-1] / (along[-1] @ normal)
    sideways = float(np.linalg.norm(run - normal))
    straight: _Vector = normal if sideways <= SAME_DIRECTION else run
    off_mm = np.linalg.norm(along - np.outer(along @ normal, straight), axis=1)
    if off_mm.max() > 1.0:
        raise InputError(
            f"a slice lies {off_mm.max():.1f} mm beside the others; keep the files of one volume",
            code="E_GEOMETRY",
        )
    return straight
