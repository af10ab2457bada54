"""Pictures of a case: the CT with prediction and reference laid over it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch

from cfseg.geometry import Box, Triple, TripleMm
from cfseg.io import replacing
from cfseg.labels import IGNORE, LABELS, Label
from cfseg.reports.places import viewpoint
from cfseg.tables import shown
from cfseg.volume import LabelMap, Volume

WINDOW_CENTER_HU, WINDOW_WIDTH_HU = 40.0, 400.0
OPACITY = 0.35
DPI = 110
_PANEL_INCHES = 4.2
BACKGROUND = "#101418"
_IGNORED_COLOR, _STRIPE_PIXELS = (0.85, 0.85, 0.85), 6

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

_Rgb = npt.NDArray[np.float32]
_Ids = npt.NDArray[np.uint8]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class _View:
    """How a plane is shown: the axis it is cut across, and the letters at its edges.

    Patients are seen as radiologists see them: from below, from the front, from their left.
    """

    axis: int
    left: str
    right: str


_VIEWS: dict[Plane, _View] = {
    "axial": _View(0, "R", "L"),
    "coronal": _View(1, "R", "L"),
    "sagittal": _View(2, "A", "P"),
}


def montage(
    volume: Volume,
    prediction: LabelMap,
    reference: LabelMap | None,
    path: Path,
    title: str = "",
) -> None:
    """Write a PNG: axial, coronal and sagittal slice, a row each for reference and prediction.

    The slices go through the largest tumor of the reference, or else the middle of its organs;
    without a reference the prediction decides.

    Args:
        volume: (Z, Y, X) in HU.
        prediction: on the volume's grid.
        reference: on the volume's grid, or None for one row only.
        path: ends in ``.png``; its folder is made if needed.
        title: one line above the picture.

    Raises:
        ValueError: the grids have different shapes.
        ResourceError: the file cannot be written.
    """
    figure = draw_montage(volume, prediction, reference, title)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor=BACKGROUND)


def draw_montage(
    volume: Volume,
    prediction: LabelMap,
    reference: LabelMap | None,
    title: str = "",
    place: Triple | None = None,
    box: Box | None = None,
) -> Figure:
    """Return the figure that :func:`montage` writes; axes carry row and plane as their label.

    Args:
        volume: (Z, Y, X) in HU.
        prediction: on the volume's grid.
        reference: on the volume's grid, or None for one row only.
        title: one line above the picture.
        place: the voxel that the slices go through; by default the one that :func:`montage` takes.
        box: the part of the scan to show; it holds the place. All of it by default.

    Raises:
        ValueError: the grids have different shapes.
    """
    rows = {"prediction": prediction} if reference is None else {"reference": reference}
    rows["prediction"] = prediction
    for label_map in rows.values():
        if label_map.geometry.shape != volume.geometry.shape:
            raise ValueError(
                f"label map of shape {label_map.geometry.shape} on a volume of shape "
                f"{volume.geometry.shape}"
            )
    place = place or viewpoint(*rows.values())
    box = box or Box.whole(volume.geometry.shape)
    volume, rows = volume.crop(box), {name: it.crop(box) for name, it in rows.items()}
    widths_mm = [extent_mm(volume, plane)[1] for plane in PLANES]
    height_mm = max(extent_mm(volume, plane)[0] for plane in PLANES)
    figure = _figure(len(rows), sum(widths_mm) / height_mm)
    grid = figure.add_gridspec(
        len(rows), len(PLANES), width_ratios=widths_mm, **_margins(figure, bool(title))
    )
    for row, (name, label_map) in enumerate(rows.items()):
        for column, plane in enumerate(PLANES):
            axes = figure.add_subplot(grid[row, column], label=f"{name} {plane}")
            draw_panel(axes, volume, label_map, plane, place, box.start)
        figure.axes[-len(PLANES)].set_ylabel(name, color="white", fontsize=12)
    if title:
        figure.suptitle(
            drawable(title), color="white", fontsize=12, y=1 - 0.15 / figure.get_figheight(),
            parse_math=False,
        )  # fmt: skip
    draw_legend(figure, list(rows.values()))
    return figure


def overlay(hu: npt.NDArray[np.generic], ids: _Ids) -> _Rgb:
    """Return a slice in gray with its labels in color: translucent inside, opaque outlines.

    Args:
        hu: (H, W) in HU.
        ids: (H, W) labels, or :data:`IGNORE`.

    Returns:
        (H, W, 3) float32, 0..1.
    """
    low = WINDOW_CENTER_HU - WINDOW_WIDTH_HU / 2
    gray = np.clip((hu.astype(np.float32) - low) / WINDOW_WIDTH_HU, 0, 1)
    colors = _color_table()[ids]
    opacity = _opacity(ids)[..., None]
    return np.asarray(gray[..., None] * (1 - opacity) + colors * opacity, dtype=np.float32)


def _opacity(ids: _Ids) -> _Rgb:
    """Return how much of each pixel is its label's color, (H, W)."""
    labelled = np.where(_outline(ids), 1.0, OPACITY)
    striped = np.where(np.indices(ids.shape).sum(axis=0) % _STRIPE_PIXELS, 0.0, OPACITY)
    return np.select([ids == 0, ids == IGNORE], [0.0, striped], labelled).astype(np.float32)


