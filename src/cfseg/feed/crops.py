"""Where crops come from: a cohort, or anything else that makes some, ready before they are needed.

Every random choice is a function of the seed, the step and the sample within the batch. So reading
ahead, resuming and sharing a batch among processes give the same crops, and no state is saved.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from cfseg.dataset.cases import each
from cfseg.feed.chunked import spans
from cfseg.feed.store import ANNOTATED, IGNORE, StoredCase
from cfseg.geometry import Triple
from cfseg.labels import LABELS, TUMOR

PLACE, SOURCE = 1, 2
"""What numbers are drawn for: a case and a place in it; one of several sources."""
CPU = torch.device("cpu")
AHEAD = 4
"""Steps whose crops are made while the one before them runs, each in a thread."""


def generator(seed: int, step: int, sample: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one sample for one purpose, the same wherever they are drawn.

    Args:
        seed: of the training.
        step: of the training.
        sample: number within the whole batch, whichever process has it.
        purpose: what they are drawn for.
    """
    # Philox counts in the first word; the others are free to say where it starts.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, sample, step]))


@dataclass(frozen=True)
class Crops:
    """Parts of scans, larger than the network's patch so that they can be turned and scaled.

    Attributes:
        hu: (B, Z, Y, X) int16; outside of the scan the lowest value of the stage's range.
        labels: (B, Z, Y, X) uint8; outside of the scan background.
        case: (B,) number of each within its source.
        center: (B, 3) voxel of the scan that the patch is centered on; axes as the others'.
    """

    hu: torch.Tensor
    labels: torch.Tensor
    case: torch.Tensor
    center: torch.Tensor

    def to(self, device: torch.device) -> "Crops":
        """Return them on a device; from pinned memory nothing waits for the copy."""
        hu, labels = (part.to(device, non_blocking=True) for part in (self.hu, self.labels))
        return Crops(hu, labels, self.case, self.center)

    @classmethod
    def empty(cls, samples: int, shape: Triple, air: int, device: torch.device) -> Self:
        """Return crops of air; on the CPU in pinned memory where there is CUDA.

        Args:
            samples: B.
            shape: (z, y, x).
            air: HU.
            device: of the crops.
        """
        full = (samples, *shape)
        if device.type == "cpu":
            # torch would fill them with as many threads as it has, beside those of the training.
            pin = torch.cuda.is_available()
            hu = torch.empty(full, dtype=torch.int16, pin_memory=pin)
            labels = torch.empty(full, dtype=torch.uint8, pin_memory=pin)
            hu.numpy()[...], labels.numpy()[...] = air, 0
        else:
            hu = torch.full(full, air, dtype=torch.int16, device=device)
            labels = torch.zeros(full, dtype=torch.uint8, device=device)
        case, center = (torch.zeros(size, dtype=torch.int64) for size in (samples, (samples, 3)))
        return cls(hu, labels, case, center)


class Source(Protocol):
    """Anything that makes crops: a cohort, phantoms, rendered label maps, a mixture of them."""

    def crops(self, seed: int, step: int, samples: Sequence[int]) -> Crops:
        """Return the crops of some samples of a step, the same whenever they are asked for.

        Args:
            seed: of the training.
            step: of the training.
            samples: numbers within the whole batch; ``range(batch)``, or a process's share of it.
        """


class Case(Protocol):
    """A case that crops are cut from, on disk or in memory."""

    @property
    def shape(self) -> Triple:
        """(z, y, x) voxels."""

    @property
    def voxels(self) -> Mapping[int, int]:
        """How many voxels each label has."""

    def locations(self, label: int) -> npt.NDArray[np.int32]:
        """Return where some voxels of a label are in the flat array."""

    def read(self, start: Triple, hu: torch.Tensor, labels: torch.Tensor) -> None:
        """Fill tensors with the part of the case that lies in a box."""


