"""nnU-Net's trainer with the recipe's numbers. The loop, the loss and the loaders are nnU-Net's."""

# nnU-Net ships no types.
# mypy: disable-error-code="misc,no-untyped-call,no-any-return"

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from cfseg.labels import ORGANS, TUMOR
from cfseg.plan import Role
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.workspace import CONFIGURATION, PLANS, StageFolder, enter

BEST = "checkpoint_best.pth"
Report = Callable[[str], None]


class StageTrainer(nnUNetTrainer):
    """One network of the cascade.

    Construct it, call :meth:`configure`, then ``run_training``. The signature is the parent's,
    because nnU-Net reads it.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - the parent's default
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)

    def configure(
        self, training: Training, role: Role, stage: StageTraining, seed: int, report: Report
    ) -> None:
        """Take over the recipe's numbers.

        Args:
            training: what all stages share.
            role: of the stage; the tumor model is judged by its tumors, the others by the organs.
            stage: what is this stage's own.
            seed: of initialization and augmentation.
            report: gets one line per epoch.
        """
        self.training, self.role, self.report, self.seed = training, role, report, seed
        self.initial_lr = training.initial_lr
        self.weight_decay = training.weight_decay
        self.num_epochs, self.tumor_focus = stage.epochs, stage.tumor_focus
        self.num_iterations_per_epoch = training.iterations_per_epoch
        self.num_val_iterations_per_epoch = training.validation_iterations_per_epoch
        self.oversample_foreground_percent = training.oversample_foreground
        self.probabilistic_oversampling = True
        self.save_every = training.save_every_epochs
        self._seed(seed)

    def _seed(self, seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - nnU-Net's loaders draw from the global generator

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Go on from a checkpoint, with other draws than those of the first epochs."""
        super().load_checkpoint(filename_or_checkpoint)
        self._seed(self.seed + 100_000 * self.current_epoch)

    def initialize(self) -> None:
        """Build the network, the loss and the optimizer."""
        super().initialize()
        if self.device.type == "cpu" and self.training.cpu_precision == "bf16":
            in_bf16(self.network)

    def _build_loss(self) -> Any:  # noqa: ANN401 - nnU-Net's loss
        """Weigh rare labels in the cross-entropy if the recipe says so."""
        loss = super()._build_loss()
        if self.training.rare_label_exponent:
            weights = self._label_weights().to(self.device)
            getattr(loss, "loss", loss).ce = RobustCrossEntropyLoss(weight=weights)
        return loss

    def _label_weights(self) -> torch.Tensor:
        """Return (C,) weights whose mean over the voxels of the training cases is 1."""
        names, _ = self.do_split()
        cases = self.dataset_class(self.preprocessed_dataset_folder, names)
        counts = np.zeros(self.label_manager.num_segmentation_heads)
        for name in names:
            segmentation = np.maximum(cases.load_case(name)[1][:], 0).astype(np.int64)
            counts += np.bincount(segmentation.ravel(), minlength=len(counts))
        weights = np.maximum(counts, 1) ** -self.training.rare_label_exponent
        weights *= counts.sum() / (weights * counts).sum()
        return torch.from_numpy(weights.astype(np.float32))

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, "Schedule"]:
        """Return the recipe's optimizer and schedule (paper Table 2: SGD, Nesterov, 0.99)."""
        training, weights = self.training, self.network.parameters()
        optimizer: torch.optim.Optimizer
        if training.optimizer == "adamw":
            optimizer = torch.optim.AdamW(
                weights, training.initial_lr, weight_decay=training.weight_decay
            )
        else:
            optimizer = torch.optim.SGD(
                weights,
                training.initial_lr,
                momentum=training.momentum,
                weight_decay=training.weight_decay,
                nesterov=True,
            )
        return optimizer, Schedule(optimizer, training, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        """Leave mirroring out unless the recipe has it."""
        found = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.training.mirror:
            return found
        self.inference_allowed_mirroring_axes = ()
        return (*found[:3], ())

    def get_dataloaders(self) -> Any:  # noqa: ANN401 - nnU-Net's loaders
        """Augment and sample as the recipe says.

        Elastic deformation is on, as the paper's 2.1 lists it; nnU-Net leaves it off.
        """
        train, validation = super().get_dataloaders()
        loader: Any = getattr(train, "data_loader", None)
        for transform in getattr(getattr(loader, "transforms", None), "transforms", ()):
            if isinstance(transform, SpatialTransform):
                transform.p_elastic_deform = self.training.elastic_probability
                if self.training.label_interpolation == "nearest":
                    transform.mode_seg = "nearest"
        if self.tumor_focus:
            loader.get_bbox = partial(focused_box, loader.get_bbox, self.tumor_focus)
        return train, validation

    def on_epoch_start(self) -> None:
        """Remember the time."""
        super().on_epoch_start()
        self.epoch_started = perf_counter()

    def on_epoch_end(self) -> None:
        """Keep the best weights and report one line: losses, pseudo Dice, time left."""
        history = self.logger.get_value("dice_per_class_or_region", step=None)
        if is_best([self._score(dice) for dice in history]):
            self.save_checkpoint(str(Path(self.output_folder) / BEST), ours=True)
        super().on_epoch_end()
        self.report(self._line(history[-1]))

    def _score(self, dice: Sequence[float]) -> float:
        """Return what the recipe judges this stage by (paper 2.2)."""
        if self.role == "tumor":
            return float(dice[TUMOR.id - 1])
        organs = [d for d in dice[: len(ORGANS)] if not np.isnan(d)]
        return float(np.mean(organs)) if organs else float("nan")

    def _line(self, dice: Sequence[float]) -> str:
        log = self.logger.get_value
        seconds = perf_counter() - self.epoch_started
        left = (self.num_epochs - self.current_epoch) * seconds / 60
        tumor = f", of tumor {dice[TUMOR.id - 1]:.3f}" if self.role == "tumor" else ""
        return (
            f"epoch {self.current_epoch}/{self.num_epochs}: "
            f"loss {log('train_losses', step=-1):.3f}, "
            f"validation {log('val_losses', step=-1):.3f}, "
            f"pseudo Dice of organs {np.nanmean(dice[: len(ORGANS)]):.3f}{tumor}, "
            f"{seconds:.0f} s, {left:.0f} min left"
        )

    def save_checkpoint(self, filename: str, ours: bool = False) -> None:
        """Write under a temporary name first: a killed run keeps the last one.

        nnU-Net's own choice of the best weights is passed over; see :meth:`on_epoch_end`.
        """
        if Path(filename).name == BEST and not ours:
            return
        temporary = Path(f"{filename}.tmp")
        super().save_checkpoint(str(temporary))
        if temporary.exists():
            temporary.replace(filename)

    def print_to_log_file(
        self,
        *args: object,
        also_print_to_console: bool = True,  # noqa: ARG002 - the parent's signature
        add_timestamp: bool = True,
    ) -> None:
        """Log to nnU-Net's file alone; the recipe's own lines go to the console."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)

    def plot_network_architecture(self) -> None:
        """Skip what needs an optional package."""

    def _save_debug_information(self) -> None:
        """Skip it: it would write the machine's name into the model folder."""


# nnU-Net names the model folder and the checkpoint after the class. Under its own trainer's name
# every stock nnU-Net opens them; the numbers that differ matter for training alone.
StageTrainer.__name__ = nnUNetTrainer.__name__


def train_network(
    folder: StageFolder,
    weight: int,
    training: Training,
    stage: StageTraining,
    device: torch.device,
    report: Report,
) -> None:
    """Train one network, from its last checkpoint if there is one.

    Args:
        folder: of the stage, with its data prepared.
        weight: 1 or 2; another weight is another random initialization.
        training: what all stages share.
        stage: what is this stage's own.
        device: where to train; on a CPU all its cores are used.
        report: gets one line per epoch.
    """
    enter(folder.work, weight)
    latest = folder.model(weight) / "fold_0" / "checkpoint_latest.pth"
    plans = json.loads((folder.preprocessed / f"{PLANS}.json").read_text(encoding="utf-8"))
    dataset = json.loads((folder.raw / "dataset.json").read_text(encoding="utf-8"))
    plans["continue_training"] = latest.exists()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = StageTrainer(plans, CONFIGURATION, 0, dataset, device)
    trainer.configure(training, folder.role, stage, training.seed + weight, report)
    if latest.exists():
        trainer.load_checkpoint(str(latest))
        report(f"going on after epoch {trainer.current_epoch}")
    trainer.run_training()


def in_bf16(network: torch.nn.Module) -> None:
    """Let a network compute in bf16 on the CPU, with fp32 weights and logits."""
    forward = network.forward

    def cast(*inputs: torch.Tensor) -> Any:  # noqa: ANN401 - one tensor, or one per resolution
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(*inputs)
        return logits.float() if torch.is_tensor(logits) else [level.float() for level in logits]

    network.forward = cast  # type: ignore[method-assign]


def focused_box(
    get_bbox: Callable[..., Any],
    focus: float,
    shape: Any,  # noqa: ANN401
    force_fg: bool,
    class_locations: dict[Any, Any] | None,
) -> Any:  # noqa: ANN401
    """Choose a window as nnU-Net's loader does, but more often one around a tumor.

    Args:
        get_bbox: the loader's own choice.
        focus: how often, among the windows centered on a label, it is the tumor.
        shape: of the case.
        force_fg: whether the window has to be centered on a label.
        class_locations: voxels of each label.
    """
    wanted = force_fg and class_locations is not None and len(class_locations.get(TUMOR.id, ()))
    chosen = TUMOR.id if wanted and np.random.uniform() < focus else None  # noqa: NPY002
    return get_bbox(shape, force_fg, class_locations, chosen)


def is_best(scores: Sequence[float], momentum: float = 0.9) -> bool:
    """Say whether the last score is the best so far, smoothed as nnU-Net does it.

    Args:
        scores: of each epoch; NaN (nothing to judge) leaves the average as it is.
        momentum: of the moving average.
    """
    averages: list[float] = []
    for score in scores:
        last = averages[-1] if averages else float("nan")
        if np.isnan(score):
            averages.append(last)
        else:
            averages.append(score if np.isnan(last) else momentum * last + (1 - momentum) * score)
    return bool(averages) and not averages[-1] < np.nanmax([-1.0, *averages])


class Schedule:
    """The learning rate of each epoch: halved now and then (paper Table 2), or nnU-Net's poly."""

    def __init__(self, optimizer: torch.optim.Optimizer, training: Training, epochs: int) -> None:
        self.optimizer, self.training, self.epochs = optimizer, training, epochs

    def step(self, epoch: int) -> None:
        """Set the rate for ``epoch``, counted from 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(epoch)

    def rate(self, epoch: int) -> float:
        """Return the rate for ``epoch``, counted from 0."""
        training = self.training
        if epoch < training.warmup_epochs:
            return training.initial_lr * (epoch + 1) / (training.warmup_epochs + 1)
        if training.lr_schedule == "halve":
            return float(training.initial_lr * 0.5 ** (epoch // training.lr_halve_epochs))
        return float(training.initial_lr * (1 - epoch / self.epochs) ** 0.9)
