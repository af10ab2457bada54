"""How fast a network is trained on this machine: with windows made, and on one made before."""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import nn

from cfseg.feed.windows import Windows
from cfseg.learning.loop import train
from cfseg.learning.run import Place, Settings, Step
from cfseg.networks.build import fresh_network
from cfseg.training.curriculum import Learner
from cfseg.training.data import read_lesson
from cfseg.training.fit import atlases_of, feed_of, settings_of

STEPS = 250
"""The field's epoch."""
WARM_UP, TIMED = 5, 20
"""Steps that don't count, and steps that do."""


class Speed(NamedTuple):
    """How long steps take.

    Attributes:
        network: its name.
        with_data: median seconds of a step whose windows are made for it.
        without_data: the same of one on windows that were made before.
    """

    network: str
    with_data: float
    without_data: float

    @property
    def feed_share(self) -> float:
        """How much of a step is for its windows, 0 to 1."""
        return max(0.0, 1 - self.without_data / self.with_data)

    @property
    def line(self) -> str:
        """In words, as nnU-Net's users know it."""
        return (
            f"{self.network}: {STEPS} steps take {STEPS * self.with_data:.1f} s with data and "
            f"{STEPS * self.without_data:.1f} s without; {self.feed_share:.0%} is for windows"
        )


def measure(learner: Learner, device: torch.device, steps: int = TIMED) -> Speed:
    """Time the steps of a network; nothing is kept of it.

    Args:
        learner: the network, with its cases stored.
        device: where it is trained.
        steps: that count.

    Raises:
        UsageError: as :func:`cfseg.training.fit.fit`.
    """
    lesson, seed = read_lesson(learner), learner.training.seed
    total = WARM_UP + steps
    settings = settings_of(lesson, learner.training, learner.stage, device).model_copy(
        update={"epochs": 1, "iterations_per_epoch": total, "keep_every_epochs": 1}
    )

    def timed(windows: Callable[[int], Windows]) -> float:
        network = fresh_network(lesson.plan, seed).to(device)
        return median_step(network, windows, settings)

    atlases = atlases_of(learner)
    with feed_of(lesson, learner.training, learner.stage, seed, device, atlases) as feed:
        with_data = timed(feed)
        one = feed(0)
    return Speed(learner.key, with_data, timed(lambda step: one))  # noqa: ARG005


def median_step(network: nn.Module, windows: Callable[[int], Windows], settings: Settings) -> float:
    """Return the median seconds of a step, after a few that don't count.

    Args:
        network: on its device.
        windows: of each step.
        settings: of one epoch.
    """
    seconds: list[float] = []

    def on_step(step: Step) -> None:
        seconds.append(step.seconds)

    with TemporaryDirectory() as folder:
        place = Place(Path(folder), save_every_epochs=2, save_every_minutes=1e6, keep_at_most=1)
        train(network, windows, settings, place, on_step=on_step, report=_silent)
    return median(seconds[WARM_UP:])


def _silent(line: str) -> None:
    """Say nothing of a training that is only timed."""
