"""Windows, ready on the network's device before their step begins."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from types import TracebackType
from typing import NamedTuple, Self

import torch

from cfseg.feed.augmentation import Augmentation, augment, crop_shape, crop_shape_of, draw
from cfseg.feed.crops import Source
from cfseg.geometry import Triple
from cfseg.plan import Intensity

AHEAD = 4
"""Steps whose windows are made while the one before them runs, each in a thread."""


class Windows(NamedTuple):
    """What a network learns from in one step.

    Attributes:
        scan: (B, 1, Z, Y, X) z-scores, on the network's device.
        labels: (B, Z, Y, X) uint8 channels of the network; 255 is unknown.
        origin: case and center of each, in words.
    """

    scan: torch.Tensor
    labels: torch.Tensor
    origin: tuple[str, ...] = ()


class Feed:
    """The windows of each step, made ahead of it by threads.

    It is a context: at its end the threads stop.

    Args:
        source: of the crops.
        seed: of the training.
        samples: numbers within the whole batch; ``range(batch)``, or a process's share of it.
        patch: (z, y, x) of the windows.
        augmentation: how crops are changed.
        intensity: by which z-scores are computed.
        device: of the network.
        ahead: steps; 0 makes windows when they are asked for.
    """

    def __init__(
        self,
        source: Source,
        *,
        seed: int,
        samples: Sequence[int],
        patch: Triple,
        augmentation: Augmentation,
        intensity: Intensity,
        device: torch.device,
        ahead: int = AHEAD,
    ) -> None:
        self._source, self._seed, self._samples = source, seed, tuple(samples)
        self._patch, self._augmentation = patch, augmentation
        self._intensity, self._device, self._ahead = intensity, device, ahead
        self._most = crop_shape(augmentation, patch)
        self._coming: dict[int, Future[tuple[Windows, torch.cuda.Event | None]]] = {}
        self._own = local()
        # Of one thread each, or they would be in the way of those that the network runs with. This
        # thread takes its own number now: at its first use it would take the last that was set.
        torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            min(max(1, ahead), os.cpu_count() or 1), "windows", torch.set_num_threads, (1,)
        )

    def __call__(self, step: int) -> Windows:
        """Return the windows of a step, and have those of the next ones made.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        if not self._ahead:
            return self._made(step)
        steps = range(step, step + self._ahead + 1)
        for other in [other for other in self._coming if other not in steps]:
            self._coming.pop(other).cancel()
        for coming in steps:
            if coming not in self._coming:
                self._coming[coming] = self._pool.submit(self._made_beside, coming)
        windows, ready = self._coming.pop(step).result()
        if ready is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(ready)
            windows.scan.record_stream(stream)
            windows.labels.record_stream(stream)
        return windows

    def _made_beside(self, step: int) -> tuple[Windows, torch.cuda.Event | None]:
        """Make windows on this thread's own stream, where the device has streams."""
        if self._device.type != "cuda":
            return self._made(step), None
        if not hasattr(self._own, "stream"):  # torch keeps memory to use again for each stream
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        own = self._own.stream
        with torch.cuda.stream(own):
            windows = self._made(step)
            return windows, own.record_event()

    def _made(self, step: int) -> Windows:
        draws = draw(self._augmentation, self._seed, step, self._samples)
        crops = [
            self._source.crop(
                self._seed, step, sample, crop_shape_of(one, self._patch, self._most)
            )
            for sample, one in zip(self._samples, draws, strict=True)
        ]  # fmt: skip
        scan, labels = augment(
            [crop.hu.to(self._device, non_blocking=True) for crop in crops],
            [crop.labels.to(self._device, non_blocking=True) for crop in crops],
            draws, self._patch, self._intensity,
        )  # fmt: skip
        return Windows(scan, labels, tuple(f"{crop.case} {crop.center}" for crop in crops))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
