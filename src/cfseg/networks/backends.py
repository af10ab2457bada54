"""One call behind which torch or OpenVINO runs a network.

torch is the reference, on the CPU and on a GPU. OpenVINO computes the same on a CPU in about half
of the time. A network is loaded when it is first called and can be let go in between.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Literal, Protocol, runtime_checkable

import torch

from cfseg.errors import UsageError
from cfseg.networks.build import load_network
from cfseg.plan import StagePlan

Backend = Literal["torch", "openvino"]
BACKENDS = ("auto", "torch", "openvino")
Precision = Literal["fp32", "int8"]
PRECISIONS = ("fp32", "int8")
Runner = Callable[[torch.Tensor], torch.Tensor]
"""From a window (1, 1, Z, Y, X) to logits (1, C, Z, Y, X), which the next call may overwrite."""


@runtime_checkable
class Restful(Protocol):
    """A network that can give back its working memory until it is called again."""

    def rest(self) -> None:
        """Give back what the next call can make again at once."""


def find_backend(name: str, device: torch.device) -> Backend:
    """Return the backend called ``name``; ``auto`` is OpenVINO on a CPU if it is installed.

    Raises:
        UsageError: an unknown name, or a backend that is not here or does not run on the device.
    """
    if name not in BACKENDS:
        raise UsageError(f"--backend {name}: give {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
    installed = find_spec("openvino") is not None
    if name == "auto":
        return "openvino" if installed and device.type == "cpu" else "torch"
    if name == "torch":
        return "torch"
    if not installed:
        raise UsageError(
            "--backend openvino: OpenVINO is not installed; pip install 'cfseg[openvino]'"
        )
    if device.type != "cpu":
        raise UsageError(f"--backend openvino runs on the CPU, not on {device}; set --device cpu")
    return "openvino"


def find_precision(name: str, backend: Backend) -> Precision:
    """Return the precision called ``name``.

    Raises:
        UsageError: an unknown name, or one that the backend does not have.
    """
    if name == "fp32":
        return "fp32"
    if name != "int8":
        raise UsageError(f"--precision {name}: give {' or '.join(PRECISIONS)}")
    if backend != "openvino":
        raise UsageError("--precision int8 needs OpenVINO on a CPU: pip install 'cfseg[openvino]'")
    return "int8"


def load(
    plan: StagePlan,
    weights: Mapping[str, torch.Tensor],
    device: torch.device,
    decoder_stop: int = 0,
    backend: Backend = "torch",
) -> Runner:
    """Return a network that is ready to predict.

    Args:
        plan: gives architecture, classes and the size of a window.
        weights: by state-dict name, as in an nnU-Net v2 checkpoint.
        device: where it is to run.
        decoder_stop: see :func:`cfseg.networks.build.build_network`.
        backend: what runs it. OpenVINO takes windows of the plan's patch only, and as many threads
            as torch has been given.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape.
    """
    if backend == "torch":
        return load_network(plan, weights, device, decoder_stop)
    from cfseg.networks.openvino_graph import build_graph
    from cfseg.networks.openvino_runner import OpenVINORunner

    return OpenVINORunner(build_graph(plan, weights, decoder_stop), torch.get_num_threads())


class OnDemand:
    """A network that is loaded when it is first called.

    Args:
        load: makes the network.
    """

    def __init__(self, load: Callable[[], Runner]) -> None:
        self._load = load
        self._network: Runner | None = None

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """Return the logits (1, C, Z, Y, X) of a window; valid until the next call."""
        return self.ready()(window)

    def ready(self) -> Runner:
        """Return the network, loaded if it was not."""
        if self._network is None:
            self._network = self._load()
        return self._network

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory."""
        return self._network is not None

    def rest(self) -> None:
        """Give back what the next call can make again at once."""
        if isinstance(self._network, Restful):
            self._network.rest()

    def let_go(self) -> None:
        """Give back all of it; the next call loads it again."""
        self._network = None
