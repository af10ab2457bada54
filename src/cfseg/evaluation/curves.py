"""The curves of a run, as FLARE's meter draws them."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfseg.evaluation.efficiency import cpu_percents
from cfseg.evaluation.programs import Run
from cfseg.io import replacing


def write_curves(folder: Path, run: Run) -> None:
    """Write ``CASE_GPU-Time.png`` (with a GPU), ``CASE_CPU-Time.png`` and ``CASE_RAM-Time.png``.

    Raises:
        ResourceError: the folder cannot be written.
    """
    times = [sample.seconds for sample in run.samples]
    gpu = [sample.gpu_mb for sample in run.samples if sample.gpu_mb is not None]
    if gpu:
        _write(folder / f"{run.case}_GPU-Time.png", times, gpu, "GPU memory (MB)")
    percents = cpu_percents(run.samples)
    _write(folder / f"{run.case}_CPU-Time.png", times[1:], percents, "CPU utilization (%)")
    ram = [sample.ram_mb for sample in run.samples]
    _write(folder / f"{run.case}_RAM-Time.png", times, ram, "RAM (MB)")


def _write(path: Path, times: list[float], values: list[float], title: str) -> None:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(times, values)
    axes.fill_between(times, values, alpha=0.2)
    axes.set_xlabel("time (s)")
    axes.set_ylabel(title)
    axes.set_ylim(bottom=0)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
