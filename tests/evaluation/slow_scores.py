"""A slow, independent FLARE evaluation: loops, all pairs of surface elements, areas from a table.

``AREAS_MM2`` was computed with the package surface-distance 0.1 for a voxel of 0.7 x 1.1 x 2.3 mm;
index 128 belongs to the first corner (0, 0, 0), 64 to (0, 0, 1), ... 1 to (1, 1, 1). Codes from
128 on mirror those below it.
"""

import itertools

import numpy as np

SPACING_MM = (0.7, 1.1, 2.3)
_HALF = (
    "0 .387014 .387014 1.499417 .387014 1.32229 .774028 2.426041 .387014 .774028 1.32229 2.426041 "
    "1.499417 2.426041 2.426041 2.53 .387014 .892328 .774028 1.966041 .774028 1.546041 1.161041 "
    "2.322083 .774028 1.279342 1.709303 2.655364 1.88643 2.743928 2.813055 2.426041 .387014 "
    ".774028 .892328 1.966041 .774028 1.709303 1.279342 2.655364 .774028 1.161041 1.546041 "
    "2.322083 1.88643 2.813055 2.743928 2.426041 1.499417 1.966041 1.966041 1.61 1.88643 2.958908 "
    "2.353055 1.966041 1.88643 2.353055 2.958908 1.966041 2.998833 1.88643 1.88643 1.499417 "
    ".387014 .774028 .774028 1.88643 .892328 1.546041 1.279342 2.743928 .774028 1.161041 1.709303 "
    "2.813055 1.966041 2.322083 2.655364 2.426041 1.32229 1.546041 1.709303 2.958908 1.546041 .77 "
    "1.933055 1.546041 1.709303 1.933055 2.644579 1.709303 2.958908 1.546041 1.709303 1.32229 "
    ".774028 1.161041 1.279342 2.353055 1.279342 1.933055 1.784657 1.279342 1.161041 1.548055 "
    "1.933055 1.161041 2.353055 1.161041 1.279342 .774028 2.426041 2.322083 2.655364 1.966041 "
    "2.743928 1.546041 1.279342 .892328 2.813055 1.161041 1.709303 .774028 1.88643 .774028 "
    ".774028 .387014"
)
AREAS_MM2 = [float(text) for text in _HALF.split()]
AREAS_MM2 += AREAS_MM2[::-1]

TOLERANCES_MM = dict(zip(range(1, 15), (5, 3, 3, 5, 2, 2, 2, 2, 2, 3, 5, 7, 3, 2), strict=True))


def slow_dice(pred, ref):
    pred, ref = set(map(tuple, np.argwhere(pred))), set(map(tuple, np.argwhere(ref)))
    return 2 * len(pred & ref) / (len(pred) + len(ref)) if pred or ref else float("nan")


def elements(mask):
    """The surface elements of a mask: index and area."""
    found = []
    if not mask.any():
        return found
    first = np.argwhere(mask).min(axis=0)
    last = np.argwhere(mask).max(axis=0) + 1
    padded = np.pad(mask[tuple(map(slice, first, last))], 1)
    for place in itertools.product(*(range(n - 1) for n in padded.shape)):
        code = 0
        for corner in itertools.product((0, 1), repeat=3):
            code = 2 * code + int(padded[tuple(np.add(place, corner))])
        if code not in (0, 255):
            found.append((tuple((first + place).tolist()), AREAS_MM2[code]))
    return found


def slow_surface_dice(pred, ref, tolerance_mm):
    """NSD for :data:`SPACING_MM`."""
    one, other = elements(pred), elements(ref)
    agreeing = total = 0.0
    for these, those in ((one, other), (other, one)):
        places = np.array([place for place, _ in those]).reshape(-1, 3)
        for place, area_mm2 in these:
            away_mm = (places - place) * SPACING_MM
            nearest_mm = np.linalg.norm(away_mm, axis=1).min(initial=np.inf)
            agreeing += area_mm2 if nearest_mm <= tolerance_mm else 0
            total += area_mm2
    return agreeing / total if total else float("nan")


