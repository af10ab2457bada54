"""Where crops come from: a cohort, or anything else that makes some.

Every random choice is a function of the seed, the step and the sample within the batch. So reading
ahead, resuming and sharing a batch among processes give the same crops, and no state is saved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from cfseg.dataset.cases import each
from cfseg.feed.chunked import spans
from cfseg.feed.randomness import PLACE, SOURCE, generator, pick
from cfseg.feed.store import ANNOTATED, StoredCase
from cfseg.geometry import Triple
from cfseg.labels import IGNORE, LABELS, TUMOR

CPU = torch.device("cpu")


class Crop(NamedTuple):
    """Part of a scan, as large as a window needs it that is turned and scaled.

    Attributes:
        hu: (Z, Y, X) int16; outside of the scan the lowest value of the stage's range.
        labels: (Z, Y, X) uint8; outside of the scan background.
        case: what it is a part of, in words.
        center: voxel of the case that the patch is centered on; axes as the others'.
    """

    hu: torch.Tensor
    labels: torch.Tensor
    case: str
    center: Triple


class Source(Protocol):
    """Anything that makes crops: a cohort, phantoms, rendered label maps, a mixture of them."""

    def crop(self, seed: int, step: int, sample: int, shape: Triple) -> Crop:
        """Return the crop of a sample, the same whenever it is asked for.

        Threads may ask at the same time.

        Args:
            seed: of the training.
            step: of the training.
            sample: number within the whole batch, whichever process has it.
            shape: (z, y, x) of the crop, no smaller than the patch; its center does not depend on
                it.
        """


class Labelled(Protocol):
    """Anything that has labels in known places."""

    @property
    def shape(self) -> Triple:
        """(z, y, x) voxels."""

    @property
    def voxels(self) -> Mapping[int, int]:
        """How many voxels each label has."""

    def locations(self, label: int) -> npt.NDArray[np.int32]:
        """Return where some voxels of a label are in the flat array."""


class Case(Labelled, Protocol):
    """A case that crops are cut from, on disk or in memory."""

    @property
    def name(self) -> str:
        """Of the case."""

    def read(self, start: Triple, hu: torch.Tensor, labels: torch.Tensor) -> None:
        """Fill tensors with the part of the case that lies in a box."""


class ResidentCase:
    """A case in the memory of a device.

    Attributes:
        name: of the case.
        voxels: how many voxels each label has.

    Args:
        name: of the case.
        hu: (Z, Y, X) int16.
        labels: (Z, Y, X) uint8.
        voxels: how many voxels each label has.
        places: where some voxels of each label are in the flat array.
    """

    def __init__(
        self,
        name: str,
        hu: torch.Tensor,
        labels: torch.Tensor,
        voxels: Mapping[int, int],
        places: Mapping[int, npt.NDArray[np.int32]],
    ) -> None:
        self.name, self.voxels = name, voxels
        self._hu, self._labels, self._places = hu, labels, places

    @classmethod
    def of(cls, case: StoredCase, device: torch.device) -> Self:
        """Read a stored case.

        Args:
            case: in a store.
            device: that has room for it.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        hu = torch.empty(case.shape, dtype=torch.int16)
        labels = torch.empty(case.shape, dtype=torch.uint8)
        case.read((0, 0, 0), hu, labels)
        extra = {ANNOTATED} if IGNORE in case.voxels else set()
        places = {i: case.locations(i) for i in (*present(case), *extra)}
        return cls(case.name, hu.to(device), labels.to(device), case.voxels, places)

    @property
    def shape(self) -> Triple:
        """(z, y, x) voxels."""
        z, y, x = self._hu.shape
        return z, y, x

    def locations(self, label: int) -> npt.NDArray[np.int32]:
        """Return where some voxels of a label are in the flat array; see :class:`StoredCase`."""
        return self._places[label]

    def read(self, start: Triple, hu: torch.Tensor, labels: torch.Tensor) -> None:
        """Fill tensors of the device; as :meth:`StoredCase.read`."""
        sides = [spans(*side) for side in zip(start, hu.shape, self.shape, self.shape, strict=True)]
        for z, y, x in product(*sides):
            hu[z.out, y.out, x.out] = self._hu[z.part, y.part, x.part]
            labels[z.out, y.out, x.out] = self._labels[z.part, y.part, x.part]


def present(case: Labelled) -> tuple[int, ...]:
    """Return the labels that a case has, in order, without background and what is ignored."""
    return tuple(label.id for label in LABELS if label.id in case.voxels)


