"""OpenVINO without its telemetry: importing it as it is sends an event over the network."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TELEMETRY = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Make what is imported inside the block believe that its telemetry is not installed."""
    known = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if known is not None:
            sys.modules[_TELEMETRY] = known


with no_telemetry():
    import openvino as ov
    import openvino.opset13 as op

__all__ = ["no_telemetry", "op", "ov"]
