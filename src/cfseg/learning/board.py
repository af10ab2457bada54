"""TensorBoard logs of a training, where TensorBoard is installed."""

# TensorBoard's writer is untyped.
# mypy: disable-error-code="no-untyped-call"

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Scalars of each epoch, for TensorBoard; nothing if it is not installed.

    Args:
        folder: of the logs of one network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None
        self.is_installed = importlib.util.find_spec("tensorboard") is not None

    def write(self, epoch: int, scalars: Mapping[str, float | None]) -> None:
        """Write the scalars of one epoch; those of later ones, of a killed attempt, are hidden."""
        if not self.is_installed:
            return
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=epoch)
        for name, value in scalars.items():
            if value is not None:
                self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
