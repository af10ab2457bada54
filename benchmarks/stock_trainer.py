"""Stock nnU-Net's training: its folders, its plan with a recipe's network, its trainer.

Nothing of cfseg is used but the recipe's numbers. nnU-Net looks for its folders in environment
variables, so each training runs in a process of its own.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfseg.labels import ORGANS, Label
from cfseg.recipes.training import StageTraining, Training

DATASET, PLANS, CONFIGURATION = "Dataset001_Bench", "nnUNetPlans", "3d_fullres"
Values = dict[str, Any]
WORKERS = "nnUNet_n_proc_DA"
SAVE_EVERY_EPOCHS = 2
Files = Mapping[str, tuple[Path, Path]]
"""Scan and label map of each case."""


@dataclass(frozen=True)
class Folders:
    """Where nnU-Net finds and leaves its files.

    Attributes:
        base: of all.
        run: of the results, so that several trainings share their preprocessed cases.
    """

    base: Path
    run: str = "results"

    @property
    def raw(self) -> Path:
        """The folder of the description; scans and label maps stay where they are."""
        return self.base / "raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        """The folder of plans and resampled cases."""
        return self.base / "preprocessed" / DATASET

    @property
    def model(self) -> Path:
        """The model folder, named as nnU-Net names it."""
        return self.base / self.run / DATASET / f"nnUNetTrainer__{PLANS}__{CONFIGURATION}"

    def enter(self, workers: int) -> None:
        """Point nnU-Net at the folders, for this process and those that it starts.

        Args:
            workers: processes that augment; 0 augments in this one.
        """
        os.environ |= {
            "nnUNet_raw": str(self.base / "raw"),
            "nnUNet_preprocessed": str(self.base / "preprocessed"),
            "nnUNet_results": str(self.base / self.run),
            "nnUNet_compile": "false",
            WORKERS: str(workers),
        }


def prepare(
    folders: Folders,
    files: Files,
    training: Training,
    stage: StageTraining,
    labels: Sequence[Label] = ORGANS,
) -> None:
    """Plan and preprocess as nnU-Net's own commands do, with the network of a recipe's stage.

    Args:
        folders: nothing is done again that is there.
        files: of all cases.
        training: gives the size of a batch and whether the Dice loss takes it as one scan.
        stage: gives patch, spacing and, where it has them, features and convolutions.
        labels: that the network learns; the files may have no others.
    """
    plans_file = folders.preprocessed / f"{PLANS}.json"
    done = folders.preprocessed / "prepared"
    if done.is_file():
        return
    folders.enter(workers=1)  # its planner fails with 0
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    for folder in (folders.raw, folders.preprocessed):
        _write(folder / "dataset.json", _description(files, labels))
    DatasetFingerprintExtractor(DATASET, 2).run(overwrite_existing=True)
    # Patch and spacing of a recipe are (z, y, x), whichever axis has the largest voxels.
    plans = ExperimentPlanner(DATASET, suppress_transpose=True).plan_experiment()
    plans["configurations"] = {CONFIGURATION: plans["configurations"][CONFIGURATION]}
    _edit(plans["configurations"][CONFIGURATION], training, stage)
    _write(plans_file, plans)
    DefaultPreprocessor(verbose=False).run(DATASET, CONFIGURATION, PLANS, num_processes=2)
    done.touch()


def _description(files: Files, labels: Sequence[Label]) -> Values:
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {label.name: label.id for label in labels},
        "numTraining": len(files),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {
            case: {"images": [str(scan.resolve())], "label": str(label_map.resolve())}
            for case, (scan, label_map) in files.items()
        },
    }


def _edit(configuration: Values, training: Training, stage: StageTraining) -> None:
    """Put a stage's values in place of the planned ones; all else stays as nnU-Net plans it."""
    configuration |= {"batch_size": training.batch_size, "batch_dice": training.batch_dice}
    configuration["patch_size"] = list(stage.patch)
    if stage.spacing_mm is not None:
        configuration["spacing"] = list(stage.spacing_mm)
    if stage.features is None:
        return
    count = len(stage.features)
    encoder, decoder = stage.n_conv_encoder, stage.n_conv_decoder
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": count,
        "features_per_stage": list(stage.features),
        "kernel_sizes": [[3, 3, 3]] * count,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (count - 1)],
        "n_conv_per_stage": np.broadcast_to(encoder, count).tolist(),
        "n_conv_per_stage_decoder": np.broadcast_to(decoder, count - 1).tolist(),
    }


def write_split(folders: Folders, training: Sequence[str], validation: Sequence[str]) -> None:
    """Tell nnU-Net which cases fold 0 learns from."""
    split = [{"train": list(training), "val": list(validation)}]
    _write(folders.preprocessed / "splits_final.json", split)


def trainer_of(folders: Folders, seed: int, training: Training, stage: StageTraining) -> Any:
    """Return nnU-Net's trainer on the CPU, with a recipe's schedule and without mirroring.

    Foreground is oversampled with a probability: of a batch of two nnU-Net would otherwise center
    each second window, whatever the share.

    Args:
        folders: with everything prepared, and entered.
        seed: of the weights, and of what this process draws.
        training: gives epochs, learning rate and oversampling.
        stage: gives the number of epochs.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, described = (
        json.loads((folders.preprocessed / name).read_text(encoding="utf-8"))
        for name in (f"{PLANS}.json", "dataset.json")
    )
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nnU-Net draws from it
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, CONFIGURATION, 0, described, torch.device("cpu"))
    trainer.initial_lr, trainer.weight_decay = training.initial_lr, training.weight_decay
    trainer.num_epochs = stage.epochs
    trainer.num_iterations_per_epoch = training.iterations_per_epoch
    trainer.num_val_iterations_per_epoch = 1  # it decides nothing
    trainer.oversample_foreground_percent = training.oversample_foreground
    trainer.probabilistic_oversampling = True
    if training.optimizer == "adamw":
        trainer.configure_optimizers = partial(_adamw, trainer, training)
    _without_mirroring(trainer)
    return trainer


def _adamw(trainer: Any, training: Training) -> tuple[Any, Any]:
    """Return AdamW with nnU-Net's schedule, as its own variants with Adam have them."""
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    optimizer = torch.optim.AdamW(
        trainer.network.parameters(), training.initial_lr, weight_decay=training.weight_decay
    )
    return optimizer, PolyLRScheduler(optimizer, training.initial_lr, trainer.num_epochs)


def resume(folders: Folders, trainer: Any, seed: int) -> None:
    """Go on from the last checkpoint, if there is one, with other draws than those before it.

    Args:
        folders: of the trainer.
        trainer: as :func:`trainer_of` returns it.
        seed: of the training.
    """
    trainer.save_every = SAVE_EVERY_EPOCHS
    latest = folders.model / "fold_0" / "checkpoint_latest.pth"
    if latest.is_file():
        trainer.load_checkpoint(str(latest))
        np.random.seed(seed + 1000 * trainer.current_epoch)  # noqa: NPY002
        torch.manual_seed(seed + 1000 * trainer.current_epoch)


def _without_mirroring(trainer: Any) -> None:
    configure = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size

    def without() -> tuple[Any, ...]:
        found = configure()
        trainer.inference_allowed_mirroring_axes = None
        return (*found[:3], ())

    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size = without


def _write(file: Path, contents: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