def _outline(ids: _Ids) -> npt.NDArray[np.bool_]:
    """Return the labelled pixels that touch another label by an edge."""
    padded = np.pad(ids, 1)
    inner = padded[1:-1, 1:-1]
    edge = np.zeros(ids.shape, dtype=np.bool_)
    for neighbor in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        edge |= neighbor != inner
    return edge & (ids > 0)


def _color_table() -> _Rgb:
    table = np.zeros((256, 3), dtype=np.float32)
    for label in LABELS:
        table[label.id] = _unit_color(label)
    table[IGNORE] = _IGNORED_COLOR
    return table


def _unit_color(label: Label) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in label.color)
    return red, green, blue


def _cut(array: npt.NDArray[_T], view: _View, index: int) -> npt.NDArray[_T]:
    slices: npt.NDArray[_T] = np.moveaxis(array, view.axis, 0)
    return np.asarray(slices[index])


def _in_plane_mm(spacing_mm: TripleMm, view: _View) -> tuple[float, float]:
    row_mm, column_mm = (mm for axis, mm in enumerate(spacing_mm) if axis != view.axis)
    return row_mm, column_mm


def extent_mm(volume: Volume, plane: Plane) -> tuple[float, float]:
    """Return how high and how wide a volume's slices of a plane are, in mm."""
    view = _VIEWS[plane]
    row_mm, column_mm = _in_plane_mm(volume.geometry.spacing_mm, view)
    rows, columns = (n for axis, n in enumerate(volume.geometry.shape) if axis != view.axis)
    return rows * row_mm, columns * column_mm


def draw_panel(
    axes: Axes, volume: Volume, label_map: LabelMap, plane: Plane, place: Triple, start: Triple
) -> None:
    """Draw a slice of a crop that begins at ``start``; ``place`` is an index of the whole scan."""
    view = _VIEWS[plane]
    index = place[view.axis] - start[view.axis]
    picture = overlay(_cut(volume.hu, view, index), _cut(label_map.ids, view, index))
    row_mm, column_mm = _in_plane_mm(volume.geometry.spacing_mm, view)
    # Rows run to the back in an axial slice and towards the head in the others.
    origin: Literal["upper", "lower"] = "upper" if plane == "axial" else "lower"
    axes.imshow(picture, origin=origin, aspect=row_mm / column_mm, interpolation="nearest")
    axes.set_facecolor(BACKGROUND)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for text, x in ((view.left, 0.02), (view.right, 0.98)):
        axes.text(
            x,
            0.5,
            text,
            color="white",
            fontsize=11,
            fontweight="bold",
            ha="left" if x < 0.5 else "right",
            va="center",
            transform=axes.transAxes,
        )
    axes.set_title(f"{plane}, {'zyx'[view.axis]} = {place[view.axis]}", color="#b0b8c0", fontsize=9)


def _figure(rows: int, panels_width: float) -> Figure:
    width = max(7.0, _PANEL_INCHES * panels_width + 0.6)
    figure = Figure(figsize=(width, rows * (_PANEL_INCHES + 0.3) + 1.2), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    return figure


def _margins(figure: Figure, has_title: bool) -> dict[str, float]:
    width, height = figure.get_size_inches()
    return {
        "left": 0.4 / width,
        "right": 1 - 0.1 / width,
        "bottom": 0.75 / height,
        "top": 1 - (0.7 if has_title else 0.4) / height,
        "wspace": 0.03,
        "hspace": 0.08,
    }


def drawable(text: str) -> str:
    """Return foreign text for a picture: what is not seen or not in its font, as escapes."""
    drawn = get_font(findfont(FontProperties())).get_charmap()
    return "".join(
        it if ord(it) in drawn else it.encode("ascii", "backslashreplace").decode("ascii")
        for it in shown(text)
    )


def draw_legend(figure: Figure, label_maps: list[LabelMap]) -> None:
    """Name the labels that any of the maps has, at the foot of a figure."""
    present = set().union(*(np.unique(label_map.ids).tolist() for label_map in label_maps))
    handles = [
        Patch(color=_unit_color(label), label=label.name.replace("_", " "))
        for label in LABELS
        if label.id in present
    ]
    if IGNORE in present:
        handles.append(
            Patch(fill=False, edgecolor=_IGNORED_COLOR, hatch="////", linewidth=0, label="ignored")
        )
    if handles:
        figure.legend(
            handles=handles,
            loc="lower center",
            ncols=min(len(handles), 7, int(figure.get_figwidth() / 1.55)),
            frameon=False,
            labelcolor="white",
            fontsize=9,
        )