class ResidentCase:
    """A case in the memory of a device.

    Attributes:
        voxels: how many voxels each label has.

    Args:
        case: in a store.
        device: that has room for it.

    Raises:
        InputError: ``E_CORRUPT``.
    """

    def __init__(self, case: StoredCase, device: torch.device) -> None:
        self.voxels = case.voxels
        hu = torch.empty(case.shape, dtype=torch.int16)
        labels = torch.empty(case.shape, dtype=torch.uint8)
        case.read((0, 0, 0), hu, labels)
        self._hu, self._labels = hu.to(device), labels.to(device)
        extra = {ANNOTATED} if IGNORE in case.voxels else set()
        self._locations = {i: case.locations(i) for i in (*present(case), *extra)}

    @property
    def shape(self) -> Triple:
        """(z, y, x) voxels."""
        z, y, x = self._hu.shape
        return z, y, x

    def locations(self, label: int) -> npt.NDArray[np.int32]:
        """Return where some voxels of a label are in the flat array; see :class:`StoredCase`."""
        return self._locations[label]

    def read(self, start: Triple, hu: torch.Tensor, labels: torch.Tensor) -> None:
        """Fill tensors of the device; as :meth:`StoredCase.read`."""
        sides = [spans(*side) for side in zip(start, hu.shape, self.shape, self.shape, strict=True)]
        for z, y, x in product(*sides):
            hu[z.out, y.out, x.out] = self._hu[z.part, y.part, x.part]
            labels[z.out, y.out, x.out] = self._labels[z.part, y.part, x.part]


def present(case: Case) -> tuple[int, ...]:
    """Return the labels that a case has, in order, without background and what is ignored."""
    return tuple(label.id for label in LABELS if label.id in case.voxels)


@dataclass(frozen=True)
class Sampling:
    """Which crops are cut.

    Attributes:
        patch: (z, y, x) of the network.
        crop: (z, y, x) of the crops, at least the patch.
        oversample_foreground: share of the patches centered on a labelled voxel.
        tumor_focus: share of those, in cases with a tumor, that are centered on it; the others take
            any label.
    """

    patch: Triple
    crop: Triple
    oversample_foreground: float
    tumor_focus: float = 0.0


