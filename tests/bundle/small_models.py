"""Small networks for the tests of this folder: plans, weights, nnU-Net v2 folders, v1 networks."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cfseg.networks.build import build_network
from cfseg.plan import Architecture, Intensity, StagePlan

STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2))
FEATURES = (4, 8, 8, 8)
ORGANS = tuple(range(14))
ORGANS_AND_TUMOR = tuple(range(15))


def small_plan(labels=ORGANS, spacing_mm=(3.0, 2.0, 2.0), deep_supervision=(0.6, 0.4, 0.0)):
    return StagePlan(
        spacing_mm=spacing_mm,
        patch=(8, 16, 16),
        labels=labels,
        architecture=Architecture(
            features=FEATURES,
            kernel_sizes=((3, 3, 3),) * 4,
            strides=STRIDES,
            n_conv_encoder=(2,) * 4,
            n_conv_decoder=(2,) * 3,
        ),
        intensity=Intensity(lower=-160.0, upper=300.0, mean=70.0, std=80.0),
        deep_supervision=deep_supervision,
    )


def random_weights(plan, seed=0):
    """Return weights under one name each, as a checkpoint reader gives them."""
    torch.manual_seed(seed)
    return {
        name: torch.randn(tensor.shape) / 4
        for name, tensor in build_network(plan).state_dict().items()
        if not name.startswith("decoder.encoder.") and ".all_modules." not in name
    }


def image(seed=0):
    return torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(seed))


# -- nnU-Net v2 ----------------------------------------------------------------------------------

NEW_NETWORK = {
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": list(FEATURES),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 4,
            "strides": [list(s) for s in STRIDES],
            "n_conv_per_stage": [2] * 4,
            "n_conv_per_stage_decoder": [2] * 3,
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
}
OLD_NETWORK = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "n_conv_per_stage_encoder": [2] * 4,
    "n_conv_per_stage_decoder": [2] * 3,
    "num_pool_per_axis": [2, 3, 3],
    "pool_op_kernel_sizes": [list(s) for s in STRIDES],
    "conv_kernel_sizes": [[3, 3, 3]] * 4,
    "unet_max_num_features": 8,
}


def configuration(network):
    kwargs = {"order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 16, 16],
        "median_image_size_in_voxels": [20.0, 30.0, 30.0],
        "spacing": [3.0, 2.0, 2.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3} | kwargs,
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1} | kwargs,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1} | kwargs,
        "batch_dice": False,
        **network,
    }


def plans_json(network=NEW_NETWORK):
    return {
        "dataset_name": "Dataset001_Test",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 2.0, 2.0],
        "original_median_shape_after_transp": [20, 30, 30],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": json.loads(json.dumps(configuration(network)))},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 900.0,
                "mean": 70.0,
                "median": 80.0,
                "min": -500.0,
                "percentile_00_5": -160.0,
                "percentile_99_5": 300.0,
                "std": 80.0,
            }
        },
    }


def dataset_json(names=None):
    names = names or ["background"] + [str(i) for i in range(1, 14)]
    return {
        "channel_names": {"0": "CT"},
        "labels": {name: i for i, name in enumerate(names)},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }


def checkpoint(plan, trainer="nnUNetTrainer", seed=0):
    """Return what nnU-Net's trainer saves, repeated names and numpy floats in the log included."""
    network = build_network(plan)
    torch.manual_seed(seed)
    for tensor in network.parameters():
        tensor.data = torch.randn(tensor.shape) / 4
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": {
            "train_losses": [np.float64(0.5), np.float32(0.25)],
            "ema_fg_dice": [np.float64(0.5)],
            "lrs": [0.01],
        },
        "_best_ema": np.float64(0.5),
        "current_epoch": 3,
        "init_args": {
            "plans": plans_json(),
            "configuration": "3d_fullres",
            "fold": 0,
            "dataset_json": dataset_json(),
            "device": torch.device("cpu"),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


def write_model_folder(
    folder: Path, plan, *, plans=None, dataset=None, trainer="nnUNetTrainer", folds=("0",), seed=0
) -> Path:
    model = folder / f"{trainer}__nnUNetPlans__3d_fullres"
    model.mkdir(parents=True)
    labels = ["background"] + [str(i) for i in range(1, len(plan.labels))]
    (model / "plans.json").write_text(json.dumps(plans or plans_json()))
    (model / "dataset.json").write_text(json.dumps(dataset or dataset_json(labels)))
    for fold in folds:
        (model / f"fold_{fold}").mkdir()
        state = checkpoint(plan, trainer, seed)
        torch.save(state, model / f"fold_{fold}" / "checkpoint_final.pth")
    return model


# -- nnU-Net v1: its layer names and its wiring, written again from their description -------------


class V1Layer(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, stride, padding=1)
        self.instnorm = nn.InstanceNorm3d(outputs, eps=1e-5, affine=True)

    def forward(self, x):
        return nn.functional.leaky_relu(self.instnorm(self.conv(x)), 0.01)


class V1Stack(nn.Module):
    def __init__(self, inputs, outputs, layers, stride=1):
        super().__init__()
        first = V1Layer(inputs, outputs, stride)
        others = [V1Layer(outputs, outputs, 1) for _ in range(layers - 1)]
        self.blocks = nn.Sequential(first, *others)

    def forward(self, x):
        return self.blocks(x)


def v1_halves(inputs, outputs, layers, stride=1):
    return nn.Sequential(V1Stack(inputs, outputs, layers - 1, stride), V1Stack(outputs, outputs, 1))


class V1UNet(nn.Module):
    """Strided convolutions down, transposed convolutions up, a head on each decoder stage."""

    def __init__(self, classes, features=FEATURES, pools=STRIDES[1:], layers=2):
        super().__init__()
        down = [1, *features]
        strides = [1, *pools]
        stages = [V1Stack(down[i], down[i + 1], layers, strides[i]) for i in range(len(pools))]
        bottom = v1_halves(down[-2], down[-1], layers, strides[-1])
        self.conv_blocks_context = nn.ModuleList([*stages, bottom])
        up = list(features[::-1])
        pairs = list(zip(up, up[1:], pools[::-1], strict=False))
        self.conv_blocks_localization = nn.ModuleList(
            v1_halves(2 * skip, skip, layers) for _, skip, _ in pairs
        )
        self.tu = nn.ModuleList(
            nn.ConvTranspose3d(below, skip, pool, pool, bias=False) for below, skip, pool in pairs
        )
        self.seg_outputs = nn.ModuleList(
            nn.Conv3d(skip, classes, 1, bias=False) for _, skip, _ in pairs
        )

    def forward(self, x):
        """Return the logits of all heads, finest first."""
        skips, logits = [], []
        for stage in self.conv_blocks_context[:-1]:
            x = stage(x)
            skips.append(x)
        x = self.conv_blocks_context[-1](x)
        for number, tu in enumerate(self.tu):
            x = torch.cat((tu(x), skips[-(number + 1)]), dim=1)
            x = self.conv_blocks_localization[number](x)
            logits.append(self.seg_outputs[number](x))
        return logits[::-1]


def random_v1(classes, seed=0, **layout):
    network = V1UNet(classes, **layout)
    torch.manual_seed(seed)
    for tensor in network.parameters():
        tensor.data = torch.randn(tensor.shape) / 2
    return network.eval()
