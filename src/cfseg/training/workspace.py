"""nnU-Net's folders inside of ours: raw cases, plans edited by the recipe, preprocessed cases.

nnU-Net looks for its folders in environment variables. They are set for this process alone, from
the workspace; whoever trains never has to set them.
"""

# nnU-Net ships no types.
# mypy: disable-error-code="no-untyped-call,no-any-return"

import contextlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cfseg.dataset.cases import each
from cfseg.geometry import Box, Geometry
from cfseg.io import make_folder, replacing, write_json
from cfseg.io.source import RAS_TO_ZYX
from cfseg.labels import LABELS
from cfseg.plan import Role
from cfseg.recipes.training import StageTraining, Training
from cfseg.volume import LabelMap, Volume

CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"
FACTS = "facts"
"""Folder of what is known of each case until the fingerprint is whole."""
WORKERS = "nnUNet_n_proc_DA"
DATASET = {"coarse": "Dataset001_Coarse", "tumor": "Dataset002_Tumor", "organ": "Dataset003_Organ"}


@dataclass(frozen=True)
class StageFolder:
    """Where the data and results of one stage, or of one round of the teacher, lie.

    Attributes:
        work: the workspace.
        role: the stage, which decides the classes; a teacher has those of the organ model.
        round: of the teacher, counted from 1; 0 is the stage itself.
    """

    work: Path
    role: Role
    round: int = 0

    @property
    def name(self) -> str:
        """nnU-Net's name of the data set."""
        if self.round:
            return f"Dataset{len(DATASET) + self.round:03d}_Teacher{self.round}"
        return DATASET[self.role]

    @property
    def raw(self) -> Path:
        """Cropped scans and their labels."""
        return self.work / "nnUNet_raw" / self.name

    @property
    def preprocessed(self) -> Path:
        """Plans and resampled cases."""
        return self.work / "nnUNet_preprocessed" / self.name

    def image(self, case: str) -> Path:
        """Return the cropped scan of a case."""
        return self.raw / "imagesTr" / f"{case}_0000.nii.gz"

    def label(self, case: str) -> Path:
        """Return what a case is learned from."""
        return self.raw / "labelsTr" / f"{case}.nii.gz"

    def cases(self) -> list[str]:
        """Return the names of the cases that were written."""
        return sorted(p.name.removesuffix(".nii.gz") for p in self.label("x").parent.glob("*.gz"))

    def model(self, weight: int) -> Path:
        """Return the model folder of a weight (1 or 2), as stock nnU-Net expects it."""
        base = self.work / f"nnUNet_results_{weight}" / self.name
        return base / f"nnUNetTrainer__{PLANS}__{CONFIGURATION}"


def enter(work: Path, weight: int = 1) -> None:
    """Point nnU-Net at the workspace, for this process. No worker processes, no compiling."""
    os.environ |= {
        "nnUNet_raw": str(work / "nnUNet_raw"),
        "nnUNet_preprocessed": str(work / "nnUNet_preprocessed"),
        "nnUNet_results": str(work / f"nnUNet_results_{weight}"),
        "nnUNet_compile": "false",
        WORKERS: "0",
    }


def class_names(role: Role) -> dict[str, int]:
    """Return the classes of a stage: the tumor model alone knows tumors."""
    labels = LABELS if role == "tumor" else LABELS[:13]
    return {"background": 0} | {label.name: label.id for label in labels}


def write_case(
    folder: StageFolder, name: str, volume: Volume, labels: LabelMap, z_margin_slices: int
) -> None:
    """Write one case, cropped along z to the labelled slices and a margin (paper 2.1)."""
    box = Box.around(labels.ids > 0) or Box.whole(volume.geometry.shape)
    zbox = box.grow((z_margin_slices, 0, 0), volume.geometry.shape)
    whole = Box((zbox.start[0], 0, 0), (zbox.stop[0], *volume.geometry.shape[1:]))
    scan, target = volume.crop(whole), labels.crop(whole)
    _save(folder.label(name), target.ids, target.geometry)
    _save(folder.image(name), scan.hu, scan.geometry)


