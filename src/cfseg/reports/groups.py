"""A picture of a cohort's groups, after the paper's Fig. 1, and of which labels are annotated."""

from collections import Counter
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfseg.dataset.groups import MEANING, Grouping
from cfseg.io import replacing
from cfseg.labels import LABELS

DPI = 110
SPLITS = ((1, 2), (3, 4), (5, 6))
"""Fig. 1 a, b and c: all cases, the labelled ones, those without a tumor."""
_COLORS = {1: "#9aa5b1", 2: "#3f72af", 3: "#8fb8de", 4: "#c8553d", 5: "#e9c46a", 6: "#2a9d8f"}
_NARROW = 0.12
"""Share of the cases below which a group's text does not fit into its bar."""


def groups_figure(grouping: Grouping, path: Path) -> None:
    """Write a PNG of a cohort's groups.

    Args:
        grouping: the cohort in groups.
        path: ends in ``.png``; its folder is made if needed.

    Raises:
        ResourceError: the file cannot be written.
    """
    figure = draw_groups(grouping)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def draw_groups(grouping: Grouping) -> Figure:
    """Return the figure that :func:`groups_figure` writes."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_splits(left, grouping.groups.sizes())
    _draw_labels(right, grouping)
    return figure


def _draw_splits(axes: Axes, sizes: dict[int, int]) -> None:
    """Draw a bar for each split, each as long as its cases are many."""
    total = max(1, sizes[1] + sizes[2])
    for row, pair in enumerate(SPLITS):
        start = total - sizes[pair[0]] - sizes[pair[1]]
        for number in pair:
            axes.barh(-row, sizes[number], left=start, height=0.62, color=_COLORS[number])
            _write_size(axes, -row, start, sizes[number], total, number)
            start += sizes[number]
    axes.set_xlim(0, total)
    axes.set_yticks([0, -1, -2], ["all cases", "labelled", "labelled,\nno tumor"])
    axes.set_xticks([])
    axes.set_title(f"{sizes[1] + sizes[2]} cases", fontsize=11)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)


def _write_size(axes: Axes, y: int, start: int, size: int, total: int, number: int) -> None:
    if not size:
        return
    wide = size >= _NARROW * total
    text = f"group {number}\n{size}" if wide else f"{number}: {size}"
    above = 0.0 if wide else 0.4
    color = "black" if number in (3, 5) or not wide else "white"
    axes.text(start + size / 2, y + above, text, ha="center", va="center", color=color, fontsize=10)
    if wide and size >= 3 * _NARROW * total:
        axes.text(start + size / 2, y - 0.4, MEANING[number], ha="center", va="center", fontsize=8)


def _draw_labels(axes: Axes, grouping: Grouping) -> None:
    """Draw in how many cases each label is annotated."""
    counts = Counter(label for case in grouping.cases for label in case.annotated)
    for row, label in enumerate(LABELS):
        color = tuple(value / 255 for value in label.color)
        axes.barh(-row, counts[label.id], color=color, edgecolor="#404040", linewidth=0.6)
        axes.text(counts[label.id], -row, f" {counts[label.id]}", va="center", fontsize=8)
    axes.set_xlim(0, 1.15 * max(1, *counts.values(), 1))
    axes.set_yticks([-r for r in range(len(LABELS))], [b.name.replace("_", " ") for b in LABELS])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xticks([])
    axes.set_title("cases in which a label is annotated", fontsize=11)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
