"""Three ways to the distances from one surface to another: time and whether they are the same.

SciPy's distance transform, that of the package edt (``pip install edt``), and the tree that cfseg
uses, on each label of one case, from the prediction's surface to the reference's.

Example: python benchmarks/distances.py cases/pred/case_0.nii.gz cases/ref/case_0.nii.gz
"""

import sys
import time
from pathlib import Path

import edt
import nibabel as nib
import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

from cfseg.evaluation.metrics import _border, _codes, _distances_mm


def by_scipy(here, there, spacing_mm):
    """Return distances by SciPy's transform."""
    return distance_transform_edt(~there, sampling=spacing_mm)[here]


def by_edt(here, there, spacing_mm):
    """Return distances by the package edt."""
    return edt.edt(np.ascontiguousarray(~there), anisotropy=spacing_mm, parallel=1)[here]


WAYS = {"scipy": by_scipy, "edt": by_edt, "tree": _distances_mm}


def main(pred: Path, ref: Path) -> None:
    """Print a line per label, then sums."""
    image = nib.load(ref)
    spacing_mm = tuple(float(mm) for mm in image.header.get_zooms())
    one, other = (np.asarray(nib.load(path).dataobj) for path in (pred, ref))
    sums = dict.fromkeys(WAYS, 0.0)
    for label in range(1, 15):
        either = ((one == label) | (other == label)).astype(np.uint8)
        if not either.any():
            continue
        box = find_objects(either)[0]
        here, there = (_border(_codes(ids[box] == label)) for ids in (one, other))
        found, line = {}, f"label {label}: {np.count_nonzero(here)} elements"
        for name, way in WAYS.items():
            start = time.process_time()
            found[name] = way(here, there, spacing_mm)
            seconds = time.process_time() - start
            sums[name] += seconds
            apart = np.abs(found[name] - found["scipy"])
            differ = np.count_nonzero(apart)
            line += f"; {name} {seconds:.2f} s, {differ} differ by <= {apart.max():.0e}"
        print(line, flush=True)
    print("; ".join(f"{name} {seconds:.2f} s" for name, seconds in sums.items()))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