class Cohort:
    """Crops of stored cases; each sample takes any case, with equal chances.

    Args:
        cases: on disk, or all on one device.
        sampling: which crops.
        air: HU outside of a case, the lowest of the stage's range.
        device: where the cases are.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        sampling: Sampling,
        air: float,
        device: torch.device = CPU,
    ) -> None:
        self._cases, self._sampling = tuple(cases), sampling
        self._air, self._device = round(air), device

    def crops(self, seed: int, step: int, samples: Sequence[int]) -> Crops:
        """Return the crops of some samples of a step.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        rule = self._sampling
        found = Crops.empty(len(samples), rule.crop, self._air, self._device)
        for place, sample in enumerate(samples):
            rng = generator(seed, step, sample, PLACE)
            number = int(rng.integers(len(self._cases)))
            case = self._cases[number]
            corner = patch_corner(case, rule, rng)
            sides = list(zip(corner, rule.patch, rule.crop, strict=True))
            z, y, x = (at - (crop - patch) // 2 for at, patch, crop in sides)
            case.read((z, y, x), found.hu[place], found.labels[place])
            found.case[place] = number
            found.center[place] = torch.tensor([at + patch // 2 for at, patch, _ in sides])
        return found


def patch_corner(case: Case, rule: Sampling, rng: np.random.Generator) -> Triple:
    """Return the first voxel of a patch, which lies in the case where that is large enough.

    nnU-Net lets patches hang over the far ends of a case. There are none in inference, and air
    teaches nothing.

    Args:
        case: in question.
        rule: says how often a patch is centered on a label.
        rng: numbers are drawn from it.
    """
    center = _labelled_voxel(case, rule, rng)
    corner = []
    for axis, (size, patch) in enumerate(zip(case.shape, rule.patch, strict=True)):
        room = size - patch
        if room < 0:
            corner.append(room // 2)
        elif center is None:
            corner.append(int(rng.integers(room + 1)))
        else:
            corner.append(min(max(center[axis] - patch // 2, 0), room))
    return corner[0], corner[1], corner[2]


def _labelled_voxel(case: Case, rule: Sampling, rng: np.random.Generator) -> Triple | None:
    """Return the voxel to be centered on; None for any place.

    In a case with ignored voxels that is always an annotated one, as in nnU-Net.
    """
    labels = present(case)
    if labels and rng.random() < rule.oversample_foreground:
        on_tumor = TUMOR.id in labels and rng.random() < rule.tumor_focus
        label = TUMOR.id if on_tumor else labels[int(rng.integers(len(labels)))]
    elif IGNORE in case.voxels:
        label = ANNOTATED
    else:
        return None
    places = case.locations(label)
    if len(places) == 0:  # nothing is annotated
        return None
    z, y, x = np.unravel_index(places[rng.integers(len(places))], case.shape)
    return int(z), int(y), int(x)


class Mixture:
    """Crops of several sources, each as often as its weight says.

    Args:
        parts: the sources and their weights; all give crops of one shape.
    """

    def __init__(self, parts: Sequence[tuple[Source, float]]) -> None:
        self._sources = [source for source, _ in parts]
        self._until = np.cumsum([weight for _, weight in parts])

    def crops(self, seed: int, step: int, samples: Sequence[int]) -> Crops:
        """Return the crops of some samples of a step."""
        draws = [generator(seed, step, sample, SOURCE).random() for sample in samples]
        chosen = np.searchsorted(self._until, np.array(draws) * self._until[-1], side="right")
        parts, places = [], []
        for number, source in enumerate(self._sources):
            here = np.flatnonzero(chosen == number)
            if len(here):
                parts.append(source.crops(seed, step, [samples[int(place)] for place in here]))
                places.append(here)
        if len(parts) == 1:
            return parts[0]
        order = torch.from_numpy(np.concatenate(places).argsort())
        return _joined(parts, order)


def _joined(parts: Sequence[Crops], order: torch.Tensor) -> Crops:
    device = parts[0].hu.device
    parts = [part.to(device) for part in parts]
    return Crops(
        torch.cat([part.hu for part in parts])[order.to(device)],
        torch.cat([part.labels for part in parts])[order.to(device)],
        torch.cat([part.case for part in parts])[order],
        torch.cat([part.center for part in parts])[order],
    )


class Ahead:
    """Crops of a source that threads make before they are asked for.

    It is a context: at its end the threads stop. Whoever asks for other samples, as validation
    does, needs one of its own.

    Args:
        source: makes them on the CPU.
        steps: how many steps ahead.
    """

    def __init__(self, source: Source, steps: int = AHEAD) -> None:
        self._source, self._steps = source, steps
        self._pool = ThreadPoolExecutor(steps, thread_name_prefix="crops")
        self._coming: dict[tuple[int, int, tuple[int, ...]], Future[Crops]] = {}

    def crops(self, seed: int, step: int, samples: Sequence[int]) -> Crops:
        """Return the crops of some samples of a step, and have those of the next steps made.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        keys = [(seed, later, tuple(samples)) for later in range(step, step + self._steps + 1)]
        for key in [key for key in self._coming if key not in keys]:
            self._coming.pop(key).cancel()
        for key in keys:
            if key not in self._coming:
                self._coming[key] = self._pool.submit(self._source.crops, *key)
        return self._coming.pop(keys[0]).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def cohort(
    cases: Sequence[StoredCase],
    sampling: Sampling,
    air: float,
    device: torch.device,
    budget_mb: float,
) -> Iterator[Source]:
    """Give the crops of stored cases: from memory where they fit, else read ahead from disk.

    Args:
        cases: in a store.
        sampling: which crops.
        air: HU outside of a case, the lowest of the stage's range.
        device: that keeps the cases if they fit; else crops are on the CPU.
        budget_mb: of its memory that the cases may take.

    Raises:
        InputError: ``E_CORRUPT``.
    """
    if sum(case.held_bytes for case in cases) <= budget_mb * 1e6:
        held = list(each(partial(ResidentCase, device=device), cases))
        yield Cohort(held, sampling, air, device)
    else:
        with Ahead(Cohort(cases, sampling, air)) as source:
            yield source


def label_voxels(cases: Sequence[StoredCase], classes: int) -> npt.NDArray[np.int64]:
    """Return how many voxels each label has in all cases, (C,); ignored ones don't count.

    Args:
        cases: in a store.
        classes: C.
    """
    return np.array([sum(case.voxels.get(label, 0) for case in cases) for label in range(classes)])
