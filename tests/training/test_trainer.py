import contextlib
import io
import json

import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2", reason="training needs cfseg[train]")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@pytest.fixture
def trainer(trained, tmp_path, monkeypatch):
    """A trainer of the tiny tumor model that writes elsewhere."""
    from cfseg.training.trainer import StageTrainer
    from cfseg.training.workspace import CONFIGURATION, PLANS, StageFolder, enter

    pipeline = trained.pipeline
    folder = StageFolder(pipeline.work, "tumor")
    enter(pipeline.work)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    plans = json.loads((folder.preprocessed / f"{PLANS}.json").read_text())
    plans["continue_training"] = False
    dataset = json.loads((folder.raw / "dataset.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        made = StageTrainer(plans, CONFIGURATION, 0, dataset, torch.device("cpu"))
    made.configure(pipeline.training, "tumor", pipeline.training.tumor, 3, print)
    made.initialize()
    return made


def test_the_folder_is_named_so_that_stock_nnunet_opens_it(trainer):
    assert "nnUNetTrainer__nnUNetPlans__3d_fullres" in trainer.output_folder


def test_label_weights_have_a_mean_of_one_over_the_voxels(trainer):
    weights = trainer._label_weights().numpy()
    names, _ = trainer.do_split()
    cases = trainer.dataset_class(trainer.preprocessed_dataset_folder, names)
    seen = np.concatenate([np.maximum(cases.load_case(n)[1][:], 0).ravel() for n in names])
    assert weights[seen.astype(int)].mean() == pytest.approx(1, rel=1e-4)
    assert weights[0] == weights.min()


def test_elastic_deformation_is_on_and_mirroring_off(trainer):
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    train, _ = trainer.get_dataloaders()
    found = train.data_loader.transforms.transforms
    spatial = [t for t in found if isinstance(t, SpatialTransform)]
    assert [t.p_elastic_deform for t in spatial] == [trainer.training.elastic_probability]
    assert not [t for t in found if isinstance(t, MirrorTransform)]


def test_windows_around_tumors_are_as_frequent_as_the_recipe_says():
    from cfseg.training.trainer import focused_box

    chosen: list[object] = []

    def get_bbox(shape, force_fg, class_locations, overwrite_class):
        chosen.append(overwrite_class)

    np.random.seed(0)  # noqa: NPY002 - nnU-Net's generator
    for _ in range(500):
        focused_box(get_bbox, 0.4, (8, 8, 8), True, {1: [0], 14: [0]})
    assert 160 < chosen.count(14) < 240
    assert chosen.count(14) + chosen.count(None) == 500
    chosen.clear()
    for force_fg, locations in ((False, {14: [0]}), (True, {1: [0], 14: []}), (True, {1: [0]})):
        focused_box(get_bbox, 1.0, (8, 8, 8), force_fg, locations)
    assert chosen == [None, None, None]


def test_a_checkpoint_broken_off_leaves_the_last_one(trainer, monkeypatch):
    file = f"{trainer.output_folder}/checkpoint_latest.pth"
    trainer.save_checkpoint(file)

    def broken(values, target):
        with open(target, "wb") as stream:  # noqa: PTH123
            stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(file)
    trainer.load_checkpoint(file)
    assert trainer.current_epoch == 1


def test_the_tumor_model_is_judged_by_tumor_and_the_others_by_organs(trainer):
    dice = [0.5] * 12 + [float("nan"), 0.9]
    assert trainer._score(dice) == 0.9
    trainer.role = "organ"
    assert trainer._score(dice) == 0.5


def test_the_best_is_judged_by_a_moving_average():
    from cfseg.training.trainer import is_best

    assert is_best([0.5])
    assert is_best([0.5, 0.6])
    assert not is_best([0.5, 0.4])
    assert not is_best([0.9, 0.1, 0.89])  # the average, 0.827, is below 0.9
    assert is_best([0.5, float("nan"), 0.6])
    assert is_best([float("nan")])


def test_schedules():
    from cfseg.recipes.recipe import load
    from cfseg.training.trainer import Schedule

    paper = load("paper").training
    halved = Schedule(None, paper, 1500)
    assert [halved.rate(e) for e in (0, 199, 200, 400)] == [0.01, 0.01, 0.005, 0.0025]
    demo = paper.model_copy(update={"lr_schedule": "poly", "warmup_epochs": 1})
    poly = Schedule(None, demo, 10)
    assert poly.rate(0) == 0.005
    assert poly.rate(5) == pytest.approx(0.01 * 0.5**0.9)
