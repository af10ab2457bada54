"""DSC, NSD and HD95 of a folder as one would write it down: whole volumes, label by label.

The rules are those of the official FLARE 2023 evaluation. Uses the package surface-distance, whose
calls of old NumPy and SciPy names are answered here.

Example: python benchmarks/straightforward_scores.py cases/pred cases/ref scores.json
"""

import json
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np

np.Inf = np.inf
warnings.filterwarnings("ignore", category=DeprecationWarning)

TOLERANCES_MM = (5, 3, 3, 5, 2, 2, 2, 2, 2, 3, 5, 7, 3, 2)


def scores(pred, ref, spacing_mm, label):
    """Return (DSC, NSD, HD95) of a label."""
    from surface_distance import (
        compute_dice_coefficient,
        compute_robust_hausdorff,
        compute_surface_dice_at_tolerance,
        compute_surface_distances,
    )

    one, other = pred == label, ref == label
    if not one.any() or not other.any():
        agree = float(one.any() == other.any())
        return agree, agree, None
    if label in (5, 6, 10):
        slices = np.flatnonzero(other.any(axis=(0, 1)))
        one, other = (mask[:, :, slices[0] : slices[-1]] for mask in (one, other))
    dsc = compute_dice_coefficient(other, one)
    distances = compute_surface_distances(other, one, spacing_mm)
    nsd = compute_surface_dice_at_tolerance(distances, TOLERANCES_MM[label - 1])
    hd95 = compute_robust_hausdorff(distances, 95)
    return round(dsc, 4), round(nsd, 4) if dsc >= 0.2 else 0.0, hd95


def main(pred: Path, ref: Path, out: Path) -> None:
    """Score all cases and write them as JSON."""
    found = {}
    for path in sorted(ref.glob("*.nii.gz")):
        reference, prediction = nib.load(path), nib.load(pred / path.name)
        arrays = [np.asarray(image.dataobj).astype(np.int8) for image in (prediction, reference)]
        spacing_mm = [float(mm) for mm in reference.header.get_zooms()]
        name = path.name.removesuffix(".nii.gz")
        found[name] = {label: scores(*arrays, spacing_mm, label) for label in range(1, 15)}
        print(name, file=sys.stderr, flush=True)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
