"""What a network is shown and what it says, for those who look before they trust (WORK/look)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cfseg.feed.windows import Windows
from cfseg.geometry import TripleMm
from cfseg.plan import StagePlan
from cfseg.reports.looks import ValidationLook, draw_validation, draw_windows

FOLDER = "look"
CASES = 3
"""Validation cases that are shown."""
Ids = npt.NDArray[np.uint8]


def pictures(work: Path, network: str) -> tuple[Path, Path]:
    """Return where the pictures of a network's windows and of its validation cases lie.

    Args:
        work: the workspace.
        network: its name.
    """
    folder = work / FOLDER
    return folder / f"{network}-windows.png", folder / f"{network}-validation.png"


class Looks:
    """The pictures of one network.

    Args:
        work: the workspace.
        network: its name.
        plan: of the network.
    """

    def __init__(self, work: Path, network: str, plan: StagePlan) -> None:
        self._of_windows, self._of_cases = pictures(work, network)
        self._spacing_mm: TripleMm = plan.spacing_mm
        self._seen: list[ValidationLook] = []

    def windows(self, first: Callable[[], Windows]) -> None:
        """Draw the windows of the first step, unless that was done before."""
        if self._of_windows.exists():
            return
        windows = first()
        scan, labels = windows.scan[:, 0].cpu().numpy(), windows.labels.cpu().numpy()
        draw_windows(self._of_windows, scan, labels, windows.origin, self._spacing_mm)

    def case(
        self, name: str, hu: npt.NDArray[np.float32], truth: Ids, found: Ids, score: float | None
    ) -> None:
        """Take a validation case to be drawn; later ones are left out."""
        if len(self._seen) < CASES:
            self._seen.append(ValidationLook(name, hu, truth, found, self._spacing_mm, score))

    def draw_cases(self) -> None:
        """Draw the validation cases that were seen since the last time."""
        if self._seen:
            draw_validation(self._of_cases, self._seen)
        self._seen = []