def _save(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write a canonical array; SimpleITK reads it back as (z, y, x)."""
    affine = np.linalg.inv(RAS_TO_ZYX) @ geometry.affine
    image = nib.Nifti1Image(array.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])
    image.set_qform(image.affine, code=1)
    with replacing(path) as temporary:
        nib.save(image, temporary)


def prepare(
    folder: StageFolder,
    training: Training,
    stage: StageTraining,
    split: tuple[list[str], list[str]],
    jobs: int = 1,
) -> None:
    """Plan and preprocess a stage's cases with nnU-Net, in threads of this process.

    nnU-Net would start a pool of workers for each part, which costs more than the work itself on
    a small data set. Reading, resampling and compressing release the interpreter's lock.

    Args:
        folder: of the stage, with its cases written.
        training: what all stages share.
        stage: what is this stage's own.
        split: names of the cases to learn from and to validate with.
        jobs: threads, each with a case in memory.
    """
    enter(folder.work)
    cases = sorted({*split[0], *split[1]})
    write_json(
        folder.raw / "dataset.json",
        {
            "channel_names": {"0": "CT"},
            "labels": class_names(folder.role),
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            # Without the list nnU-Net forks a pool of processes to find the files, and a child
            # forked beside other threads may never end.
            "dataset": {
                case: {
                    "images": [folder.image(case).relative_to(folder.raw).as_posix()],
                    "label": folder.label(case).relative_to(folder.raw).as_posix(),
                }
                for case in cases
            },
        },
    )
    with contextlib.redirect_stdout(io.StringIO()):
        found = _fingerprint(folder, cases, jobs, stage.window_hu)
        write_json(folder.preprocessed / "dataset_fingerprint.json", found)
        plans = edited(_planned(folder), training, stage)
        write_json(folder.preprocessed / f"{PLANS}.json", plans)
        write_json(
            folder.preprocessed / "splits_final.json", [{"train": split[0], "val": split[1]}]
        )
        _preprocess(folder, cases, plans, jobs)
    shutil.rmtree(folder.preprocessed / FACTS, ignore_errors=True)


def _facts(folder: StageFolder, samples: int, case: str) -> dict[str, Any]:
    """Return shape, spacing, foreground intensities and relative size of a case, once looked at.

    Args:
        folder: of the stage.
        samples: how many intensities.
        case: its name.
    """
    file = folder.preprocessed / FACTS / f"{case}.npz"
    if not file.exists():
        from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
            DatasetFingerprintExtractor,
        )
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

        shape, spacing, intensities, _, relative = DatasetFingerprintExtractor.analyze_case(
            [str(folder.image(case))], str(folder.label(case)), SimpleITKIO, samples
        )
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, shape=shape, spacing=spacing, hu=intensities[0], relative=relative)
    with np.load(file) as stored:
        return dict(stored)


def _fingerprint(
    folder: StageFolder, cases: Sequence[str], jobs: int, window_hu: tuple[float, float] | None
) -> dict[str, Any]:
    samples = min(int(10e7 // max(1, len(cases))), 100_000)
    found = list(each(partial(_facts, folder, samples), cases, jobs))
    hu = np.concatenate([facts["hu"] for facts in found])
    if window_hu is not None:
        hu = hu.clip(*window_hu)
    low, median, high = (float(v) for v in np.percentile(hu, (0.5, 50, 99.5)))
    low, high = window_hu or (low, high)
    return {
        "spacings": [[float(s) for s in facts["spacing"]] for facts in found],
        "shapes_after_crop": [[int(n) for n in facts["shape"]] for facts in found],
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": float(hu.mean()),
                "median": median,
                "std": float(hu.std()),
                "min": float(hu.min()),
                "max": float(hu.max()),
                "percentile_99_5": high,
                "percentile_00_5": low,
            }
        },
        "median_relative_size_after_cropping": float(
            np.median([facts["relative"] for facts in found])
        ),
    }


def _planned(folder: StageFolder) -> dict[str, Any]:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    os.environ[WORKERS] = "1"  # the planner fails with 0
    try:
        # Recipes give patch and spacing as (Z, Y, X), and a network may start from another's
        # weights: nnU-Net would put the axis with the largest voxels first, in one stage perhaps
        # and not in the next.
        return ExperimentPlanner(folder.name, suppress_transpose=True).plan_experiment()
    finally:
        os.environ[WORKERS] = "0"


def edited(plans: dict[str, Any], training: Training, stage: StageTraining) -> dict[str, Any]:
    """Return nnU-Net's plans with the recipe's patch, batch, spacing and network."""
    configuration = plans["configurations"][CONFIGURATION]
    configuration["batch_size"] = training.batch_size
    configuration["patch_size"] = list(stage.patch)
    configuration["batch_dice"] = training.of(stage).batch_dice
    if stage.spacing_mm is not None:
        configuration["spacing"] = list(stage.spacing_mm)
    if stage.features is not None:
        configuration["architecture"]["arch_kwargs"] |= network(stage)
    return plans | {"configurations": {CONFIGURATION: configuration}}


def network(stage: StageTraining) -> dict[str, Any]:
    """Return the network of a stage whose recipe gives the features, of 3x3x3 convolutions."""
    features = list(stage.features or ())
    stages = len(features)
    strides = stage.strides or ((1, 1, 1), *[(2, 2, 2)] * (stages - 1))
    encoder, decoder = stage.n_conv_encoder, stage.n_conv_decoder
    return {
        "n_stages": stages,
        "features_per_stage": features,
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage": [encoder] * stages if isinstance(encoder, int) else list(encoder),
        "n_conv_per_stage_decoder": (
            [decoder] * (stages - 1) if isinstance(decoder, int) else list(decoder)
        ),
    }


def _preprocess(
    folder: StageFolder, cases: Sequence[str], plans: dict[str, Any], jobs: int
) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    dataset = json.loads((folder.raw / "dataset.json").read_text(encoding="utf-8"))
    target = folder.preprocessed / configuration.data_identifier
    make_folder(target)
    preprocessor = DefaultPreprocessor(verbose=False)

    def write(case: str) -> None:
        preprocessor.run_case_save(
            str(target / case),
            [str(folder.image(case))],
            str(folder.label(case)),
            manager,
            configuration,
            dataset,
        )

    for _ in each(write, [c for c in cases if not (target / f"{c}.pkl").exists()], jobs):
        pass
