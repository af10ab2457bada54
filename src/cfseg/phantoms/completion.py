"""Atlases that lack a body or organs get them from complete ones, or from a phantom.

All that is painted is consistent by itself: what is rendered from it shows what its labels say.
So nothing of a completed atlas is unknown.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from scipy.ndimage import distance_transform_edt

from cfseg.errors import InputError
from cfseg.geometry import Geometry, TripleMm
from cfseg.labels import ORGAN_IDS, ORGANS
from cfseg.phantoms import tissues as t
from cfseg.phantoms.anatomy import build
from cfseg.phantoms.atlas import Atlas, Ids
from cfseg.phantoms.body import with_body, wrapped
from cfseg.phantoms.class_names import AMBIGUOUS, UNKNOWN
from cfseg.phantoms.registration import register, residual_mm, shared_organs
from cfseg.situs import LEAST_ML

ABOVE = (1, 3, 11)
"""Liver, spleen and stomach: if one of them reaches the highest slice, the field cuts them."""
MOST_DONORS = 8
_MOST_CUT = 0.02
"""Part of a slice that may lie above or below the donor; more, and the slice goes."""
_MOST_GROWTH_MM = 10.0
"""Of a right kidney that was fitted in."""
_LEAST_PART = 0.1
"""Of a class of several organs, to be one of them."""
_PHANTOM_SEED = 0


def has_bones(atlas: Atlas) -> bool:
    """Say whether a body can be drawn around an atlas, or has been."""
    return bool((atlas.tissue == t.BONE).any())


def donors(atlases: Iterable[Atlas]) -> tuple[Atlas, ...]:
    """Return the atlases that others can be completed from, with their bodies.

    They have bones and all organs, none of them a sliver, and reach above the liver. Where there
    are none, a phantom stands in. The first :data:`MOST_DONORS` are taken.
    """
    found = tuple(map(with_body, islice(filter(_is_complete, atlases), MOST_DONORS)))
    return found or (_phantom(),)


def _is_complete(atlas: Atlas) -> bool:
    volumes = atlas.label_map.volumes_ml()
    whole = all(volumes[organ.name] >= LEAST_ML for organ in ORGANS)
    return whole and has_bones(atlas) and not np.isin(atlas.tissue[-1], ABOVE).any()


def completed(atlas: Atlas, complete: Sequence[Atlas]) -> Atlas:
    """Return an atlas with a body and all organs that lie in its field.

    Where it has bones, its body is drawn around them and only missing organs come from another
    atlas; else everything around its organs does.

    Args:
        atlas: to complete.
        complete: what :func:`donors` returned; the atlas itself may be among them.

    Raises:
        InputError: ``E_ORGANS``, it has neither bones nor two organs to fit another one to.
    """
    bones = has_bones(atlas)
    atlas = with_body(atlas) if bones else _wider(atlas)
    if bones and (not atlas.organs or len(atlas.organs) == len(ORGAN_IDS)):
        return settled(atlas)
    others = [it for it in complete if it.name != atlas.name and len(shared_organs(atlas, it)) > 1]
    if not others and bones:
        return settled(atlas)
    if not others:
        raise InputError(
            f"{atlas.name}: it has neither bones nor two organs that a complete map has too; leave "
            "it out",
            code="E_ORGANS",
        )
    donor = min(others, key=lambda it: residual_mm(atlas, it))
    source = atlas.source if donor.source in atlas.source else f"{atlas.source}; {donor.source}"
    warped = _warped(atlas, donor)
    atlas = settled(atlas, warped)
    tissue = _with_organs(atlas.tissue, warped) if bones else _around(atlas, warped)
    return Atlas.of(atlas.name, tissue, atlas.spacing_mm, source)


def settled(atlas: Atlas, warped: Ids | None = None) -> Atlas:
    """Return an atlas without ambiguous voxels.

    Args:
        atlas: perhaps with some, as of stomach and duodenum in one class.
        warped: (Z, Y, X), another anatomy laid onto it; each voxel becomes the nearest one of its
            organs that the atlas lacks. Without it they become unknown.
    """
    here = atlas.tissue == AMBIGUOUS
    if not here.any():
        return atlas
    tissue = np.where(here, UNKNOWN, atlas.tissue).astype(np.uint8)
    lacks = [organ for organ in ORGAN_IDS if organ not in atlas.organs]
    if warped is not None and np.isin(warped, lacks).any():
        found = _nearest(warped, lacks, atlas.spacing_mm)[here]
        # An organ that only touches it, as the esophagus the stomach, is no part of it.
        parts = [organ for organ in lacks if (found == organ).mean() >= _LEAST_PART]
        tissue[here] = _nearest(warped, parts or lacks, atlas.spacing_mm)[here]
    return Atlas.of(atlas.name, tissue, atlas.spacing_mm, atlas.source)


def _nearest(tissue: Ids, classes: Sequence[int], spacing_mm: TripleMm) -> Ids:
    """Return, for each voxel, the nearest one of some classes of a map."""
    nearest = distance_transform_edt(
        ~np.isin(tissue, classes),
        sampling=spacing_mm,
        return_distances=False,
        return_indices=True,
    )
    found: Ids = tissue[tuple(nearest)]
    return found


def _phantom() -> Atlas:
    mm = (3.0, 3.0, 3.0)
    grid = Geometry.from_spacing((128, 128, 144), mm)
    tissue = build(np.random.default_rng(_PHANTOM_SEED), grid).tissue
    return Atlas.of("phantom", np.where(tissue == t.TABLE, t.AIR, tissue), mm, "a phantom of cfseg")


def _wider(atlas: Atlas) -> Atlas:
    """Return organs with room for the body around them, and no more."""
    here = np.argwhere(atlas.tissue != UNKNOWN)
    if not len(here):
        return atlas
    slices, pads = [slice(None)], [(0, 0)]
    for axis in (1, 2):
        room = int(80 / atlas.spacing_mm[axis])
        first, last = int(here[:, axis].min()) - room, int(here[:, axis].max()) + 1 + room
        size = atlas.tissue.shape[axis]
        slices.append(slice(max(first, 0), min(last, size)))
        pads.append((max(-first, 0), max(last - size, 0)))
    tissue = np.pad(atlas.tissue[tuple(slices)], pads, constant_values=UNKNOWN)
    return Atlas.of(atlas.name, tissue, atlas.spacing_mm, atlas.source)


def _warped(atlas: Atlas, donor: Atlas) -> Ids:
    """Return the donor's tissues on the grid of an atlas; unknown above and below the donor."""
    index = register(atlas, donor)
    high = np.asarray(donor.tissue.shape) - 1
    beyond = (index[..., 0] < 0) | (index[..., 0] > high[0])
    z, y, x = np.moveaxis(np.clip(index, 0, high), -1, 0)
    return np.where(beyond, UNKNOWN, donor.tissue[z, y, x]).astype(np.uint8)


