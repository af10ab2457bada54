"""One anatomy laid onto another: sizes from landmarks, then a smooth field.

Every shared organ is a channel of its own, which the filters of SimpleITK do not take: on one image
of all organs its B-splines take twenty times as long for the same overlap, its demons reach less.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import grid_sample, interpolate

from cfseg.geometry import TripleMm
from cfseg.labels import ORGAN_IDS
from cfseg.phantoms import tissues as t
from cfseg.phantoms.atlas import Atlas

Double = npt.NDArray[np.float64]
Float = npt.NDArray[np.float32]
LANDMARK_ORGANS = (1, 2, 3, 4, 9, 11, 12, 13, t.BLADDER)
"""Those that lie whole in most fields; the bladder, where both have it, holds the pelvis. Aorta,
vena cava and esophagus end where the field ends, adrenals are too small."""
SCALES = (0.75, 1.33)
"""Between two people, along an axis."""
KNOT_MM = 36.0
"""Between the knots of the field; a displacement can differ by as much before it folds."""
STEPS = 80
RATE_MM = 1.5
"""Step of Adam, mm."""
STIFFNESS = 2e-3
OVERLAP = 1.0
"""Weight of what lies where the target has its own organs."""
_STRIDE = 2
"""The field is fitted on every second voxel."""


def landmarks(atlas: Atlas, organs: Sequence[int]) -> Double:
    """Return seven points of each organ, its middle and its ends along each axis, (7 n, 3) mm."""
    points = []
    for organ in organs:
        at = np.argwhere(atlas.tissue == organ) * np.asarray(atlas.spacing_mm)
        points.append(at.mean(axis=0))
        for axis in range(3):
            for level in (0.05, 0.95):
                away = np.abs(at[:, axis] - np.quantile(at[:, axis], level))
                points.append(at[away <= 2 * max(atlas.spacing_mm)].mean(axis=0))
    return np.asarray(points)


def fit_scale(target: Double, donor: Double) -> tuple[Double, Double]:
    """Return a scale and an offset in mm along (z, y, x): donor = scale * target + offset.

    Everyone lies on the table in the same way; a free affine map of a few organs would tilt spines.

    Args:
        target: (n, 3) landmarks.
        donor: the same ones.
    """
    middle, there = target.mean(axis=0), donor.mean(axis=0)
    x, y = target - middle, donor - there
    scale = np.clip((x * y).sum(axis=0) / (x * x).sum(axis=0), *SCALES)
    return scale, there - scale * middle


def residual_mm(target: Atlas, donor: Atlas) -> float:
    """Return how far landmarks of the donor lie from the target's after scaling, mm."""
    organs = shared_organs(target, donor)
    if len(organs) < 2:
        return float("inf")
    a, b = landmarks(target, organs), landmarks(donor, organs)
    scale, offset = fit_scale(a, b)
    return float(np.linalg.norm(a * scale + offset - b, axis=1).mean())


def shared_organs(target: Atlas, donor: Atlas) -> tuple[int, ...]:
    """Return the organs by which one is laid onto the other."""
    both = np.intersect1d(target.tissue, donor.tissue)
    return tuple(organ for organ in LANDMARK_ORGANS if organ in both)


def register(target: Atlas, donor: Atlas) -> npt.NDArray[np.intp]:
    """Return which voxel of the donor belongs to each voxel of the target.

    Args:
        target: with at least two of :data:`LANDMARK_ORGANS`.
        donor: with the same ones.

    Returns:
        (Z, Y, X, 3) indices into the donor; they may lie outside of it.
    """
    organs = shared_organs(target, donor)
    scale, offset = fit_scale(landmarks(target, organs), landmarks(donor, organs))
    where = _points(target.tissue.shape, target.spacing_mm) * scale + offset
    start = where[::_STRIDE, ::_STRIDE, ::_STRIDE].astype(np.float32)
    field_mm = _field_mm(target, donor, organs, start)
    return np.rint((where + field_mm) / donor.spacing_mm).astype(np.intp)


def _field_mm(target: Atlas, donor: Atlas, organs: Sequence[int], start: Float) -> Float:
    fixed, moving = _channels(target, organs), _channels(donor, organs)
    own = fixed.amax(1).clamp(max=1)
    # What only the donor has must make room for the target's organs.
    moving = torch.cat([moving, _solid(donor, target.organs)], dim=1)
    base = torch.from_numpy(start)
    size = torch.tensor(moving.shape[2:], dtype=torch.float32)
    extent = (size - 1) * _STRIDE * torch.tensor(donor.spacing_mm)
    knots = [
        max(4, round(n * mm / KNOT_MM))
        for n, mm in zip(target.tissue.shape, target.spacing_mm, strict=True)
    ]
    knot_mm = torch.zeros(1, 3, *knots, requires_grad=True)
    adam = torch.optim.Adam([knot_mm], lr=RATE_MM)
    for _ in range(STEPS):
        place = (base + _spread(knot_mm, fixed.shape[2:])) / extent * 2 - 1
        seen = grid_sample(moving, place.flip(-1)[None], align_corners=True)
        apart = (seen[:, :-1] - fixed).square().sum() + OVERLAP * (seen[:, -1] * own).sum()
        bend = sum(knot_mm.diff(dim=axis).square().mean() for axis in (2, 3, 4))
        loss = apart / fixed.sum() + STIFFNESS * bend
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        return _spread(knot_mm, target.tissue.shape).numpy()


def _channels(atlas: Atlas, organs: Sequence[int]) -> torch.Tensor:
    masks = [_soft(atlas.tissue == organ) for organ in organs]
    return torch.from_numpy(np.stack(masks))[None]


def _solid(donor: Atlas, own: Sequence[int]) -> torch.Tensor:
    others = [organ for organ in ORGAN_IDS if organ not in own]
    solid = np.isin(donor.tissue, [*others, t.BONE, t.SPONGIOSA, t.DISC, t.CANAL])
    return torch.from_numpy(_soft(solid))[None, None]


def _soft(mask: npt.NDArray[np.bool_]) -> Float:
    smooth: Float = gaussian_filter(mask.astype(np.float32), 1.0)
    return smooth[::_STRIDE, ::_STRIDE, ::_STRIDE]


def _spread(knot_mm: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return the field between its knots, (Z, Y, X, 3) mm."""
    field = interpolate(knot_mm, size=tuple(shape), mode="trilinear", align_corners=True)
    return field[0].permute(1, 2, 3, 0)


def _points(shape: Sequence[int], spacing_mm: TripleMm | Sequence[float]) -> Double:
    axes = [np.arange(n) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
