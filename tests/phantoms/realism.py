"""How real the phantoms are, and how hard: the figures that the documentation reports.

Run it as a command: ``python tests/phantoms/realism.py --cases 50``. It prints the foreground's
HU figures, organ volumes, how often there are distractors, the noise, and how far two models get
that have learned no anatomy: one sees only a voxel's HU, the other is the average label map.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfseg.labels import LABELS, ORGAN_IDS
from cfseg.phantoms.phantom import Phantom, PhantomSpec, generate

CLASSES = 15
LOWEST_HU, HU_VALUES = -1024, 4096
Histogram = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Foreground:
    """Figures of the HU of all labelled voxels of a cohort."""

    mean: float
    sd: float
    p005: float
    median: float
    p995: float


def foreground(phantoms: Sequence[Phantom]) -> Foreground:
    """Return the figures over all voxels with a label."""
    counts = class_histograms(phantoms)[1:].sum(axis=0)
    hu = np.arange(HU_VALUES) + LOWEST_HU
    total = counts.sum()
    mean = float((counts * hu).sum() / total)
    sd = float(np.sqrt((counts * (hu - mean) ** 2).sum() / total))
    low, middle, high = np.searchsorted(
        counts.cumsum(), np.array([0.005, 0.5, 0.995]) * total
    ) + LOWEST_HU  # fmt: skip
    return Foreground(mean, sd, float(low), float(middle), float(high))


def class_histograms(phantoms: Sequence[Phantom]) -> Histogram:
    """Return (15, 4096) voxel counts per label and HU."""
    counts = np.zeros(CLASSES * HU_VALUES, dtype=np.int64)
    for phantom in phantoms:
        hu = phantom.volume.hu.astype(np.int64) - LOWEST_HU
        at = phantom.label_map.ids.astype(np.int64) * HU_VALUES + hu
        counts += np.bincount(at.ravel(), minlength=counts.size)
    return counts.reshape(CLASSES, HU_VALUES)


def mean_organ_dice(prediction: Ids, reference: Ids) -> float:
    """Return the mean DSC of the organs that the reference holds."""
    scores = []
    for organ in ORGAN_IDS:
        p, r = prediction == organ, reference == organ
        if r.any():
            scores.append(2 * float((p & r).sum()) / float(p.sum() + r.sum()))
    return float(np.mean(scores))


def dice_from_hu(fitted: Sequence[Phantom], held_out: Sequence[Phantom]) -> float:
    """Return the mean organ DSC of the likeliest label of a voxel's HU alone."""
    likeliest = class_histograms(fitted).argmax(axis=0).astype(np.uint8)
    return float(
        np.mean(
            [
                mean_organ_dice(
                    likeliest[p.volume.hu.astype(np.int64) - LOWEST_HU], p.label_map.ids
                )
                for p in held_out
            ]
        )
    )


def dice_from_balanced_hu(fitted: Sequence[Phantom], held_out: Sequence[Phantom]) -> float:
    """Return the same for labels made equally likely beforehand: argmax of densities."""
    counts = class_histograms(fitted).astype(float)
    likeliest = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).argmax(axis=0)
    return float(
        np.mean(
            [
                mean_organ_dice(
                    likeliest[p.volume.hu.astype(np.int64) - LOWEST_HU].astype(np.uint8),
                    p.label_map.ids,
                )
                for p in held_out
            ]
        )
    )


def average_map(phantoms: Sequence[Phantom]) -> Ids:
    """Return the most frequent label of each voxel, index by index."""
    votes = np.zeros((CLASSES, *phantoms[0].label_map.ids.shape), dtype=np.uint16)
    for phantom in phantoms:
        for label in range(CLASSES):
            votes[label] += phantom.label_map.ids == label
    return votes.argmax(axis=0).astype(np.uint8)


def dice_from_average(others: Sequence[Phantom], held_out: Sequence[Phantom]) -> float:
    """Return the mean organ DSC of the average label map of other phantoms."""
    guess = average_map(others)
    return float(np.mean([mean_organ_dice(guess, p.label_map.ids) for p in held_out]))


def distractor_share(phantoms: Sequence[Phantom]) -> float:
    """Return the share of phantoms with at least one harmless finding."""
    return float(np.mean([bool(p.meta["distractors"]) for p in phantoms]))


def noise_sd(phantom: Phantom) -> float:
    """Return the noise in the liver, HU: from differences of neighbors along z."""
    liver = phantom.label_map.ids == 1
    pairs = liver[1:] & liver[:-1]
    change = np.diff(phantom.volume.hu.astype(np.float32), axis=0)[pairs]
    return float(np.median(np.abs(change - np.median(change))) * 1.4826 / np.sqrt(2))


def volumes_ml(phantoms: Sequence[Phantom]) -> npt.NDArray[np.float64]:
    """Return (cases, 14) label volumes, ml."""
    return np.array([[p.meta["volumes_ml"][label.name] for label in LABELS] for p in phantoms])


def report(phantoms: Sequence[Phantom]) -> str:
    """Return all figures as text; the first two thirds fit, the rest is held out."""
    cut = max(1, min(20, len(phantoms) * 2 // 3))
    fitted, held_out = phantoms[:cut], phantoms[cut : cut + 10]
    f = foreground(phantoms)
    noise = [noise_sd(p) for p in phantoms]
    volumes = volumes_ml(phantoms)
    lines = [
        f"foreground HU: mean {f.mean:.1f} (70..87), sd {f.sd:.1f} (120..150), "
        f"p0.5 {f.p005:.0f} (-980..-960), median {f.median:.0f} (88..102), "
        f"p99.5 {f.p995:.0f} (270..300)",
        f"HU alone: DSC {dice_from_hu(fitted, held_out):.3f} (< .25), "
        f"with equal priors {dice_from_balanced_hu(fitted, held_out):.3f}",
        f"average label map: DSC {dice_from_average(fitted, held_out):.3f} (< .55)",
        f"distractors: {distractor_share(phantoms):.2f} of the cases (>= .30)",
        f"noise sd in the liver: median {np.median(noise):.1f} HU, "
        f"{min(noise):.1f}..{max(noise):.1f}",
    ]
    for index, label in enumerate(LABELS):
        ml = volumes[:, index]
        lines.append(
            f"{label.name:22s} {ml.mean():7.1f} +- {ml.std():6.1f} ml, "
            f"{ml.min():7.1f} .. {ml.max():7.1f}, absent in {(ml == 0).sum()}"
        )
    return "\n".join(lines)


def main() -> None:
    """Make phantoms and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--seed", type=int, default=9)
    asked = parser.parse_args()
    start = time.monotonic()
    phantoms = [generate(asked.seed, i, PhantomSpec()) for i in range(asked.cases)]
    seconds = (time.monotonic() - start) / asked.cases
    print(report(phantoms))
    print(f"{seconds:.1f} s per phantom")


if __name__ == "__main__":
    main()
