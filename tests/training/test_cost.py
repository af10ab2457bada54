"""What training cost. No network is trained here."""

import json

import pytest
import torch
from cfseg.training.network_size import multiply_adds, parameters, read_plan

from cfseg.io import write_json
from cfseg.plan import Architecture, Intensity, StagePlan
from cfseg.recipes.recipe import load
from cfseg.training.cost import (
    Effort,
    Stopwatch,
    estimated_hours,
    read_effort,
    write_cost,
)

NNUNET = {
    "n_stages": 2,
    "features_per_stage": [2, 3],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
PLANS = {
    "configurations": {
        "3d_fullres": {
            "batch_size": 2,
            "patch_size": [4, 8, 8],
            "spacing": [4.0, 2.0, 2.0],
            "normalization_schemes": ["CTNormalization"],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.PlainConvUNet",
                "arch_kwargs": NNUNET,
            },
        }
    },
    "foreground_intensity_properties_per_channel": {
        "0": {"percentile_00_5": -100.0, "percentile_99_5": 200.0, "mean": 50.0, "std": 40.0}
    },
}
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}
PAPER = load("paper").training


def plan(patch=(4, 8, 8)):
    return StagePlan(
        spacing_mm=(4, 2, 2),
        patch=patch,
        labels=(0, 1),
        intensity=Intensity(lower=-100, upper=200, mean=50, std=40),
        architecture=Architecture(
            features=(2, 3),
            kernel_sizes=((1, 3, 3), (3, 3, 3)),
            strides=((1, 1, 1), (1, 2, 2)),
            n_conv_encoder=(1, 1),
            n_conv_decoder=(1,),
        ),
    )


# By hand, for a patch of 4 x 8 x 8 = 256 voxels and 4 x 4 x 4 = 64 after the stride:
BY_HAND = (
    256 * 9 * 1 * 2  # encoder 1
    + 64 * 27 * 2 * 3  # encoder 2, strided
    + 64 * 4 * 3 * 2  # transposed 1 x 2 x 2, from 64 voxels
    + 256 * 9 * 4 * 2  # decoder, on both skip and upsampled
    + 256 * 2 * 2  # head
)


def test_multiply_adds_as_counted_by_hand():
    assert multiply_adds(plan()) == BY_HAND
    assert multiply_adds(plan((8, 16, 16))) == 8 * BY_HAND


def test_parameters_as_counted_by_hand():
    convolutions = 9 * 2 + 27 * 2 * 3 + 4 * 3 * 2 + 9 * 4 * 2 + 2 * 2
    biases, norms = 2 + 3 + 2 + 2 + 2, 2 * (2 + 3 + 2)
    assert parameters(plan()) == convolutions + biases + norms


def test_the_plan_is_read_from_nnunets_files():
    found = read_plan(PLANS, DATASET)
    assert (found.architecture, found.patch) == (plan().architecture, plan().patch)


def test_seconds_add_up_over_attempts(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("cfseg.training.cost.perf_counter", lambda: now[0])
    fold = tmp_path / "fold_0"
    fold.mkdir()
    first = Stopwatch(fold, "tumor_2", torch.device("cpu"))
    now[0] = 10.0
    first.note(1, 250, 9.0)
    now[0] = 15.0
    first.saved()
    now[0] = 100.0
    second = Stopwatch(fold, "tumor_2", torch.device("cpu"), processes=2)
    now[0] = 107.0
    assert second.since_save() == 7
    second.note(2, 250, None)
    found = read_effort(tmp_path)
    assert (found.seconds, found.epochs, found.epoch_seconds) == (22.0, 2, 9.0)
    assert (found.network, found.processes) == ("tumor_2", 2)
    assert found.peak_mb > 10


def test_hours_are_estimated_once_an_epoch_was_timed(tmp_path):
    stage = PAPER.tumor  # 2500 epochs of 250 iterations
    assert estimated_hours(tmp_path, stage, PAPER) is None
    (tmp_path / "fold_0").mkdir()
    effort = Effort(network="tumor_1", seconds=20.0)
    write_json(tmp_path / "fold_0" / "effort.json", effort.model_dump())
    assert estimated_hours(tmp_path, stage, PAPER) is None
    timed = effort.model_copy(update={"epoch_seconds": 36.0, "iterations": 125})
    write_json(tmp_path / "fold_0" / "effort.json", timed.model_dump())
    assert estimated_hours(tmp_path, stage, PAPER) == pytest.approx(2500 * 72 / 3600)


def test_the_table_has_a_column_for_each_network(tmp_path):
    training = PAPER.model_copy(update={"power_watts": 300.0, "co2_g_per_kwh": 500.0})
    for weight, dataset, name in ((1, "Dataset001_Coarse", "coarse_1"), (2, "Dataset002_T", "t_2")):
        model = tmp_path / f"nnUNet_results_{weight}" / dataset / "nnUNetTrainer__P__3d_fullres"
        (model / "fold_0").mkdir(parents=True)
        effort = Effort(network=name, epochs=7, seconds=7200, peak_mb=512, initial_lr=0.01)
        kept = effort.model_dump(exclude=set() if weight == 1 else {"initial_lr"})
        write_json(model / "fold_0" / "effort.json", kept)
        write_json(model / "plans.json", PLANS)
        write_json(model / "dataset.json", DATASET)
    text = write_cost(tmp_path, training)
    found = json.loads((tmp_path / "cost.json").read_text())
    assert [n["network"] for n in found["networks"]] == ["coarse_1", "t_2"]
    first = found["networks"][0]
    assert first["multiply_adds"] == BY_HAND
    assert (first["hours"], first["energy_kwh"], first["co2_g"]) == (2.0, 0.6, 300.0)
    assert "| Learning rate schedule | halved every 200 epochs | halved every 200 epochs |" in text
    assert "| CO2, g | 300 | 300 |" in text
    assert "| Initial learning rate | 0.01 | - |" in text  # the second is of before it was kept
    assert [n["initial_lr"] for n in found["networks"]] == [0.01, None]
    assert "| Patch size | 4x8x8 | 4x8x8 |" in text
    assert (tmp_path / "cost.md").read_text() == text
    assert "CUDA version" in found["environment"]


def test_a_workspace_without_networks_has_an_empty_table(tmp_path):
    write_cost(tmp_path, PAPER)
    assert json.loads((tmp_path / "cost.json").read_text())["networks"] == []
