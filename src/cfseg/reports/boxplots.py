"""Box plots per label for the page of a cohort."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfseg.labels import LABELS
from cfseg.reports.page import data_url

DPI = 150
FEWEST = 3
"""A box is drawn for so many values or more; of fewer only the values."""


def box_plot(values: Mapping[str, Sequence[float]], axis: str, *, log: bool = False) -> str:
    """Return a box plot as the URL of a PNG: one row per label, a dot for each case.

    Args:
        values: by label name; labels without values are left out.
        axis: what the values are, with their unit.
        log: draw on a logarithmic axis; else the axis goes from 0 to 1.
    """
    figure = draw_boxes(values, axis, log=log)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return data_url(stream.getvalue(), "image/png")


def draw_boxes(values: Mapping[str, Sequence[float]], axis: str, *, log: bool = False) -> Figure:
    """Return the figure that :func:`box_plot` embeds."""
    shown = [label for label in LABELS if values.get(label.name)]
    figure = Figure(figsize=(6.4, 0.6 + 0.27 * max(1, len(shown))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, label in enumerate(shown):
        numbers = list(values[label.name])
        color = tuple(value / 255 for value in label.color)
        if len(numbers) >= FEWEST:
            axes.boxplot(
                [numbers], positions=[-row], orientation="horizontal", widths=0.62,
                patch_artist=True, showfliers=False, manage_ticks=False,
                boxprops={"facecolor": (*color, 0.55), "edgecolor": "#333d47", "linewidth": 0.8},
                medianprops={"color": "#10161c", "linewidth": 1.4},
                whiskerprops={"color": "#333d47", "linewidth": 0.8},
                capprops={"color": "#333d47", "linewidth": 0.8},
            )  # fmt: skip
        axes.scatter(numbers, [-row] * len(numbers), s=9, color="#10161c", alpha=0.65, zorder=3)
    axes.set_yticks([-row for row in range(len(shown))], [_words(label.name) for label in shown])
    axes.set_ylim(-len(shown) + 0.4, 0.6)
    if log:
        axes.set_xscale("log")
    else:
        axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(axis, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.grid(axis="x", color="#e2e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _words(name: str) -> str:
    return name.replace("_", " ")
