"""TensorBoard logs of a training, where TensorBoard is installed."""

# TensorBoard's writer is untyped.
# mypy: disable-error-code="no-untyped-call"

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Scalars of each epoch, for TensorBoard; nothing if it is not installed.

    Args:
        folder: of the logs of one network.
        epoch: the first one that will be written; later ones of an attempt that was killed are
            hidden.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self.writer: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=epoch)

    def write(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of one epoch; those that are NaN are left out."""
        if self.writer is None:
            return
        for name, value in scalars.items():
            if not math.isnan(value):
                self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