@dataclass(frozen=True)
class Sampling:
    """Which crops are cut.

    Attributes:
        patch: (z, y, x) of the network.
        oversample_foreground: share of the patches centered on a labelled voxel.
        tumor_focus: share of those, in cases with a tumor, that are centered on it; the others take
            any label.
    """

    patch: Triple
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

    def crop(self, seed: int, step: int, sample: int, shape: Triple) -> Crop:
        """Return the crop of a sample.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        rng = generator(seed, step, sample, PLACE)
        case = self._cases[int(rng.integers(len(self._cases)))]
        corner = patch_corner(case, self._sampling, rng)
        sides = zip(corner, self._sampling.patch, shape, strict=True)
        z, y, x = (at - (crop - patch) // 2 for at, patch, crop in sides)
        hu, labels = _air(shape, self._air, self._device)
        case.read((z, y, x), hu, labels)
        z, y, x = (at + patch // 2 for at, patch in zip(corner, self._sampling.patch, strict=True))
        return Crop(hu, labels, case.name, (z, y, x))


def _air(shape: Triple, hu: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a crop of air and its labels; on the CPU in pinned memory where there is CUDA."""
    if device.type != "cpu":
        return (
            torch.full(shape, hu, dtype=torch.int16, device=device),
            torch.zeros(shape, dtype=torch.uint8, device=device),
        )
    # torch would fill them with as many threads as it has, beside those of the training.
    pin = torch.cuda.is_available()
    scan = torch.empty(shape, dtype=torch.int16, pin_memory=pin)
    labels = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
    scan.numpy()[...], labels.numpy()[...] = hu, 0
    return scan, labels


def patch_corner(case: Labelled, rule: Sampling, rng: np.random.Generator) -> Triple:
    """Return the first voxel of a patch, which lies in the case where that is large enough.

    nnU-Net lets patches hang over the far ends of a case. There are none in inference, and air
    teaches nothing.

    Args:
        case: in question.
        rule: says how often a patch is centered on a label.
        rng: numbers are drawn from it.
    """
    return corner_around(labelled_voxel(case, rule, rng), case.shape, rule.patch, rng)


def corner_around(
    center: Triple | None, shape: Triple, patch: Triple, rng: np.random.Generator
) -> Triple:
    """Return the first voxel of a patch about a voxel that lies in the case where it is large.

    Args:
        center: of the patch where there is room; None for any place.
        shape: of the case.
        patch: its shape.
        rng: numbers are drawn from it.
    """
    corner = []
    for axis, (size, side) in enumerate(zip(shape, patch, strict=True)):
        room = size - side
        if room < 0:
            corner.append(room // 2)
        elif center is None:
            corner.append(int(rng.integers(room + 1)))
        else:
            corner.append(min(max(center[axis] - side // 2, 0), room))
    return corner[0], corner[1], corner[2]


def labelled_voxel(case: Labelled, rule: Sampling, rng: np.random.Generator) -> Triple | None:
    """Return the voxel to be centered on; None for any place.

    In a case with ignored voxels that is always an annotated one, as in nnU-Net.

    Args:
        case: in question.
        rule: says how often that is a labelled one.
        rng: numbers are drawn from it.
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
        parts: the sources and their weights.
    """

    def __init__(self, parts: Sequence[tuple[Source, float]]) -> None:
        self._sources = [source for source, _ in parts]
        self._until = np.cumsum([weight for _, weight in parts])

    def crop(self, seed: int, step: int, sample: int, shape: Triple) -> Crop:
        """Return the crop of a sample from the source that its number falls to."""
        source = self._sources[pick(generator(seed, step, sample, SOURCE), self._until)]
        return source.crop(seed, step, sample, shape)


def cohort(
    cases: Sequence[StoredCase],
    sampling: Sampling,
    air: float,
    device: torch.device,
    budget_mb: float,
) -> Cohort:
    """Return the crops of stored cases: from a device's memory where they fit, else from disk.

    Args:
        cases: in a store.
        sampling: which crops.
        air: HU outside of a case, the lowest of the stage's range.
        device: that keeps the cases if they fit; else crops are on the CPU.
        budget_mb: of its memory that the cases may take.

    Raises:
        InputError: ``E_CORRUPT``.
    """
    if sum(case.held_bytes for case in cases) > budget_mb * 1e6:
        return Cohort(cases, sampling, air)
    held = list(each(partial(ResidentCase.of, device=device), cases))
    return Cohort(held, sampling, air, device)


def label_voxels(cases: Sequence[StoredCase], classes: int) -> npt.NDArray[np.int64]:
    """Return how many voxels each label has in all cases, (C,); ignored ones don't count.

    Args:
        cases: in a store.
        classes: C.
    """
    return np.array([sum(case.voxels.get(label, 0) for case in cases) for label in range(classes)])