def slow_hausdorff(pred, ref, percent):
    """Hausdorff distance for :data:`SPACING_MM`: from each side the first, in order of distance,
    with which ``percent`` of the area is reached; the greater one."""
    one, other = elements(pred), elements(ref)
    if not one or not other:
        return float("nan")
    reached = []
    for these, those in ((one, other), (other, one)):
        places = np.array([place for place, _ in those])
        away = sorted(
            (float(np.linalg.norm((places - place) * SPACING_MM, axis=1).min()), area)
            for place, area in these
        )
        total, area_mm2 = sum(area for _, area in away), 0.0
        while area_mm2 < percent / 100 * total:
            distance_mm, element_mm2 = away.pop(0)
            area_mm2 += element_mm2
        reached.append(distance_mm)
    return max(reached)


def parts(mask):
    """Connected parts, as sets of indices, found by spreading from voxel to voxel."""
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            part.add(voxel)
            for step in steps:
                beside = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if beside in left:
                    left.remove(beside)
                    edge.append(beside)
        found.append(part)
    return found


def slow_lesions(pred, ref):
    """(voxels, covered voxels) of each lesion, sorted, and the number of false positives."""
    lesions, predicted = parts(ref), parts(pred)
    everywhere = set().union(*predicted)
    found = sorted((len(lesion), len(lesion & everywhere)) for lesion in lesions)
    steps = list(itertools.product((-1, 0, 1), repeat=3))
    halo = {
        tuple(a + b for a, b in zip(voxel, step, strict=True))
        for lesion in lesions
        for voxel in lesion
        for step in steps
    }
    return found, sum(not part & halo for part in predicted)


def slow_corrected(pred, ref):
    """(DSC, NSD, limits of HD95) by label id after the rules of corrected."""
    scores = {}
    for label, tolerance_mm in TOLERANCES_MM.items():
        one, other = pred == label, ref == label
        if not one.any() or not other.any():
            scores[label] = (float(one.any() == other.any()),) * 2 + (float("nan"),) * 2
            continue
        if label in (5, 6, 10):
            kept = [k for k in range(ref.shape[2]) if other[:, :, k].any()]
            one, other = (m[:, :, kept[0] : kept[-1] + 1] for m in (one, other))
        nsd = slow_surface_dice(one, other, tolerance_mm)
        # The table is rounded: an element at 95 % to the last digit may fall either way.
        limits = (slow_hausdorff(one, other, percent) for percent in (94.9999, 95.0001))
        scores[label] = (slow_dice(one, other), nsd, *limits)
    return scores


def slow_means(cases):
    """The lines of ``scores.txt`` for scores of :func:`slow_case`, rounded thrice."""
    names = "Liver RK Spleen Pancreas Aorta IVC RAG LAG Gallbladder Esophagus Stomach Duodenum LK"
    means = {}
    for place, metric in enumerate(("DSC", "NSD")):
        for label, name in enumerate([*names.split(), "Lesion"], start=1):
            means[f"{name}_{metric}"] = np.round(np.mean([c[label][place] for c in cases]), 4)
    for metric in ("DSC", "NSD"):
        organs = [means[f"{name}_{metric}"] for name in names.split()]
        means[f"Organ_{metric}"] = np.round(np.mean(organs), 4)
    return means


def slow_case(pred, ref):
    """(DSC, NSD) by label id after the rules of flare23, for :data:`SPACING_MM`."""
    scores = {}
    for label, tolerance_mm in TOLERANCES_MM.items():
        one, other = pred == label, ref == label
        if not one.any() or not other.any():
            scores[label] = (float(one.any() == other.any()),) * 2
            continue
        if label in (5, 6, 10):
            slices = [k for k in range(ref.shape[2]) if other[:, :, k].any()]
            kept = slice(slices[0], slices[-1])
            one, other = one[:, :, kept], other[:, :, kept]
        dsc = slow_dice(one, other)
        nsd = 0.0 if dsc < 0.2 else slow_surface_dice(one, other, tolerance_mm)
        scores[label] = (round(dsc, 4), round(nsd, 4))
    return scores


def random_labels(rng, shape, count):
    """Smooth random blobs of the labels 0..count."""
    coarse = rng.integers(0, count + 1, [-(-n // 3) for n in shape])
    fine = np.kron(coarse, np.ones((3, 3, 3), dtype=int))[tuple(slice(n) for n in shape)]
    return fine.astype(np.uint8)


def degraded(rng, ids):
    """A prediction: shifted by up to one voxel, with some voxels lost and others changed."""
    moved = np.roll(ids, rng.integers(-1, 2, 3), axis=(0, 1, 2)).copy()
    moved[rng.random(ids.shape) < 0.1] = 0
    changed = rng.random(ids.shape) < 0.03
    moved[changed] = rng.integers(1, 15, int(changed.sum()))
    return moved
