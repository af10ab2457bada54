"""A bundle's networks as nnU-Net v2 model folders, from which stock nnU-Net predicts the same.

nnU-Net knows one network at a time: the cascade stays behind, and each folder labels a whole scan.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from cfseg.bundle.bundle import read_weights
from cfseg.bundle.manifest import Manifest, StageEntry, read_manifest
from cfseg.bundle.plans_json import RESAMPLER
from cfseg.errors import ModelError, UsageError
from cfseg.io import make_folder, writing
from cfseg.labels import NAMES
from cfseg.networks.build import load_network
from cfseg.plan import Intensity, Resampling, StagePlan

CONFIGURATION, PLANS, TRAINER = "3d_fullres", "nnUNetPlans", "nnUNetTrainer"
FIRST_NUMBER = 901
"""Of the data sets; nnU-Net wants three digits and takes the low ones for its own."""
_UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


def export_bundle(bundle: Path, out: Path) -> list[Path]:
    """Write each network of a bundle as an nnU-Net v2 model folder.

    Args:
        bundle: folder of the bundle.
        out: folder to make; it can serve as ``nnUNet_results``.

    Returns:
        The model folders, in the order of the cascade: ``OUT/Dataset901_NAME/Trainer__Plans__...``.

    Raises:
        UsageError: the folder exists already.
        ModelError: the bundle is damaged, or a network cannot be run by nnU-Net as it is here.
        ResourceError: ``E_DISK``.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists; choose another -o")
    manifest = read_manifest(bundle)
    for entry in manifest.stages:
        _check(entry)
    make_folder(out.parent)
    with writing(out):
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".tmp-{out.name}-"))
        try:
            made = [
                _write(bundle, manifest, entry, temporary, number)
                for number, entry in enumerate(manifest.stages, start=FIRST_NUMBER)
            ]
            temporary.chmod(0o755)
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return [out / folder.relative_to(temporary) for folder in made]


def _check(entry: StageEntry) -> None:
    """Refuse a network around which cfseg computes what nnU-Net v2 does not."""
    plan, rule = entry.plan, entry.plan.resampling
    clamp = plan.intensity.clamp_hu
    wider = clamp is None or (clamp[0] <= plan.intensity.lower and plan.intensity.upper <= clamp[1])
    if rule.method != "spline" or not rule.normalize_first or not wider:
        raise ModelError(
            f"stage {entry.name} is resampled or clamped as nnU-Net v2 cannot do it "
            f"({rule.method}, normalized {'first' if rule.normalize_first else 'last'}, clamped to "
            f"{clamp}); it runs in cfseg alone"
        )


def _write(bundle: Path, manifest: Manifest, entry: StageEntry, out: Path, number: int) -> Path:
    name = f"Dataset{number}_{entry.name}"
    folder = out / name / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    (folder / "fold_all").mkdir(parents=True)
    plans = plans_json(entry.plan, name)
    dataset = dataset_json(entry.plan, manifest.notice)
    for file, values in (("plans.json", plans), ("dataset.json", dataset)):
        (folder / file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    network = load_network(
        entry.plan, read_weights(bundle / entry.weights, entry.sha256), torch.device("cpu")
    )
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": TRAINER,
        "init_args": {"configuration": CONFIGURATION, "fold": "all"},
        "inference_allowed_mirroring_axes": [0, 1, 2] if manifest.cascade.mirror else None,
    }
    torch.save(checkpoint, folder / "fold_all" / "checkpoint_final.pth")
    return folder


def dataset_json(plan: StagePlan, description: str = "") -> dict[str, Any]:
    """Return a plan's labels as ``dataset.json`` holds them, by the channel of each."""
    names = ["background", *(NAMES[label] for label in plan.labels[1:])]
    return {
        "channel_names": {"0": "CT"},
        "labels": {name: channel for channel, name in enumerate(names)},
        "file_ending": ".nii.gz",
        "numTraining": 0,
        "description": description,
    }


def plans_json(plan: StagePlan, dataset: str) -> dict[str, Any]:
    """Return a plan as ``plans.json`` holds it, with all that nnU-Net reads of it to predict."""
    return {
        "dataset_name": dataset,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": list(plan.spacing_mm),
        "original_median_shape_after_transp": list(plan.patch),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(plan.transpose),
        "transpose_backward": [plan.transpose.index(axis) for axis in range(3)],
        "experiment_planner_used": "cfseg",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": _intensity(plan.intensity)},
        "configurations": {CONFIGURATION: _configuration(plan)},
    }


def _intensity(intensity: Intensity) -> dict[str, float]:
    return {
        "mean": intensity.mean,
        "median": intensity.mean,
        "std": intensity.std,
        "min": intensity.lower,
        "max": intensity.upper,
        "percentile_00_5": intensity.lower,
        "percentile_99_5": intensity.upper,
    }


def _configuration(plan: StagePlan) -> dict[str, Any]:
    rule = plan.resampling
    return {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(plan.patch),
        "median_image_size_in_voxels": list(plan.patch),
        "spacing": list(plan.spacing_mm),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": RESAMPLER,
        "resampling_fn_seg": RESAMPLER,
        "resampling_fn_probabilities": RESAMPLER,
        "resampling_fn_data_kwargs": _arguments(rule, rule.order, rule.order_z),
        "resampling_fn_seg_kwargs": _arguments(rule, 1, 0) | {"is_seg": True},
        "resampling_fn_probabilities_kwargs": _arguments(
            rule, rule.logits_order, rule.logits_order_z
        ),
        "batch_dice": False,
        "architecture": _architecture(plan),
    }


def _arguments(rule: Resampling, order: int, order_z: int) -> dict[str, Any]:
    return {
        "is_seg": False,
        "order": order,
        "order_z": order_z,
        "force_separate_z": rule.separate_z,
        "separate_z_anisotropy_threshold": rule.anisotropy_threshold,
    }


def _architecture(plan: StagePlan) -> dict[str, Any]:
    arch = plan.architecture
    return {
        "network_class_name": _UNET,
        "arch_kwargs": {
            "n_stages": len(arch.features),
            "features_per_stage": list(arch.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [list(kernel) for kernel in arch.kernel_sizes],
            "strides": [list(stride) for stride in arch.strides],
            "n_conv_per_stage": list(arch.n_conv_encoder),
            "n_conv_per_stage_decoder": list(arch.n_conv_decoder),
            "conv_bias": arch.conv_bias,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": arch.norm_eps, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True, "negative_slope": arch.negative_slope},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
