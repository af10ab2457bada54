"""The cascade against the number of slices, as a picture."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.page import network_seconds
from benchmarks.run import Values
from cfseg.io import replacing


def draw_cascade(found: list[Values], path: Path) -> None:
    """Write a PNG: seconds (derived) and peak memory against slices.

    Args:
        found: what ``Bench.cascade`` returns.
        path: of the picture.
    """
    cases = sorted(found, key=lambda c: c["slices"])
    slices = [c["slices"] for c in cases]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    whole = [network_seconds(c) + c["rest"] for c in cases]
    left.plot(slices, whole, marker="o", label="whole case (derived)")
    left.plot(slices, [c["rest"] for c in cases], marker="o", label="all but the networks")
    left.set_ylabel("seconds")
    left.legend()
    right.plot(slices, [c["peak_mb"] for c in cases], marker="o", color="C2")
    right.set_ylabel("peak memory (MB)")
    for axes in (left, right):
        axes.set_xlabel("slices")
        axes.set_ylim(0, 1.1 * axes.dataLim.y1)
        axes.set_xlim(left=0)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
