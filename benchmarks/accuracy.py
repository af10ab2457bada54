"""What the settings that make cfseg fast cost in accuracy, with the bundled model on phantoms."""

import math
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cases import DEFAULT_STEP
from cfseg.bundle.bundle import default_bundle
from cfseg.dataset.cases import read_cases, read_labels
from cfseg.errors import ModelError, UsageError
from cfseg.evaluation.metrics import dice
from cfseg.io import read_scan
from cfseg.labels import ORGAN_IDS, TUMOR
from cfseg.quantize import quantize
from cfseg.segmenter import Segmenter

Values = dict[str, Any]
Ids = npt.NDArray[np.uint8]
HALF = ("step.coarse=0.5", "step.tumor=0.5", "step.organ=0.5")
AS_NNUNET = (*HALF, "mirror=true", "gaussian=true")
ALONE = ("stages=coarse", f"step.coarse={DEFAULT_STEP}")
"""One network over the body: the coarse one, as it was trained on whole scans, and as
``cfseg bundle create --coarse`` makes a bundle of it (the recipe ``paper``)."""
VARIANTS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("cascade", "default", (), "fp32"),
    ("cascade", "step 0.5 in all stages", HALF, "fp32"),
    ("cascade", "step 0.5 in all stages, Gaussian", (*HALF, "gaussian=true"), "fp32"),
    ("cascade", "step 0.5, mirroring, Gaussian", AS_NNUNET, "fp32"),
    ("cascade", "step 0.75 in the fine stages", ("step.tumor=0.75", "step.organ=0.75"), "fp32"),
    ("cascade", "step 1 in the fine stages", ("step.tumor=1", "step.organ=1"), "fp32"),
    ("cascade", "coarse decoder stopped at 1/4", ("decoder_stop=2",), "fp32"),
    ("cascade", "padded by the edge", ("pad=edge",), "fp32"),
    ("cascade", "default", (), "int8"),
    ("one network", f"step {DEFAULT_STEP} (default)", ALONE, "fp32"),
    ("one network", "step 0.75", (*ALONE, "step.coarse=0.75"), "fp32"),
    ("one network", "step 1", (*ALONE, "step.coarse=1"), "fp32"),
    ("one network", "step 0.5, Gaussian", (*ALONE, *HALF, "gaussian=true"), "fp32"),
    ("one network", "step 0.5", (*ALONE, *HALF), "fp32"),
    ("one network", "step 0.5, mirroring, Gaussian", (*ALONE, *AS_NNUNET), "fp32"),
    ("one network", f"step {DEFAULT_STEP} (default)", ALONE, "int8"),
)
"""What is measured: networks, settings, what is set, precision. The first of its kind in fp32 is
the default, and the others are compared with it."""


def accuracy(v: Values) -> Values:
    """Mean DSC of the organs, and of tumors, on a cohort with one setting."""
    segmenter = Segmenter(
        v["bundle"],
        "cpu",
        overrides=tuple(v["set"]),
        backend=v["backend"],
        precision=v["precision"],
    )
    organs, tumors, seconds = [], [], []
    for case in read_cases(Path(v["cohort"])):
        reference, scan, start = read_labels(case).ids, read_scan(case.image), perf_counter()
        ids = segmenter.segment(scan).label_map.ids
        seconds.append(perf_counter() - start)
        organs.append(float(np.nanmean(organ_dsc(ids, reference))))
        if (reference == TUMOR.id).any():
            tumors.append(dice(ids == TUMOR.id, reference == TUMOR.id))
    return {"organs": organs, "tumors": tumors, "seconds": seconds}


def organ_dsc(ids: Ids, reference: Ids) -> list[float]:
    """Return the DSC of each organ, NaN where the reference has not got it.

    Args:
        ids: (Z, Y, X) label map.
        reference: (Z, Y, X) label map.
    """
    return [
        dice(ids == n, reference == n) if (reference == n).any() else math.nan for n in ORGAN_IDS
    ]


def quantized(v: Values) -> Values:
    """The bundled model in int8 by ``cfseg bundle quantize``, or why there is none."""
    try:
        made = quantize(
            default_bundle(), Path(v["calibration"]), Path(v["check"]), Path(v["bundle"]),
            lambda _: None, overwrite=True,
        )  # fmt: skip
    except (ModelError, UsageError) as error:
        return {"refused": f"{error.code}: {error.message}"}
    return {"check": made.check.model_dump()}