def _with_organs(tissue: Ids, warped: Ids) -> Ids:
    """Return a body with the organs that it lacks, where it had fat."""
    missing = [organ for organ in ORGAN_IDS if not (tissue == organ).any()]
    new = np.isin(warped, missing) & (tissue == t.VISCERAL)
    return np.where(new, warped, tissue).astype(np.uint8)


def _around(atlas: Atlas, warped: Ids) -> Ids:
    """Return the organs of an atlas in the body of another."""
    own = [int(it) for it in np.unique(atlas.tissue) if it != UNKNOWN]
    # Where the donor has an organ that lies elsewhere here, its surroundings close in.
    keep = _covered(warped)
    warped, mine = warped[keep], atlas.tissue[keep]
    rest = [int(it) for it in np.unique(warped) if it not in (*own, UNKNOWN)]
    body = _nearest(warped, rest, atlas.spacing_mm)
    tissue = np.where(mine == UNKNOWN, body, mine).astype(np.uint8)
    if 2 not in own:
        tissue = _right_kidney_as_left(tissue, atlas.spacing_mm)
    return wrapped(tissue, atlas.spacing_mm)


def _right_kidney_as_left(tissue: Ids, spacing_mm: TripleMm) -> Ids:
    """Return the tissues with a right kidney grown into fat until it is as large as the left one.

    The liver presses on it where it was fitted in, and small people give to large ones.
    """
    right = tissue == 2
    lacks = int((tissue == 13).sum()) - int(right.sum())
    if not right.any() or lacks <= 0:
        return tissue
    away = distance_transform_edt(~right, sampling=spacing_mm)
    room = np.flatnonzero((tissue == t.VISCERAL) & (away <= _MOST_GROWTH_MM))
    output = tissue.copy()
    output.flat[room[np.argsort(away.flat[room], kind="stable")[:lacks]]] = 2
    return output


def _covered(warped: Ids) -> slice:
    """Return the slices that the donor reaches."""
    whole = np.flatnonzero((warped == UNKNOWN).mean(axis=(1, 2)) <= _MOST_CUT)
    return slice(int(whole[0]), int(whole[-1]) + 1) if len(whole) else slice(None)
