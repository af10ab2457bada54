"""Crops of label maps that become CT as they are asked for: real anatomy, ever new looks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cfseg.feed.crops import Crop, Sampling
from cfseg.feed.randomness import RENDERING, generator, pick
from cfseg.feed.rendering import acquisition, appearance, lesions
from cfseg.feed.rendering.anatomy import Map, place, read
from cfseg.feed.rendering.elsewhere import KINDS, field_of
from cfseg.feed.rendering.lesions import Findings
from cfseg.feed.rendering.ranges import PHASES, Rendering
from cfseg.feed.rendering.scene import Scene
from cfseg.geometry import Triple
from cfseg.labels import ORGAN_IDS, TUMOR
from cfseg.phantoms.appearance import Look
from cfseg.phantoms.atlas import Atlas
from cfseg.plan import StagePlan


class _Field(NamedTuple):
    """What a crop is of, before anything is seen of it."""

    name: str
    center: Triple
    findings: Findings
    tissue: torch.Tensor
    labels: torch.Tensor


class Rendered:
    """Crops of label maps and of fields without an abdomen, rendered one by one.

    Only what a crop shows is computed, at the stage's spacing, on one device. Where a network does
    not know tumors, a tumor's voxels keep the label of the organ that it took the place of.

    Args:
        atlases: the anatomies; with none of them, all crops are fields without an abdomen.
        plan: of the network.
        sampling: which crops.
        device: that they are made on; all maps are kept there.
        empty_share: of the crops that have no abdomen.
        ranges: how far all varies.
    """

    def __init__(
        self,
        atlases: Sequence[Atlas],
        plan: StagePlan,
        sampling: Sampling,
        device: torch.device,
        *,
        empty_share: float = 0.1,
        ranges: Rendering | None = None,
    ) -> None:
        self._maps = [Map.of(atlas, device) for atlas in atlases]
        self._plan, self._sampling, self._device = plan, sampling, device
        self._empty_share, self._ranges = empty_share if atlases else 1.0, ranges or Rendering()
        weights = [self._ranges.complete_weight if _complete(one) else 1.0 for one in self._maps]
        self._until = np.cumsum(weights)

    def crop(self, seed: int, step: int, sample: int, shape: Triple) -> Crop:
        """Return the crop of a sample."""
        rng = generator(seed, step, sample, RENDERING)
        torch_rng = torch.Generator(self._device).manual_seed(int(rng.integers(2**63)))
        plan = self._plan
        back = [plan.transpose.index(axis) for axis in range(3)]
        z, y, x = (shape[axis] for axis in back)
        if rng.random() < self._empty_share:
            field = self._elsewhere((z, y, x), rng)
        else:
            field = self._anatomy((z, y, x), rng, torch_rng)
        look = Look.sample(rng, PHASES, self._ranges.wild_probability, self._ranges.wild_spread)
        mm = plan.original_spacing_mm
        scene = Scene(rng, torch_rng, self._ranges, mm, look, field.tissue, field.labels)
        image = self._image(scene, field.findings)
        limits = plan.intensity.lower, plan.intensity.upper
        hu = image.clamp_(*limits).round_().to(torch.int16).permute(plan.transpose)
        ids = scene.labels.permute(plan.transpose)
        return Crop(hu.contiguous(), ids.contiguous(), f"{field.name}, {look.phase}", field.center)

    def _anatomy(
        self, shape: Triple, rng: np.random.Generator, torch_rng: torch.Generator
    ) -> _Field:
        """Read a map about a voxel of it, and decide what will be found there."""
        source = self._maps[pick(rng, self._until)]
        ranges, mm, sampling = self._ranges, self._plan.original_spacing_mm, self._sampling
        findings = Findings.sample(
            rng, ranges.tumor_probability, ranges.distractor_probability,
            ranges.both_probability, sampling.tumor_focus,
        )  # fmt: skip
        patch = [sampling.patch[self._plan.transpose.index(axis)] for axis in range(3)]
        reach_mm = [side * own for side, own in zip(patch, mm, strict=True)]
        host = findings.host if findings.central else 0
        center = place(source, sampling, reach_mm, host, rng)
        tissue, labels = read(source, center, shape, mm, ranges, rng, torch_rng)
        return _Field(source.name, center, findings, tissue, labels)

    def _elsewhere(self, shape: Triple, rng: np.random.Generator) -> _Field:
        """Make a field without an abdomen, about its middle."""
        kind = str(rng.choice(KINDS))
        tissue = field_of(kind, shape, self._plan.original_spacing_mm, rng, self._device)
        return _Field(kind, (0, 0, 0), Findings(), tissue, torch.zeros_like(tissue))

    def _image(self, scene: Scene, findings: Findings) -> torch.Tensor:
        """Return (Z, Y, X) HU; labels of what was painted or cut off are the scene's."""
        acquisition.surround(scene)
        appearance.guess_unknown(scene)
        image, organs = appearance.render(scene), scene.labels
        scene.labels = organs.clone()
        lesions.paint(scene, image, findings)
        if TUMOR.id not in self._plan.labels:
            scene.labels = organs
        return acquisition.acquire(scene, image)


def _complete(one: Map) -> bool:
    return all(organ in one.voxels for organ in ORGAN_IDS)
