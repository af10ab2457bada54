"""Learning curves: loss, scores of validations and learning rate of each network."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, isfinite, log10, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from cfseg.io import replacing
from cfseg.reports.figures import drawable

DPI = 120
_COLOR, _BEST_COLOR, _SOFT = "#1f5f99", "#c8553d", "#5b6875"
_ROW_INCHES = 1.9

_Numbers = npt.NDArray[np.float64]


class CurvePoint(NamedTuple):
    """An epoch of a training.

    Attributes:
        epoch: its number.
        loss: mean over its steps; None if it is not known.
        lr: learning rate.
        score: of the validation after it; None without one. Higher is better.
    """

    epoch: int
    loss: float | None
    lr: float
    score: float | None


def draw_curves(file: Path, curves: Mapping[str, Sequence[CurvePoint]]) -> None:
    """Write a PNG of learning curves, a row for each network.

    Args:
        file: ends in ``.png``; its folder is made if needed.
        curves: the epochs of each network, in order; values that are not finite count as missing.

    Raises:
        ResourceError: the file cannot be written.
    """
    with replacing(file) as temporary:
        curves_figure(curves).savefig(temporary, format="png", dpi=DPI)


def curves_figure(curves: Mapping[str, Sequence[CurvePoint]]) -> Figure:
    """Return the figure that :func:`draw_curves` writes; axes carry network and value as label."""
    figure = Figure(figsize=(10.5, 0.3 + _ROW_INCHES * max(1, len(curves))), layout="constrained")
    FigureCanvasAgg(figure)
    if not curves:
        figure.text(0.5, 0.5, "no network yet", ha="center", va="center", color=_SOFT)
        return figure
    for row, (network, points) in zip(
        figure.subplots(len(curves), len(_PANELS), squeeze=False), curves.items(), strict=True
    ):
        for axes, (value, draw) in zip(row, _PANELS.items(), strict=True):
            axes.set_label(f"{network} {value}")
            axes.set_ylabel(value, fontsize=8.5)
            _set_up(axes, points)
            draw(axes, points)
        row[0].set_title(
            drawable(network), loc="left", fontsize=10, fontweight="bold", parse_math=False
        )
    for axes in figure.axes[-len(_PANELS) :]:
        axes.set_xlabel("epoch", fontsize=8.5)
    figure.align_ylabels()
    return figure


def best_point(points: Sequence[CurvePoint]) -> tuple[int, float] | None:
    """Return the epoch and the score of the best validation, the first of equals; None if none."""
    scored = [(it.epoch, it.score) for it in points if it.score is not None and isfinite(it.score)]
    return max(scored, key=lambda it: it[1], default=None)


def _set_up(axes: Axes, points: Sequence[CurvePoint]) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(color="#e2e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if not points:
        axes.set_xticks([])
    else:
        margin = 0.5 + 0.02 * (points[-1].epoch - points[0].epoch)
        axes.set_xlim(points[0].epoch - margin, points[-1].epoch + margin)


def _draw_loss(axes: Axes, points: Sequence[CurvePoint]) -> None:
    _draw_line(axes, points, [point.loss for point in points])


def _draw_rate(axes: Axes, points: Sequence[CurvePoint]) -> None:
    """Draw the learning rate from one power of ten to another; a rate of 0 has no place there."""
    rates = [point.lr if point.lr > 0 else None for point in points]
    found = _draw_line(axes, points, rates)
    if found.size:
        axes.set_yscale("log")
        lowest = floor(log10(found.min()))
        highest = max(lowest + 1, ceil(log10(found.max())))
        axes.set_ylim(10.0 ** (lowest - 0.1), 10.0 ** (highest + 0.1))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_scores(axes: Axes, points: Sequence[CurvePoint]) -> None:
    scores = _numbers([point.score for point in points])
    epochs, known = np.array([point.epoch for point in points]), np.isfinite(scores)
    best = best_point(points)
    if best is None:
        _say(axes, "no validation yet")
        return
    axes.plot(epochs[known], scores[known], color=_COLOR, linewidth=0.5, marker="o", markersize=3)
    axes.plot(*best, color=_BEST_COLOR, marker="*", markersize=11, linestyle="none")
    axes.set_title(
        f"best {best[1]:.3f}, epoch {best[0]}", loc="right", fontsize=8.5, color=_BEST_COLOR
    )


def _draw_line(
    axes: Axes, points: Sequence[CurvePoint], values: Sequence[float | None]
) -> _Numbers:
    """Draw values over epochs, with a gap where one is missing; return those that are there."""
    numbers = _numbers(values)
    known = np.isfinite(numbers)
    if not known.any():
        _say(axes, "nothing yet")
        return numbers[known]
    beside = np.convolve(known, (1, 0, 1))[1:-1] > 0
    axes.plot(
        [point.epoch for point in points], numbers, color=_COLOR, linewidth=1,
        marker="o", markersize=3, markevery=known & ~beside,
    )  # fmt: skip
    return numbers[known]


def _numbers(values: Sequence[float | None]) -> _Numbers:
    """Return values with NaN in the place of what is missing or not finite."""
    known = [nan if it is None or not isfinite(it) else it for it in values]
    return np.array(known, dtype=np.float64)


def _say(axes: Axes, text: str) -> None:
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8.5,
        color=_SOFT,
    )  # fmt: skip
    axes.set_yticks([])


_PANELS: dict[str, Callable[[Axes, Sequence[CurvePoint]], None]] = {
    "loss": _draw_loss,
    "validation score": _draw_scores,
    "learning rate": _draw_rate,
}
