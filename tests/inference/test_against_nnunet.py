"""The bundled model gives the same labels in our predictor as in stock nnU-Net.

Same weights, same step, mirroring and Gaussian weights in both or in neither; see docs/results.md.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from stock import reference_predict, stock_predict

from cfseg.bundle.bundle import read_weights
from cfseg.bundle.manifest import default_bundle, read_manifest
from cfseg.geometry import Box
from cfseg.inference.predictor import Stage, Windows, predict_labels
from cfseg.networks.build import load_network
from cfseg.phantoms.phantom import Phantom
from cfseg.volume import Volume

CPU = torch.device("cpu")
STEP = 0.5
ABDOMEN = Box((20, 16, 16), (84, 96, 112))
"""A part of the phantom, of which all networks need several windows along every axis."""


@pytest.fixture(scope="module")
def bundle() -> Path:
    path = default_bundle()
    if not (path / "bundle.json").is_file():
        pytest.skip("the bundled model is not built yet")
    return path


@pytest.fixture(scope="module")
def volume(phantom: Phantom) -> Volume:
    return phantom.volume.crop(ABDOMEN)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "gaussian", "mirror"),
    [("coarse", False, False), ("tumor", False, False), ("organ", False, False),
     ("coarse", True, True)],
)  # fmt: skip
def test_the_bundled_networks_agree(
    bundle: Path, volume: Volume, role: str, gaussian: bool, mirror: bool
) -> None:
    pytest.importorskip("nnunetv2")
    entry = next((e for e in read_manifest(bundle).stages if e.role == role), None)
    if entry is None:
        pytest.skip(f"the bundled model has no {role} stage")
    weights = read_weights(bundle / entry.weights, entry.sha256)
    stage = Stage(entry.role, entry.name, entry.plan, load_network(entry.plan, weights, CPU), CPU)
    windows = Windows(STEP, gaussian, mirror)
    ids = predict_labels(stage, volume, windows).ids
    reference = reference_predict(entry.plan, weights, volume, windows)
    stock = stock_predict(entry.plan, weights, volume, windows)
    print(
        f"{role}: {np.mean(ids == reference):.6%} with the reference, "
        f"{np.mean(ids == stock):.6%} with stock nnU-Net"
    )
    assert np.unique(ids).size > 2
    assert np.mean(ids == reference) >= 0.9999
    assert np.mean(ids == stock) >= 0.998
