"""The cascade of the paper (2.2, 2.3): coarse model, region, tumor models, organ model, merge.

Read :func:`segment_volume` top-down; it is Figure 2 of the paper. Arrays and loaded networks in,
label map out: no paths, no files.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from cfseg.geometry import Box
from cfseg.inference.budget import Budget
from cfseg.inference.clean import clean_organs, drop_small_tumors
from cfseg.inference.clock import Clock
from cfseg.inference.merge import Ids, organs_of, tumor_over_organs, union_of_tumors
from cfseg.inference.predictor import (
    Prediction,
    Stage,
    mean_labels,
    predict,
    predict_labels,
    windows_of,
)
from cfseg.inference.region import abdominal_region, cut_sides
from cfseg.inference.sliding_window import OnWindow, Windows
from cfseg.labels import TUMOR
from cfseg.plan import Role
from cfseg.preprocessing.body import body_box
from cfseg.recipes.recipe import Cascade
from cfseg.volume import LabelMap, Volume

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, windows done and windows in all."""

Asked = tuple[tuple[str, ...], Box]
"""Names of networks, and the box of a scan that they looked at; two names mean their mean."""

Memory = MutableMapping[Asked, LabelMap]
"""What networks said about one scan.

Names tell networks apart, and nothing else does: a memory serves runs with equal steps, weights
and mirroring of the windows.
"""


