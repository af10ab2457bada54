"""A bundle as nnU-Net v2 folders: read back it is the same, and stock nnU-Net predicts the same."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import ORGANS, ORGANS_AND_TUMOR, random_weights, small_plan

from cfseg.bundle.bundle import read_weights, write_bundle
from cfseg.bundle.export_v2 import export_bundle
from cfseg.bundle.manifest import read_manifest
from cfseg.bundle.nnunet_v2 import read_model_folder
from cfseg.errors import ModelError, UsageError
from cfseg.geometry import Box
from cfseg.inference.predictor import Stage, predict_labels
from cfseg.inference.sliding_window import Windows
from cfseg.networks.backends import load
from cfseg.networks.build import fitting_weights
from cfseg.plan import Resampling
from cfseg.recipes.recipe import Cascade

CPU = torch.device("cpu")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    organs, tumors = small_plan(ORGANS), small_plan(ORGANS_AND_TUMOR)
    networks = [("coarse", organs, random_weights(organs), {})]
    networks += [("tumor", tumors, random_weights(tumors, seed), {}) for seed in (1, 2)]
    return write_bundle(tmp_path / "bundle", "small", networks, Cascade(), {}, "A notice.")


def test_what_is_exported_reads_back_the_same(bundle, tmp_path):
    folders = export_bundle(bundle, tmp_path / "out")
    assert [it.parent.name for it in folders] == [
        "Dataset901_coarse", "Dataset902_tumor_1", "Dataset903_tumor_2",
    ]  # fmt: skip
    for folder, entry in zip(folders, read_manifest(bundle).stages, strict=True):
        plan, weights = read_model_folder(folder, entry.role)
        assert plan.model_copy(update={"deep_supervision": ()}) == entry.plan.model_copy(
            update={"deep_supervision": ()}
        )
        before = fitting_weights(entry.plan, read_weights(bundle / entry.weights, entry.sha256))
        after = fitting_weights(plan, weights)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert json.loads((folder / "dataset.json").read_text())["description"] == "A notice."


def test_stock_nnunet_opens_it_and_predicts_the_same(bundle, tmp_path, phantom):
    """In single precision: on a CPU, nnU-Net itself adds windows up in half precision."""
    pytest.importorskip("nnunetv2")
    (folder, *_) = export_bundle(bundle, tmp_path / "out")
    entry = read_manifest(bundle).stages[0]
    weights = read_weights(bundle / entry.weights, entry.sha256)
    network = load(entry.plan, weights, CPU, 0, "torch")
    stage = Stage("coarse", "coarse", entry.plan, network, CPU, "torch")
    part = phantom.volume.crop(Box((30, 20, 28), (70, 84, 92)))
    ours = predict_labels(stage, part, Windows(0.5, gaussian=True)).ids
    theirs = opened_by_nnunet(folder, entry.plan, part)
    assert (ours == theirs).mean() >= 0.9999
    assert len(np.unique(ours)) > 3


def opened_by_nnunet(folder, plan, volume):
    """Return the labels (Z, Y, X) of what nnU-Net's predictor makes of the folder."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
    try:
        from stock import Stock, bell_of, quiet, reference_logits
    finally:
        sys.path.pop(0)
    with quiet(), torch.inference_mode():
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), ("all",))
        assert predictor.allowed_mirroring_axes is None
        predictor.network.load_state_dict(predictor.list_of_parameters[0])
        stock = Stock(plan)
        stock.manager, stock.configuration = (
            predictor.plans_manager,
            predictor.configuration_manager,
        )
        stock.dataset = predictor.dataset_json
        data, properties = stock.prepare(volume)
        logits = reference_logits(
            predictor.network.eval(),
            data[0],
            plan.patch,
            0.5,
            len(plan.labels),
            bell_of(plan.patch),
        )
        return stock.labels(torch.from_numpy(logits), properties)


def test_what_nnunet_cannot_run_is_refused(tmp_path):
    plan = small_plan().model_copy(update={"resampling": Resampling(normalize_first=False)})
    networks = [("coarse", plan, random_weights(plan), {})]
    bundle = write_bundle(tmp_path / "b", "b", networks, Cascade(), {}, "")
    with pytest.raises(ModelError, match="stage coarse is resampled or clamped"):
        export_bundle(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(bundle, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UsageError, match="exists"):
        export_bundle(bundle, tmp_path / "out")
