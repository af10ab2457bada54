"""The slices of a DICOM series as one regular stack, or the reason why they are none.

Positions come from ImagePositionPatient along the normal of the slices, and from nothing else:
SliceLocation and SpacingBetweenSlices are often wrong.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.spatial import create_affine_matrix_from_attributes

from cfseg.errors import InputError
from cfseg.geometry import Triple
from cfseg.io.dicom_frames import Image
from cfseg.io.dicom_tags import as_shown, numbers
from cfseg.io.gaps import Filling, even_spacing, filling
from cfseg.tables import listed

SAME_PLACE_MM = 1e-3
SAME_DIRECTION = 1e-3
UNIT_TOLERANCE = 1e-2
"""Direction cosines are often rounded to a few digits."""
FAR_MM = 1e5
"""Nothing that a scanner measures lies or reaches farther."""
STRAY_SHARE = 0.2
"""Slices of another orientation are a localizer if they are at most this share of the stack."""

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """One CT image of a series, where it lies.

    Attributes:
        image: the image.
        position: (3,) of the first pixel, mm in LPS.
        orientation: (6,) direction cosines of a row and of a column.
        pixel_mm: distance between rows, between columns.
    """

    image: Image
    position: _Vector
    orientation: _Vector
    pixel_mm: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Number of columns and of rows."""
        return self.image.layout.columns, self.image.layout.rows

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
        return *self.slices[0].size, count


def make_slice(image: Image) -> Slice:
    """Take position and orientation out of the header of an image.

    Raises:
        InputError: ``E_GEOMETRY`` where one is missing or unusable.
    """
    spacing = _floats(image, "PixelSpacing", 2)
    orientation = _floats(image, "ImageOrientationPatient", 6)
    position = _floats(image, "ImagePositionPatient", 3)
    axes = orientation.reshape(2, 3)
    is_turn = (
        np.abs(np.linalg.norm(axes, axis=1) - 1).max() <= UNIT_TOLERANCE
        and abs(axes[0] @ axes[1]) <= SAME_DIRECTION
    )
    is_near = max(np.abs(position).max(), spacing.max()) <= FAR_MM
    if not is_turn or not is_near or spacing.min() <= 0:
        raise InputError(
            f"{image.name} has an unusable geometry: ImageOrientationPatient "
            f"{orientation.tolist()}, ImagePositionPatient {position.tolist()}, PixelSpacing "
            f"{spacing.tolist()} mm; export the series again",
            code="E_GEOMETRY",
        )
    return Slice(image, position, orientation, (float(spacing[0]), float(spacing[1])))


def _floats(image: Image, name: str, count: int) -> _Vector:
    found = numbers(image.header, name, count)
    if found is None:
        raise InputError(
            f"{image.name} does not say where it lies ({name} is {as_shown(image.header, name)}, "
            f"not {count} numbers); remove it from the folder if it is not part of the scan, else "
            "export the series again",
            code="E_GEOMETRY",
        )
    return np.array(found)


def by_place(slices: list[Slice]) -> list[list[Slice]]:
    """Return the slices in order of their places, those at one place together."""
    places: list[list[Slice]] = []
    for item in sorted(slices, key=_order):
        if places and _same_place(places[-1][0], item):
            places[-1].append(item)
        else:
            places.append([item])
    return places


def _order(item: Slice) -> tuple[object, ...]:
    image = item.image
    return *item.orientation.round(3), item.along_mm, image.path, image.frame or 0


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
    kept, dropped = [], []
    for first, *others in by_place(slices):
        kept.append(first)
        for item in others:
            if not np.array_equal(pixels(first), pixels(item)):
                raise InputError(
                    f"{first.image.name} and {item.image.name} lie at the same place but differ; "
                    "the series mixes two reconstructions: keep the files of one",
                    code="E_DUPLICATE_SLICES",
                )
            dropped.append(item.image.name)
    if not dropped:
        return kept, []
    return kept, [f"duplicates_dropped: {len(dropped)} identical slices: {listed(dropped)}"]


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
    names = listed([item.image.name for item in strays])
    kept = [item for item, same in zip(slices, near, strict=True) if same]
    return kept, [f"localizer_skipped: {len(strays)} slices of another orientation: {names}"]


def _check_uniform(slices: list[Slice]) -> None:
    first = slices[0]
    for item in slices[1:]:
        same = (
            item.size == first.size
            and np.allclose(item.pixel_mm, first.pixel_mm, rtol=1e-3)
            and np.abs(item.orientation - first.orientation).max() <= SAME_DIRECTION
        )
        if not same:
            raise InputError(
                f"{_described(item)} does not fit {_described(first)}; keep the files of one "
                "volume only",
                code="E_GEOMETRY",
            )


def _described(item: Slice) -> str:
    columns, rows = item.size
    return f"{item.image.name} ({columns} x {rows} pixels of {item.pixel_mm} mm)"


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
