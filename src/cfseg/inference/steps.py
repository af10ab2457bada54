"""What each step of a stage costs: operations, seconds and memory, measured on this machine."""

from dataclasses import dataclass
from math import prod
from statistics import median
from time import perf_counter

import torch

from cfseg.inference.predictor import Stage, Windows
from cfseg.inference.process_memory import peak_bytes, reset_peak
from cfseg.inference.sliding_window import predict_planes, window_starts
from cfseg.networks.backends import Restful, Runner
from cfseg.networks.operations import sgemm_gflops, window_operations
from cfseg.preprocessing.prepare import network_shape, prepare
from cfseg.preprocessing.restore import Restoration
from cfseg.volume import Volume


@dataclass(frozen=True)
class StageCost:
    """What a stage cost on one volume.

    Attributes:
        stage: its name.
        windows: how many there are.
        gflop: operations of all windows, in 1e9.
        seconds: of ``prepare``, ``network``, ``add`` (windows put together) and ``restore``.
        window_seconds: median of the windows that the network ran.
        derived: not all windows were run; ``network`` is their number times the median.
        sgemm: what the machine did at matrix products in the same run, in 1e9 per second.
        peak_mb: the most that the process held.
    """

    stage: str
    windows: int
    gflop: float
    seconds: dict[str, float]
    window_seconds: float
    derived: bool
    sgemm: float
    peak_mb: float

    @property
    def gflops(self) -> float:
        """Operations of the network per second, in 1e9."""
        return self.gflop / self.seconds["network"] if self.seconds["network"] else 0.0

    @property
    def percent_of_sgemm(self) -> float:
        """The same as a share of the matrix product's."""
        return 100 * self.gflops / self.sgemm


class Timed:
    """A network that counts its time and, after some windows, repeats its last answer.

    Repeating leaves memory and all other steps as they are, and spares the time.

    Args:
        network: the network.
        most: windows that it really runs; None for all.
    """

    def __init__(self, network: Runner, most: int | None = None) -> None:
        self.network, self.most = network, most
        self.seconds: list[float] = []
        self.calls = 0
        self.answer: torch.Tensor | None = None

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """Return the logits of a window, or those of the last one that was run."""
        self.calls += 1
        if self.answer is not None and self.most is not None and len(self.seconds) >= self.most:
            return self.answer
        start = perf_counter()
        self.answer = self.network(window)
        self.seconds.append(perf_counter() - start)
        return self.answer

    def rest(self) -> None:
        """Let the network rest; its answer is forgotten, as its memory is gone."""
        self.answer = None
        if isinstance(self.network, Restful):
            self.network.rest()


def count_windows(stage: Stage, volume: Volume, step: float) -> int:
    """Return how many windows a stage lays over a volume."""
    shape, patch = network_shape(volume.geometry, stage.plan), stage.plan.patch
    z, y, x = (max(n, p) for n, p in zip(shape, patch, strict=True))
    return prod(len(starts) for starts in window_starts((z, y, x), patch, step))


def measure(
    stage: Stage, volume: Volume, windows: Windows, decoder_stop: int = 0, most: int | None = None
) -> StageCost:
    """Run a stage over a volume and say what each step cost.

    Args:
        stage: the network.
        volume: (Z, Y, X) in HU.
        windows: step, weights, mirroring and padding.
        decoder_stop: of the network.
        most: windows that are really run, the first not counted; None for all.
    """
    reset_peak(stage.device)
    network = Timed(stage.network, None if most is None else most + 1)
    start = perf_counter()
    prepared = prepare(volume, stage.plan, stage.device)
    prepared_at = perf_counter()
    restoration, restored = Restoration(prepared), [0.0]

    def restore(planes: torch.Tensor) -> None:
        begun = perf_counter()
        restoration.add(planes)
        restored[0] += perf_counter() - begun

    classes, patch = len(stage.plan.labels), stage.plan.patch
    predict_planes(network, prepared.image, classes, patch, windows, restore)
    windows_at = perf_counter()
    restoration.label_map()
    end = perf_counter()
    count = count_windows(stage, volume, windows.step)
    forwards = count * (8 if windows.mirror else 1)
    one = median(network.seconds[1:] or network.seconds)
    return StageCost(
        stage=stage.name,
        windows=count,
        gflop=forwards * window_operations(stage.plan, decoder_stop) / 1e9,
        seconds={
            "prepare": prepared_at - start,
            "network": one * forwards if most is not None else sum(network.seconds),
            "add": windows_at - prepared_at - sum(network.seconds) - restored[0],
            "restore": restored[0] + end - windows_at,
        },
        window_seconds=one,
        derived=most is not None and most + 1 < forwards,
        sgemm=sgemm_gflops(),
        peak_mb=peak_bytes(stage.device) / 1e6,
    )