@dataclass(frozen=True)
class Stages:
    """The loaded networks of a bundle; a role may be missing."""

    coarse: Stage | None = None
    tumor: tuple[Stage, ...] = ()
    organ: Stage | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that are there, in the order of the cascade."""
        found: list[tuple[Role, object]] = [
            ("coarse", self.coarse),
            ("tumor", self.tumor),
            ("organ", self.organ),
        ]
        return tuple(role for role, stage in found if stage)


@dataclass(frozen=True)
class Result:
    """What the cascade made of one scan.

    Attributes:
        label_map: the result on the scan's grid.
        status: ``empty`` when the coarse model found no abdomen.
        notes: what a reader of the result should know.
        region: the box of the scan that the fine stages saw.
        coarse: the coarse model's label map on the scan's grid.
        tumor_maps: each tumor weight's label map, tumors and organs, on the region's grid.
        organ_map: the organ model's label map on the region's grid, before cleaning.
        cascade: the values used.
        seconds: by step.
        memory: limit, plan and use, see :meth:`cfseg.inference.budget.Budget.as_dict`.
    """

    label_map: LabelMap
    status: Literal["done", "empty"] = "done"
    notes: tuple[str, ...] = ()
    region: Box | None = None
    coarse: LabelMap | None = None
    tumor_maps: tuple[LabelMap, ...] = ()
    organ_map: LabelMap | None = None
    cascade: Cascade = field(default_factory=Cascade)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)


def segment_volume(
    volume: Volume,
    stages: Stages,
    cascade: Cascade,
    on_progress: Progress | None = None,
    memory: Memory | None = None,
    budget: Budget | None = None,
) -> Result:
    """Segment one CT with the coarse-to-fine cascade.

    Args:
        volume: (Z, Y, X) in HU.
        stages: the loaded networks; those of ``cascade.stages`` that are missing are left out.
        cascade: the recipe's values.
        on_progress: see :data:`Progress`.
        memory: what it holds is not predicted again, and what is predicted goes into it; for
            several cascades of the same networks over one scan.
        budget: limit of memory; None for no limit.

    Returns:
        The result on the volume's own grid.

    Raises:
        ResourceError: ``E_TOO_LARGE``, it does not fit into the budget.
    """
    memory = {} if memory is None else memory
    return _Run(volume, stages, cascade, on_progress, memory, budget).result()


class _Run:
    """The state of one scan's way through the cascade."""

    def __init__(
        self,
        volume: Volume,
        stages: Stages,
        cascade: Cascade,
        on_progress: Progress | None,
        memory: Memory,
        budget: Budget | None,
    ) -> None:
        self.volume, self.stages, self.cascade = volume, stages, cascade
        self.on_progress, self.memory, self.budget = on_progress, memory, budget
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self.roles = tuple(role for role in cascade.stages if role in stages.roles)

    def result(self) -> Result:
        if self.budget is not None:
            self.budget.check_smallest(self.running)
        with self.clock("body"):
            body = body_box(self.volume)
        coarse, region = self.find_region(body)
        if region is None:
            return self.finished(LabelMap.empty(self.volume.geometry), body, coarse, status="empty")
        if self.roles == ("coarse",) and coarse is not None:
            with self.clock("merge"):
                cleaned = clean_organs(coarse.ids, coarse.geometry.spacing_mm, self.cascade.clean)
            return self.finished(LabelMap(cleaned, coarse.geometry), region, coarse)
        return self.refine(region, body, coarse)

    def find_region(self, body: Box) -> tuple[LabelMap | None, Box | None]:
        """Run the coarse model on the body and derive the abdominal region from its mask."""
        stage = self.stages.coarse
        if "coarse" not in self.roles or stage is None:
            return None, body
        found = self.map_of(stage, body)
        with self.clock("region"):
            coarse = self.on_scan(found.ids, body)
            box, notes = abdominal_region(coarse, body, self.cascade.region)
        self.notes += notes
        return coarse, box

    def refine(self, region: Box, body: Box, coarse: LabelMap | None) -> Result:
        """Run the fine stages on the region, once more on a larger one if it cut something."""
        tumor_maps, tumor, organs = self.fine(region)
        with self.clock("region"):
            grown = cut_sides(tumor_over_organs(organs, tumor), region, body)
        if grown is not None and coarse is not None:
            self.notes.append(f"region_grown: from {region.shape} to {grown.shape} voxels")
            region = grown
            tumor_maps, tumor, organs = self.fine(region)
        with self.clock("merge"):
            geometry, clean = self.volume.geometry, self.cascade.clean
            tumor = drop_small_tumors(tumor, geometry.voxel_ml, clean)
            merged = tumor_over_organs(clean_organs(organs, geometry.spacing_mm, clean), tumor)
            whole = self.on_scan(merged, region)
        return self.finished(whole, region, coarse, tumor_maps=tumor_maps, organs=organs)

    def fine(self, region: Box) -> tuple[tuple[LabelMap, ...], np.ndarray, Ids]:
        """Return each tumor weight's map, the merged tumor mask and the organs, on the region."""
        maps: tuple[LabelMap, ...] = ()
        tumor, organs = np.zeros(region.shape, dtype=bool), np.zeros(region.shape, np.uint8)
        if "tumor" in self.roles:
            maps, tumor, organs = self.run_tumor_models(region)
        if "organ" in self.roles and self.stages.organ is not None:
            organs = organs_of(self.map_of(self.stages.organ, region).ids)
        return maps, tumor, organs

    def run_tumor_models(self, region: Box) -> tuple[tuple[LabelMap, ...], np.ndarray, Ids]:
        """Run both tumor weights and merge them as the recipe says (paper 2.2, mask1)."""
        merge = self.cascade.merge
        needs_mean = "mean" in (merge.tumor, merge.organ) and len(self.stages.tumor) > 1
        mean = self.mean_map(self.stages.tumor, region).ids if needs_mean else None
        maps = tuple(self.map_of(stage, region) for stage in self.stages.tumor)
        tumor, organs = union_of_tumors([m.ids for m in maps]), organs_of(maps[-1].ids)
        if mean is not None:
            tumor = mean == TUMOR.id if merge.tumor == "mean" else tumor
            organs = organs_of(mean) if merge.organ == "mean" else organs
        return maps, tumor, organs

    def map_of(self, stage: Stage, box: Box) -> LabelMap:
        """Return what a network says about a box, from memory if it was asked before."""
        asked = ((stage.name,), box)
        if asked not in self.memory:
            with self.clock(stage.name):
                volume, windows = self.volume.crop(box), self.windows(stage)
                sums = self.sums(stage, box)
                found = predict_labels(stage, volume, windows, self.report(stage), sums)
                self.memory[asked] = found
                stage.rest()
        return self.memory[asked]

    def mean_map(self, stages: Sequence[Stage], box: Box) -> LabelMap:
        """Return what the mean of several networks says about a box; it remembers each too."""
        asked = (tuple(stage.name for stage in stages), box)
        if asked not in self.memory:
            predictions = [
                self.predict(stage, box, len(stages) - done) for done, stage in enumerate(stages)
            ]
            with self.clock("merge"):
                self.memory[asked] = mean_labels(predictions)
        return self.memory[asked]

    def predict(self, stage: Stage, box: Box, whole: int) -> Prediction:
        """Run a network over a box, keep all logits and remember its label map.

        Networks whose logits are to be kept, this one among them, are ``whole``.
        """
        with self.clock(stage.name):
            volume, windows = self.volume.crop(box), self.windows(stage)
            sums = self.sums(stage, box, whole)
            prediction = predict(stage, volume, windows, self.report(stage), sums)
            self.memory[((stage.name,), box)] = prediction.label_map()
            stage.rest()
        return prediction

    @property
    def running(self) -> list[Stage]:
        """The stages that take part."""
        by_role = {"coarse": (self.stages.coarse,), "tumor": self.stages.tumor}
        by_role["organ"] = (self.stages.organ,)
        return [stage for role in self.roles for stage in by_role[role] if stage is not None]

    def sums(self, stage: Stage, box: Box, whole: int = 0) -> torch.dtype:
        """Return the precision of a stage's sums that the budget allows."""
        if self.budget is None:
            return torch.float32
        others = [other for other in self.running if other is not stage]
        geometry, mirror = self.volume.geometry.cropped(box), self.cascade.mirror
        remember = self.remembers
        return self.budget.sums(
            stage, geometry, others, whole=whole, mirror=mirror, remember=remember
        )

    @property
    def remembers(self) -> bool:
        """Whether answers are held beyond what the run needs."""
        budget = self.budget
        return budget is None or budget.limit is None or not budget.asked

    def windows(self, stage: Stage) -> Windows:
        return windows_of(self.cascade, stage.role, remember=self.remembers)

    def report(self, stage: Stage) -> OnWindow | None:
        return None if self.on_progress is None else partial(self.on_progress, stage.name)

    def on_scan(self, ids: Ids, box: Box) -> LabelMap:
        """Return labels of a box as a label map of the whole scan."""
        whole = LabelMap.empty(self.volume.geometry)
        whole.ids[box.slices] = ids
        return whole

    def finished(
        self,
        label_map: LabelMap,
        region: Box,
        coarse: LabelMap | None,
        status: Literal["done", "empty"] = "done",
        tumor_maps: Sequence[LabelMap] = (),
        organs: Ids | None = None,
    ) -> Result:
        organ_map = None
        if "organ" in self.roles and organs is not None:
            organ_map = LabelMap(organs, self.volume.geometry.cropped(region))
        return Result(
            label_map=label_map,
            status=status,
            notes=tuple(self.notes),
            region=region,
            coarse=coarse,
            tumor_maps=tuple(tumor_maps),
            organ_map=organ_map,
            cascade=self.cascade,
            seconds=self.seconds,
            memory={} if self.budget is None else self.budget.as_dict(),
        )

    def clock(self, name: str) -> Clock:
        return Clock(self.seconds, name)
