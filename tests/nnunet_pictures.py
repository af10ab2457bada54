"""nnU-Net's ``progress.png``: to draw one costs more than to train a tiny network."""

from collections.abc import Callable
from pathlib import Path


def leave_blank(patch: Callable[[object, str, object], None] = setattr) -> None:
    """Let an empty file take the picture's place, for the rest of the process or of the test.

    Args:
        patch: puts an attribute in the place of another; monkeypatch's is undone.
    """
    from nnunetv2.training.logging.nnunet_logger import MetaLogger

    def touch(_: object, folder: str) -> None:
        (Path(folder) / "progress.png").touch()

    patch(MetaLogger, "plot_progress_png", touch)
