"""What each step of a stage costs: operations, seconds and memory, measured on this machine."""

from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

import torch

from cfseg.geometry import Triple
from cfseg.inference.predictor import Stage, Windows, half_on_gpu
from cfseg.inference.process_memory import peak_bytes, reset_peak
from cfseg.inference.sliding_window import OnWindow, predict_planes, window_starts
from cfseg.networks.backends import Restful, Runner
from cfseg.networks.operations import now_on, sgemm_gflops, window_operations
from cfseg.preprocessing.prepare import network_shape, prepare
from cfseg.preprocessing.restore import Restoration
from cfseg.volume import LabelMap, Volume


@dataclass(frozen=True)
class StageCost:
    """What a stage cost on one volume.

    Attributes:
        stage: its name.
        backend: what ran it.
        patch: (z, y, x) of a window.
        windows: how many are laid over the volume.
        passes: how often the network was called: eight times a window with mirroring, once for all
            windows that hold nothing but the same air.
        gflop: operations of all passes, in 1e9.
        seconds: of ``prepare``, ``network``, ``add`` (windows put together) and ``restore``.
        window_seconds: median of the passes that the network ran.
        derived: not all passes were run; ``network`` is their number times the median.
        sgemm: what the device did at matrix products in the same run, in 1e9 per second.
        peak_mb: the most that the process held, or torch on a GPU.
    """

    stage: str
    backend: str
    patch: Triple
    windows: int
    passes: int
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

    def as_dict(self) -> dict[str, Any]:
        """Return everything, as JSON can hold it."""
        found = asdict(self) | {"patch": list(self.patch)}
        return found | {"gflops": self.gflops, "percent_of_sgemm": self.percent_of_sgemm}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StageCost":
        """Return what :meth:`as_dict` was made of; other keys do not count."""
        z, y, x = values["patch"]
        names = cls.__dataclass_fields__
        return cls(**{name: values[name] for name in names} | {"patch": (z, y, x)})


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
        start = now_on(window.device)
        answer = self.network(window)
        self.seconds.append(now_on(window.device) - start)
        self.answer = None if self.most is None else answer
        return answer

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
    stage: Stage,
    volume: Volume,
    windows: Windows,
    decoder_stop: int = 0,
    most: int | None = None,
    on_window: OnWindow | None = None,
) -> tuple[StageCost, LabelMap]:
    """Run a stage over a volume and return what each step cost, and its label map.

    The label map means nothing if the cost is derived.

    Args:
        stage: the network.
        volume: (Z, Y, X) in HU.
        windows: step, weights, mirroring and padding.
        decoder_stop: of the network.
        most: passes that are really run, the first not counted; None for all.
        on_window: called after each window with how many are done and how many there are.
    """
    device = stage.device
    reset_peak(device)
    network = Timed(stage.network, None if most is None else most + 1)
    start = now_on(device)
    prepared = prepare(volume, stage.plan, device)
    prepared_at = now_on(device)
    restoration, restored = Restoration(prepared), [0.0]

    def restore(planes: torch.Tensor) -> None:
        begun = now_on(device)
        restoration.add(planes)
        restored[0] += now_on(device) - begun

    classes, patch = len(stage.plan.labels), stage.plan.patch
    with half_on_gpu(device):
        predict_planes(network, prepared.image, classes, patch, windows, restore, on_window)
    windows_at = now_on(device)
    label_map = restoration.label_map()
    end = now_on(device)
    peak = peak_bytes(device)
    run, one = sum(network.seconds), median(network.seconds[1:] or network.seconds)
    derived = len(network.seconds) < network.calls
    cost = StageCost(
        stage=stage.name,
        backend=stage.backend,
        patch=patch,
        windows=count_windows(stage, volume, windows.step),
        passes=network.calls,
        gflop=network.calls * window_operations(stage.plan, decoder_stop) / 1e9,
        seconds={
            "prepare": prepared_at - start,
            "network": one * network.calls if derived else run,
            "add": windows_at - prepared_at - run - restored[0],
            "restore": restored[0] + end - windows_at,
        },
        window_seconds=one,
        derived=derived,
        sgemm=sgemm_gflops(device=device),
        peak_mb=peak / 1e6,
    )
    return cost, label_map
