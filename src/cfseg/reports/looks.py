"""What a network learns from and what it has learned: windows of a batch, cases of a validation."""

# Matplotlib's Agg canvas is untyped.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import imsave

from cfseg.geometry import Geometry, Triple, TripleMm
from cfseg.io import replacing
from cfseg.reports.figures import (
    BACKGROUND,
    PLANES,
    WINDOW_CENTER_HU,
    WINDOW_WIDTH_HU,
    Plane,
    draw_legend,
    draw_panel,
    drawable,
    extent_mm,
)
from cfseg.reports.places import viewpoint
from cfseg.volume import LabelMap, Volume

MOST_WINDOWS, MOST_CASES = 4, 3
WHITE_Z_SCORE = 2.0
"""White in the picture of a window; minus so much is black. The statistics are of labelled voxels,
so organs lie between; as all windows share them, changes of brightness and contrast are seen."""
DPI = 100
_WIDTH_INCHES, _ROW_INCHES = 10.5, 3.4
_CAPTION_INCHES, _TITLE_INCHES, _LEGEND_INCHES, _GAP_INCHES = 0.6, 0.3, 0.75, 0.1
_LETTER_INCHES = 0.085

_Inches = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ValidationLook:
    """A case of a validation.

    Attributes:
        name: its id.
        hu: (Z, Y, X) in HU.
        truth: (Z, Y, X) uint8, the reference; 255 where nobody said what it is.
        found: (Z, Y, X) uint8, the prediction.
        spacing_mm: along (z, y, x).
        score: by which weights are chosen; None if it cannot be judged.
    """

    name: str
    hu: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    truth: npt.NDArray[np.uint8]
    found: npt.NDArray[np.uint8]
    spacing_mm: TripleMm
    score: float | None


@dataclass(frozen=True)
class _Panel:
    plane: Plane
    label_map: LabelMap
    name: str = ""


@dataclass(frozen=True)
class _Row:
    caption: str
    volume: Volume
    place: Triple
    panels: tuple[_Panel, ...]


def draw_windows(
    file: Path,
    scan: npt.NDArray[np.floating],
    labels: npt.NDArray[np.uint8],
    captions: Sequence[str],
    spacing_mm: TripleMm,
) -> None:
    """Write a PNG of windows as a network gets them: an axial, a coronal and a sagittal slice each.

    The slices go through the largest tumor, or else the middle of the organs.

    Args:
        file: ends in ``.png``; its folder is made if needed.
        scan: (B, Z, Y, X) z-scores; the first :data:`MOST_WINDOWS` are drawn.
        labels: (B, Z, Y, X), 255 is ignored.
        captions: of each window.
        spacing_mm: along (z, y, x).

    Raises:
        ValueError: there is no window, or shapes or numbers differ.
        ResourceError: the file cannot be written.
    """
    _write(windows_figure(scan, labels, captions, spacing_mm), file)


def windows_figure(
    scan: npt.NDArray[np.floating],
    labels: npt.NDArray[np.uint8],
    captions: Sequence[str],
    spacing_mm: TripleMm,
) -> Figure:
    """Return the figure that :func:`draw_windows` writes; axes carry row and plane as label."""
    windows = list(zip(scan, labels, captions, strict=True))[:MOST_WINDOWS]
    return _draw([_window_row(*window, spacing_mm) for window in windows])


def draw_validation(file: Path, cases: Sequence[ValidationLook]) -> None:
    """Write a PNG of cases: an axial and a coronal slice each, reference beside prediction.

    The slices go through the reference's largest tumor, or else the middle of its organs.

    Args:
        file: ends in ``.png``; its folder is made if needed.
        cases: the first :data:`MOST_CASES` are drawn.

    Raises:
        ValueError: there is no case, or the shapes of one differ.
        ResourceError: the file cannot be written.
    """
    _write(validation_figure(cases), file)


def validation_figure(cases: Sequence[ValidationLook]) -> Figure:
    """Return the figure that :func:`draw_validation` writes; axes are labelled ``0 name plane``."""
    return _draw([_case_row(case) for case in cases[:MOST_CASES]])


