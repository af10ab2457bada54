"""What a stage's plan is made of: intensities, grid and network, by nnU-Net's rules (paper 2.1).

A case is looked at once for it, cut along z to its labelled slices and a margin. What the recipe
gives stays as it is; the rest follows from the cases.
"""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from cfseg.bundle.plans_v2 import head_weights
from cfseg.dataset.label_names import IGNORE
from cfseg.errors import UsageError
from cfseg.foreign import problem
from cfseg.geometry import Box, Triple, TripleMm
from cfseg.io import replacing
from cfseg.labels import LABELS, ORGANS
from cfseg.plan import Architecture, Intensity, Role, StagePlan
from cfseg.recipes.training import StageTraining
from cfseg.volume import LabelMap, Volume

ANISOTROPY = 3
"""nnU-Net's: an axis whose voxels are so many times as large as the others' is coarse."""
SMALLEST_MAP = 4
"""nnU-Net's: no axis of a feature map is halved to fewer voxels."""
FEATURES, MOST_FEATURES = 32, 320
"""nnU-Net's channels of the first stage, and the most that a stage has."""
_HU = np.iinfo(np.int16)


@dataclass(frozen=True)
class Facts:
    """What planning and storing need of a case.

    Attributes:
        slices: first and last plus 1 of the slices that are kept (paper 2.1).
        shape: (z, y, x) of what is kept.
        spacing_mm: of the scan's grid, (z, y, x).
        hu: (N,) int16 values of the labelled voxels, rounded, ascending.
        voxels: (N,) int32, how many have each.
    """

    slices: tuple[int, int]
    shape: Triple
    spacing_mm: TripleMm
    hu: npt.NDArray[np.int16]
    voxels: npt.NDArray[np.int32]

    @classmethod
    def of(cls, volume: Volume, labels: LabelMap, z_margin_slices: int) -> "Facts":
        """Look at a case.

        Args:
            volume: the scan.
            labels: on its grid; ignored voxels are not labelled ones.
            z_margin_slices: kept beyond the labelled slices; all are kept where none is labelled.
        """
        labelled = (labels.ids > 0) & (labels.ids != IGNORE)
        whole = Box.whole(volume.geometry.shape)
        box = (Box.around(labelled) or whole).grow((z_margin_slices, 0, 0), whole.stop)
        slices = (box.start[0], box.stop[0])
        hu = np.rint(volume.hu[labelled]).clip(_HU.min, _HU.max).astype(np.int16)
        values, voxels = np.unique(hu, return_counts=True)
        shape = (slices[1] - slices[0], *whole.stop[1:])
        spacing = volume.geometry.spacing_mm
        return cls(slices, shape, spacing, values, voxels.astype(np.int32))

    def save(self, file: Path) -> None:
        """Write the facts to a file.

        Raises:
            ResourceError: ``E_DISK``.
        """
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, slices=self.slices, shape=self.shape, spacing_mm=self.spacing_mm,
                     hu=self.hu, voxels=self.voxels)  # fmt: skip

    @classmethod
    def load(cls, file: Path) -> "Facts | None":
        """Return what was written to a file, None if there is nothing of use.

        A damaged file is no loss: the case is looked at again.
        """
        try:
            with file.open("rb") as stream, np.load(stream) as found:
                z, y, x = (int(n) for n in found["shape"])
                sz, sy, sx = (float(s) for s in found["spacing_mm"])
                start, stop = (int(n) for n in found["slices"])
                hu, voxels = found["hu"], found["voxels"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return cls((start, stop), (z, y, x), (sz, sy, sx), hu, voxels)


def intensity(facts: Sequence[Facts], window_hu: tuple[float, float] | None = None) -> Intensity:
    """Return the statistics of the labelled voxels over the cases, as nnU-Net's fingerprint.

    Each case counts alike, however many voxels it has; one without labelled voxels does not count.

    Args:
        facts: of the cases.
        window_hu: lowest and highest HU; None takes the 0.5 and 99.5 percentiles.

    Raises:
        UsageError: no voxel is labelled, or all have one value.
    """
    known = [fact for fact in facts if fact.voxels.size]
    if not known:
        raise UsageError("no case has a labelled voxel; check the label maps of the cohort")
    share = np.zeros(int(_HU.max) - int(_HU.min) + 1)
    for fact in known:
        share[fact.hu.astype(np.int64) - _HU.min] += fact.voxels / fact.voxels.sum() / len(known)
    values = np.arange(_HU.min, int(_HU.max) + 1, dtype=np.float64)
    below = share.cumsum()
    ends = values[np.searchsorted(below, (0.005, 0.995))]
    lower, upper = (float(v) for v in (ends if window_hu is None else window_hu))
    if window_hu is not None:
        values = values.clip(lower, upper)
    mean = float(share @ values)
    std = float(np.sqrt(share @ (values - mean) ** 2))
    if not (lower < upper and std > 0):
        raise UsageError(
            f"the labelled voxels of all cases have {mean:.0f} HU; check that the scans are CTs "
            "and that the label maps belong to them"
        )
    return Intensity(lower=lower, upper=upper, mean=mean, std=std)


def target_spacing(facts: Sequence[Facts]) -> TripleMm:
    """Return the spacing of the network's grid, (z, y, x): the cases' median, as in nnU-Net.

    Where voxels are much larger along one axis, and fewer, it takes that axis's 10th percentile:
    to most cases the median would add planes that nobody has seen.

    Args:
        facts: of the cases.
    """
    spacings = np.array([fact.spacing_mm for fact in facts])
    target = np.median(spacings, axis=0)
    size = np.median([fact.shape for fact in facts], axis=0)
    coarse = int(target.argmax())
    others = [axis for axis in range(3) if axis != coarse]
    next_mm = target[others].max()
    if target[coarse] > ANISOTROPY * next_mm and size[coarse] * ANISOTROPY < size[others].min():
        found = np.percentile(spacings[:, coarse], 10)
        target[coarse] = found if found >= next_mm else next_mm + 1e-5
    z, y, x = (float(mm) for mm in target)
    return z, y, x


@dataclass(frozen=True)
class Topology:
    """How a network halves a patch.

    Attributes:
        strides: (z, y, x) of each stage.
        kernel_sizes: (z, y, x) of each stage.
        patch: the patch, enlarged to a multiple of the strides.
    """

    strides: tuple[Triple, ...]
    kernel_sizes: tuple[Triple, ...]
    patch: Triple


def topology(patch: Triple, spacing_mm: TripleMm) -> Topology:
    """Return how nnU-Net would halve a patch.

    An axis is halved while at least :data:`SMALLEST_MAP` voxels are left and its voxels are less
    than twice as large as the smallest of those that can be halved; kernels have 3 voxels along the
    axes that have been so once.

    Args:
        patch: wanted, (z, y, x).
        spacing_mm: of its voxels.
    """
    size, voxel = list(map(float, patch)), list(spacing_mm)
    strides: list[Triple] = [(1, 1, 1)]
    kernels: list[Triple] = []
    kernel = [1, 1, 1]
    while axes := _halved(size, voxel):
        kernel = [3 if v / min(voxel) < 2 else k for v, k in zip(voxel, kernel, strict=True)]
        kernels.append((kernel[0], kernel[1], kernel[2]))
        z, y, x = (2 if axis in axes else 1 for axis in range(3))
        strides.append((z, y, x))
        for axis in axes:
            size[axis], voxel[axis] = math.ceil(size[axis] / 2), voxel[axis] * 2
    down = np.prod(strides, axis=0)
    z, y, x = (int(-(-n // d) * d) for n, d in zip(patch, down, strict=True))
    return Topology(tuple(strides), (*kernels, (3, 3, 3)), (z, y, x))


def _halved(size: Sequence[float], voxel_mm: Sequence[float]) -> list[int]:
    """Return the axes that are halved next; none ends the network."""
    large = [axis for axis in range(3) if size[axis] >= 2 * SMALLEST_MAP]
    finest = min((voxel_mm[axis] for axis in large), default=0.0)
    axes = [axis for axis in large if voxel_mm[axis] / finest < 2]
    # One axis alone has to have more to give.
    return [] if len(axes) == 1 and size[axes[0]] < 3 * SMALLEST_MAP else axes


def plan_stage(role: Role, stage: StageTraining, facts: Sequence[Facts]) -> StagePlan:
    """Return the plan of a stage: the recipe's values, and nnU-Net's for those that it leaves open.

    Args:
        role: the tumor model alone knows tumors.
        stage: the recipe's.
        facts: of the cases that it learns from and is validated with.

    Raises:
        UsageError: no voxel is labelled, or the recipe's values make no network.
    """
    seen = intensity(facts, stage.window_hu)
    return plan_with(role, stage, stage.spacing_mm or target_spacing(facts), seen)


def plan_with(role: Role, stage: StageTraining, spacing_mm: TripleMm, seen: Intensity) -> StagePlan:
    """Return the plan of a stage whose grid and intensities are known.

    Args:
        role: the tumor model alone knows tumors.
        stage: the recipe's.
        spacing_mm: of the network's grid, (z, y, x).
        seen: clip and z-score.

    Raises:
        UsageError: the recipe's values make no network.
    """
    found = topology(stage.patch, spacing_mm)
    given = stage.features is not None
    features = stage.features or _features(len(found.strides))
    halving = ((1, 1, 1), *[(2, 2, 2)] * (len(features) - 1))
    try:
        return StagePlan(
            spacing_mm=spacing_mm,
            patch=stage.patch if given else found.patch,
            labels=(0, *(label.id for label in (LABELS if role == "tumor" else ORGANS))),
            architecture=Architecture(
                features=features,
                kernel_sizes=((3, 3, 3),) * len(features) if given else found.kernel_sizes,
                strides=(stage.strides or halving) if given else found.strides,
                n_conv_encoder=_each(stage.n_conv_encoder, len(features)),
                n_conv_decoder=_each(stage.n_conv_decoder, len(features) - 1),
            ),
            intensity=seen,
            deep_supervision=head_weights(len(features) - 1),
        )
    except ValidationError as error:
        raise UsageError(f"training.{role}: {problem(error)}; change the recipe") from error


def _features(stages: int) -> tuple[int, ...]:
    return tuple(min(FEATURES * 2**stage, MOST_FEATURES) for stage in range(stages))


def _each(convolutions: int | tuple[int, ...], stages: int) -> tuple[int, ...]:
    return (convolutions,) * stages if isinstance(convolutions, int) else convolutions
