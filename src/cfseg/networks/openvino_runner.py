"""OpenVINO runs a graph on the CPU: same call as a torch module, tensors in and out."""

from functools import cache

import numpy as np
import torch

from cfseg.errors import ModelError
from cfseg.networks.openvino_silent import ov

_SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


@cache
def _core() -> ov.Core:
    """Return the one core of this process; it is never let go.

    Its CPU plugin gives the thread a signal stack and unmaps it when the last core goes. The next
    signal that the process gets, SIGTERM of a cluster say, would then end it without a checkpoint.
    """
    return ov.Core()


class OpenVINORunner:
    """A compiled graph.

    Args:
        graph: from a window (1, 1, Z, Y, X) to logits (1, C, Z, Y, X).
        threads: of the CPU.
    """

    def __init__(self, graph: ov.Model, threads: int) -> None:
        settings = _SETTINGS | {"INFERENCE_NUM_THREADS": threads}
        self._compiled = _core().compile_model(graph, "CPU", settings)
        self._request: ov.InferRequest | None = None

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """Return the logits; they are valid until the next call."""
        if self._request is None:
            self._request = self._compiled.create_infer_request()
        array = np.ascontiguousarray(window.numpy(), dtype=np.float32)
        found = self._request.infer([array], share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0])

    def rest(self) -> None:
        """Give back the memory between the layers until the next call."""
        self._request = None
        self._compiled.release_memory()


def load_graph(xml: bytes, weights: bytes) -> OpenVINORunner:
    """Return a stored graph, ready to predict with as many threads as torch has been given.

    Raises:
        ModelError: see :func:`read_graph`.
    """
    return OpenVINORunner(read_graph(xml, weights), torch.get_num_threads())


def read_graph(xml: bytes, weights: bytes) -> ov.Model:
    """Return a stored graph.

    Raises:
        ModelError: it is no OpenVINO graph, or a constant in it has NaN or infinity.
    """
    try:
        graph = _core().read_model(xml, weights)
    except RuntimeError as error:
        raise ModelError(f"not an OpenVINO graph ({error}); make the bundle again") from error
    for node in graph.get_ops():
        is_real = node.get_type_name() == "Constant" and node.get_element_type().is_real()
        if is_real and not np.isfinite(node.data).all():
            name = node.get_friendly_name()[:200]
            raise ModelError(f"{name} has NaN or infinite weights; make the bundle again")
    return graph