def _window_row(
    scan: npt.NDArray[np.floating],
    labels: npt.NDArray[np.uint8],
    caption: str,
    spacing_mm: TripleMm,
) -> _Row:
    geometry = Geometry.from_spacing(labels.shape, spacing_mm)
    label_map = LabelMap(labels, geometry)
    hu = WINDOW_CENTER_HU + scan.astype(np.float32) / WHITE_Z_SCORE * (WINDOW_WIDTH_HU / 2)
    panels = tuple(_Panel(plane, label_map) for plane in PLANES)
    return _Row(caption, Volume(hu, geometry), viewpoint(label_map), panels)


def _case_row(case: ValidationLook) -> _Row:
    geometry = Geometry.from_spacing(case.hu.shape, case.spacing_mm)
    truth, found = LabelMap(case.truth, geometry), LabelMap(case.found, geometry)
    caption = case.name if case.score is None else f"{case.name}: score {case.score:.3f}"
    panels = tuple(
        _Panel(plane, label_map, name)
        for plane in ("axial", "coronal")
        for name, label_map in (("reference", truth), ("prediction", found))
    )
    return _Row(caption, Volume(case.hu, geometry), viewpoint(truth, found), panels)


def _draw(rows: Sequence[_Row]) -> Figure:
    """Return a figure of rows.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("there is nothing to draw")
    sizes_mm = np.array([[extent_mm(row.volume, it.plane) for it in row.panels] for row in rows])
    heights_mm, widths_mm = sizes_mm[..., 0].max(axis=1), sizes_mm[..., 1].max(axis=0)
    inches = min(_WIDTH_INCHES / widths_mm.sum(), _ROW_INCHES / heights_mm.max())
    figure, grid = _figure(heights_mm * inches, widths_mm * inches)
    for number, row in enumerate(rows):
        for column, panel in enumerate(row.panels):
            label = " ".join(filter(None, (str(number), panel.name, panel.plane)))
            axes = figure.add_subplot(grid[number, column], label=label)
            _draw_panel(axes, row, panel, mm_per_pixel=1 / (inches * DPI))
        figure.axes[-len(row.panels)].set_ylabel(
            _wrapped(row.caption, heights_mm[number] * inches),
            color="white", fontsize=9, parse_math=False,
        )  # fmt: skip
    draw_legend(figure, [panel.label_map for row in rows for panel in row.panels])
    return figure


def _figure(heights: _Inches, widths: _Inches) -> tuple[Figure, GridSpec]:
    """Return an empty figure and a grid of panels of these sizes."""
    width = _CAPTION_INCHES + widths.sum() + _GAP_INCHES * len(widths)
    height = _LEGEND_INCHES + heights.sum() + _TITLE_INCHES * len(heights)
    figure = Figure((width, height), dpi=DPI, facecolor=BACKGROUND)
    return figure, figure.add_gridspec(
        len(heights), len(widths), height_ratios=heights, width_ratios=widths,
        left=_CAPTION_INCHES / width, right=1 - _GAP_INCHES / width,
        bottom=_LEGEND_INCHES / height, top=1 - _TITLE_INCHES / height,
        wspace=_GAP_INCHES / widths.mean(), hspace=_TITLE_INCHES / heights.mean(),
    )  # fmt: skip


def _draw_panel(axes: Axes, row: _Row, panel: _Panel, mm_per_pixel: float) -> None:
    draw_panel(axes, row.volume, panel.label_map, panel.plane, row.place, (0, 0, 0))
    if min(row.volume.geometry.spacing_mm) < mm_per_pixel:
        axes.images[0].set_interpolation("antialiased")  # to leave voxels out looks grainy
    if panel.name:
        axes.title.set_text(f"{panel.name}, {axes.get_title()}")


def _wrapped(text: str, inches: float) -> str:
    """Return a caption in up to three lines that are no longer than the row is high."""
    letters = max(8, int(inches / _LETTER_INCHES))
    return "\n".join(wrap(drawable(text), letters, max_lines=3, placeholder=" ..."))


def _write(figure: Figure, file: Path) -> None:
    """Write a PNG with 32 levels of each color: half as large, and 12 HU are about a CT's noise."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3] & 0xF8
    with replacing(file) as temporary:
        imsave(temporary, picture, format="png")
