"""The rows of an ablation: cascades with some of the networks of a bundle.

All rows of a scan share one memory, so a network runs once (once more where a row's region is
another one), and each row is exactly what the cascade gives with these stages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cfseg.bundle.bundle import Manifest, load_stages
from cfseg.errors import ModelError
from cfseg.inference.cascade import Memory, Progress, Stages, segment_volume
from cfseg.inference.clean import clean_organs
from cfseg.inference.merge import Ids
from cfseg.inference.region import near_liver
from cfseg.labels import LABELS, ORGAN_IDS
from cfseg.networks.backends import Backend
from cfseg.plan import Role
from cfseg.recipes.recipe import Cascade
from cfseg.recipes.recipe import load as load_recipe
from cfseg.volume import LabelMap, Volume

CSM_CUT, CSM, TWO_STAGE, CFS = "csm_cut", "csm", "two_stage", "cfs"
WEIGHT_1, WEIGHT_2 = "tumor_weight1", "tumor_weight2"


@dataclass(frozen=True)
class Variant:
    """One row: a part of the method.

    Attributes:
        name: of the row.
        stages: the networks.
        cascade: how they work together; its ``stages`` are those of the row.
        cut: the coarse mask is cut down as the authors' code does it, see :func:`cut_down`.
    """

    name: str
    stages: Stages
    cascade: Cascade
    cut: bool = False

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that this row can find."""
        knows_tumors = "tumor" in self.cascade.stages
        return tuple(label.id for label in LABELS) if knows_tumors else ORGAN_IDS


def rows_of(manifest: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the rows that a bundle's networks can give, and a note on those that are missing.

    Raises:
        ModelError: there are none.
    """
    weights = len(manifest.plans("tumor"))
    needs: dict[str, tuple[tuple[Role, ...], int]] = {
        CSM_CUT: (("coarse",), 0),
        CSM: (("coarse",), 0),
        TWO_STAGE: (("coarse", "tumor"), 1),
        CFS: (("coarse", "tumor", "organ"), 1),
        WEIGHT_1: (("coarse", "tumor", "organ"), 2),
        WEIGHT_2: (("coarse", "tumor", "organ"), 2),
    }
    found = tuple(
        name
        for name, (roles, count) in needs.items()
        if set(roles) <= set(manifest.roles) and weights >= count
    )
    if not found:
        raise ModelError(
            f"bundle {manifest.name} has no coarse network, so nothing can be compared; "
            "give the bundle of a whole training"
        )
    missing = [name for name in needs if name not in found]
    has = ", ".join(entry.name for entry in manifest.stages)
    note = f"left out: {', '.join(missing)}; the bundle has only {has}"
    return found, (note,) if missing else ()


def variants(
    bundle: Path,
    manifest: Manifest,
    cascade: Cascade,
    names: Sequence[str],
    device: torch.device,
    backend: Backend = "torch",
) -> tuple[Variant, ...]:
    """Load the networks of a bundle and return its rows.

    Args:
        bundle: its folder.
        manifest: of that folder.
        cascade: how the networks work together.
        names: of the rows, see :func:`rows_of`.
        device: where networks run.
        backend: what runs them.

    Raises:
        ModelError: the bundle is damaged.
    """
    load = partial(load_stages, bundle, manifest, device=device, backend=backend)
    stages = load(manifest.roles, decoder_stop=cascade.decoder_stop)
    whole = stages
    if cascade.decoder_stop:
        whole = _renamed(load(("coarse",)), "coarse_whole")
    made = {
        CSM: Variant(CSM, whole, _with(cascade, "coarse")),
        TWO_STAGE: Variant(TWO_STAGE, stages, _with(cascade, "coarse", "tumor")),
        CFS: Variant(CFS, stages, _with(cascade, "coarse", "tumor", "organ")),
        CSM_CUT: _cut_variant(load),
    }
    for name, weight in ((WEIGHT_1, stages.tumor[:1]), (WEIGHT_2, stages.tumor[1:])):
        made[name] = Variant(name, replace(stages, tumor=weight), made[CFS].cascade)
    return tuple(made[name] for name in names)


def _cut_variant(load: Callable[..., Stages]) -> Variant:
    """Return the coarse mask of the authors' code, whose values are the recipe ``authors``.

    The decoder stops as early as theirs does, or as early as this network can.

    Args:
        load: gives the stages of the bundle for roles and ``decoder_stop``.
    """
    authors = load_recipe("authors").cascade
    for stop in range(authors.decoder_stop, -1, -1):
        try:
            stages = load(("coarse",), decoder_stop=stop)
        except ModelError:
            if stop == 0:
                raise
            continue
        cascade = authors.model_copy(update={"stages": ("coarse",), "decoder_stop": stop})
        return Variant(CSM_CUT, _renamed(stages, f"coarse_stop_{stop}"), cascade, cut=True)
    raise AssertionError("the last try returns or raises")


def _renamed(stages: Stages, name: str) -> Stages:
    """Return the coarse network alone under another name: a memory goes by names."""
    if stages.coarse is None:
        raise ModelError("the bundle has no coarse network; give that of a whole training")
    return Stages(coarse=replace(stages.coarse, name=name))


def _with(cascade: Cascade, *roles: Role) -> Cascade:
    return cascade.model_copy(update={"stages": roles})


def label_maps(
    volume: Volume, rows: Sequence[Variant], on_progress: Progress | None = None
) -> dict[str, LabelMap]:
    """Return what each row makes of a scan, on the scan's grid.

    Args:
        volume: (Z, Y, X) in HU.
        rows: of :func:`variants`.
        on_progress: called with a stage's name, windows done and windows in all.
    """
    memory: Memory = {}
    made = {}
    for row in rows:
        result = segment_volume(volume, row.stages, row.cascade, on_progress, memory)
        made[row.name] = result.label_map
        if row.cut and result.coarse is not None:
            ids = cut_down(result.coarse, row.cascade)
            made[row.name] = LabelMap(ids, volume.geometry)
    return made


def cut_down(coarse: LabelMap, cascade: Cascade) -> Ids:
    """Cut a coarse mask down as the authors' code does before it takes the region from it.

    Parts far from the liver go, then all but the largest part of most organs, then the organs that
    the region ignores. It is this mask that the paper's Table 5 calls CSM.

    Args:
        coarse: the coarse model's label map.
        cascade: with the authors' values of ``region`` and ``clean``.

    Returns:
        (Z, Y, X) label ids.
    """
    region, ids = cascade.region, coarse.ids
    if region.centroid_mm is not None:
        ids = np.where(near_liver(ids > 0, coarse, region.centroid_mm), ids, np.uint8(0))
    ids = clean_organs(ids, coarse.geometry.spacing_mm, cascade.clean)
    return np.where(np.isin(ids, region.ignore), np.uint8(0), ids)
