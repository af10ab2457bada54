"""One synthetic CT with its reference: a function of (seed, index, spec) and nothing else."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom

from cfseg.geometry import Geometry, Triple, TripleMm
from cfseg.phantoms.acquisition import acquire
from cfseg.phantoms.anatomy import build
from cfseg.phantoms.appearance import Look, render
from cfseg.phantoms.lesions import add_ascites, add_distractors, add_tumors
from cfseg.phantoms.rows import ROWS
from cfseg.volume import LabelMap, Volume

Spacing = Literal["3mm", "row"]
Voxel = TypeVar("Voxel", np.float32, np.uint8)
SHAPE_3MM: Triple = (96, 112, 128)
FINEST_MM = 2.0
"""Anatomy is made at this spacing at the finest and interpolated to finer grids."""


@dataclass(frozen=True)
class PhantomSpec:
    """What kind of phantom.

    Attributes:
        spacing: ``3mm`` is 128 x 112 x 96 voxels of about 3 mm; ``row`` draws the grid from
            those of real abdominal CTs.
        tumor: with tumors or without; None draws it.
    """

    spacing: Spacing = "3mm"
    tumor: bool | None = None


@dataclass(frozen=True)
class Phantom:
    """A synthetic CT.

    Attributes:
        volume: int16 HU.
        label_map: the full reference, 1..14.
        meta: seed, index, phase, tumors, distractors, volumes_ml; JSON-able.
    """

    volume: Volume
    label_map: LabelMap
    meta: dict[str, Any] = field(default_factory=dict)


def generate(seed: int, index: int, spec: PhantomSpec | None = None) -> Phantom:
    """Make phantom number ``index`` of ``seed``.

    Args:
        seed: of the cohort.
        index: of the case within it.
        spec: see :class:`PhantomSpec`.
    """
    spec = spec or PhantomSpec()
    rng = np.random.default_rng([seed, index])
    target = _grid(rng, spec.spacing)
    working = _working_grid(target)
    body = build(rng, working)
    look = Look.sample(rng)
    image = render(rng, body, look)
    labels = np.where(body.tissue <= 13, body.tissue, 0).astype(np.uint8)
    ascites = add_ascites(rng, body, image, look)
    distractors = add_distractors(rng, body, look, image)
    has_tumor = spec.tumor if spec.tumor is not None else bool(rng.random() < 0.6)
    tumors = add_tumors(rng, body, look, image, labels) if has_tumor else []
    image, labels = _to_grid(image, target.shape, 1), _to_grid(labels, target.shape, 0)
    label_map = LabelMap(labels, target)
    meta = {
        "seed": seed,
        "index": index,
        "phase": look.phase,
        "tumors": tumors,
        "distractors": distractors + (["ascites"] if ascites else []),
        "absent": list(body.absent),
        "volumes_ml": label_map.volumes_ml(),
    }
    return Phantom(Volume(acquire(rng, image, target.spacing_mm), target), label_map, meta)


def _grid(rng: np.random.Generator, spacing: Spacing) -> Geometry:
    if spacing == "3mm":
        between, within = (3.0 * rng.normal(1, 0.02) for _ in range(2))
        mm: TripleMm = (between, within, within)
        return Geometry.from_spacing(SHAPE_3MM, mm)
    row = ROWS[int(rng.integers(len(ROWS)))]
    jitter = np.clip(rng.normal(1, 0.02, 2), 0.95, 1.05)
    return Geometry.from_spacing(
        row[3:], (row[0] * jitter[0], row[1] * jitter[1], row[2] * jitter[1])
    )


def _working_grid(target: Geometry) -> Geometry:
    mm = tuple(max(s, FINEST_MM) if s < FINEST_MM else s for s in target.spacing_mm)
    shape = tuple(
        max(1, round(n * s / w))
        for n, s, w in zip(target.shape, target.spacing_mm, mm, strict=True)
    )
    spacing = [n * s / k for n, s, k in zip(target.shape, target.spacing_mm, shape, strict=True)]
    return Geometry.from_spacing(
        (shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2])
    )


def _to_grid(array: npt.NDArray[Voxel], shape: Triple, order: Literal[0, 1]) -> npt.NDArray[Voxel]:
    if array.shape == shape:
        return array
    z, y, x = (n / m for n, m in zip(shape, array.shape, strict=True))
    output = np.empty(shape, dtype=array.dtype)
    zoom(array, (z, y, x), output=output, order=order, mode="nearest", grid_mode=True)
    return output
