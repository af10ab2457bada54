"""nnU-Net's training loop, written anew for one network of the cascade.

It saves by time, in the middle of an epoch too, it ends on a signal after the iteration, and it
judges a network by the stage's own measure (paper 2.2).
"""

# nnU-Net ships no types.
# mypy: disable-error-code="misc,no-untyped-call,no-any-return"

import shutil
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, time
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from cfseg.bundle.checkpoints import read_checkpoint
from cfseg.io import write_json
from cfseg.labels import ORGANS, TUMOR
from cfseg.training import keep
from cfseg.training.iteration import learn
from cfseg.training.stage_network import StageNetwork
from cfseg.training.stopping import leave


class StageTrainer(StageNetwork):
    """One network of the cascade.

    Construct it, call ``configure``, then :meth:`run_training`. In a group of processes only the
    first one writes.
    """

    def run_training(self) -> None:
        """Train to the last epoch, from wherever the checkpoint was."""
        self.on_train_start()
        while self.current_epoch < self.num_epochs:
            self.on_epoch_start()
            self.on_train_epoch_start()
            while len(self.losses) < self.num_iterations_per_epoch:
                loss = self.train_step(next(self.dataloader_train))["loss"]
                self.losses.append(float(loss))
                self.after_iteration()
            steps = [loss for loss in self.losses if np.isfinite(loss)] or [float("nan")]
            self.on_train_epoch_end([{"loss": loss} for loss in steps])
            self.validate()
            self.on_epoch_end()
        self.on_train_end()

    def train_step(self, batch: dict[str, Any]) -> dict[str, float]:
        """Take a step of the optimizer; where nothing is finite there is none, and a NaN as loss.

        Raises:
            ModelError: it was so many times in a row.
        """
        loss, finite = learn(
            self.network, self.loss, self.optimizer, self.grad_scaler, batch, self.device
        )
        if self.skipped.note(finite, self.name):
            where = f"epoch {self.current_epoch + 1}, iteration {len(self.losses) + 1}"
            self.report(f"{where}: the loss is not finite, steps are left out until it is")
        return {"loss": loss if finite else float("nan")}

    def validate(self) -> None:
        """Score the windows of the validation cases."""
        with torch.no_grad():
            self.on_validation_epoch_start()
            outputs = []
            for _ in range(self.num_val_iterations_per_epoch):
                outputs.append(self.validation_step(next(self.dataloader_val)))
                self.after_iteration()
            self.on_validation_epoch_end(outputs)

    def after_iteration(self) -> None:
        """Save if it is time to, and end the process if a signal asked for it."""
        if self.progress is not None:
            done = self.current_epoch * self.num_iterations_per_epoch + len(self.losses)
            self.progress(self.name, done, self.num_epochs * self.num_iterations_per_epoch)
        asked = self.stop.agreed(self.device)
        if asked or self.watch.since_save() > 60 * self.training.save_every_minutes:
            self.save_checkpoint(str(self.fold_folder / keep.LATEST))
        if asked:
            self.report(f"stopped in epoch {self.current_epoch + 1}; run it again to go on")
            leave(asked)

    def on_train_start(self) -> None:
        """Open the loaders, and describe the network beside its weights as nnU-Net does."""
        if not self.was_initialized:
            self.initialize()
        done = 100_000 * self.current_epoch + len(self.losses)
        if done or not self.is_first:  # other draws than those of the first epochs and processes
            self._seed(self.seed + done + 1_000_003 * self.local_rank)
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        if self.is_first:
            described = {"plans": self.plans_manager.plans, "dataset": self.dataset_json}
            for name, values in described.items():
                write_json(Path(self.output_folder_base) / f"{name}.json", values)
            name = "dataset_fingerprint.json"
            shutil.copyfile(
                Path(self.preprocessed_dataset_folder_base) / name,
                Path(self.output_folder_base) / name,
            )

    def on_epoch_start(self) -> None:
        """Remember the time."""
        super().on_epoch_start()
        self.epoch_started, self.epoch_is_whole = perf_counter(), not self.losses

    def on_epoch_end(self) -> None:
        """Keep the best weights and report one line: losses, pseudo Dice, time left."""
        self.logger.log("epoch_end_timestamps", time(), self.current_epoch)
        history = self.logger.get_value("dice_per_class_or_region", step=None)
        scores = [self._score(dice) for dice in history]
        self.current_epoch += 1
        self.losses = []
        if self.is_first:
            self._write_epoch(scores)
        seconds = perf_counter() - self.epoch_started
        if self.is_first and self.board is not None:
            self.board.write(self.current_epoch, self._scalars(history[-1], seconds))
        self.report(self._line(history[-1], seconds))

    def _write_epoch(self, scores: Sequence[float]) -> None:
        training, epoch = self.training, self.current_epoch
        if keep.is_best(scores):
            self.score = keep.smoothed(scores)[-1]
            self.save_checkpoint(str(self.fold_folder / keep.BEST))
        if epoch % training.keep_every_epochs == 0 or epoch == self.num_epochs:
            keep.keep_best(self.fold_folder.parent, training.keep_at_most)
            self.logger.plot_progress_png(self.output_folder)
        if epoch % training.save_every_epochs == 0:
            self.save_checkpoint(str(self.fold_folder / keep.LATEST))
        whole = perf_counter() - self.epoch_started if self.epoch_is_whole else None
        self.watch.note(epoch, self.num_iterations_per_epoch, whole)

    def _score(self, dice: Sequence[float]) -> float:
        """Return what the recipe judges this stage by (paper 2.2)."""
        if self.role == "tumor":
            return float(dice[TUMOR.id - 1])
        organs = [d for d in dice[: len(ORGANS)] if not np.isnan(d)]
        return float(np.mean(organs)) if organs else float("nan")

    def _scalars(self, dice: Sequence[float], seconds: float) -> dict[str, float]:
        names = ("train_losses", "val_losses", "lrs")
        train, validation, rate = (self.logger.get_value(n, step=-1) for n in names)
        scalars = {"loss/train": train, "loss/validation": validation, "lr": rate}
        labels = {v: k for k, v in self.dataset_json["labels"].items()}
        scalars |= {f"pseudo_dice/{labels[i]}": value for i, value in enumerate(dice, 1)}
        return {name: float(value) for name, value in scalars.items()} | {"seconds": seconds}

    def _line(self, dice: Sequence[float], seconds: float) -> str:
        log = self.logger.get_value
        left = (self.num_epochs - self.current_epoch) * seconds / 60
        tumor = f", of tumor {dice[TUMOR.id - 1]:.3f}" if self.role == "tumor" else ""
        return (
            f"epoch {self.current_epoch}/{self.num_epochs}: "
            f"loss {log('train_losses', step=-1):.3f}, "
            f"validation {log('val_losses', step=-1):.3f}, "
            f"pseudo Dice of organs {np.nanmean(dice[: len(ORGANS)]):.3f}{tumor}, "
            f"{seconds:.0f} s, {left:.0f} min left"
        )

    def on_train_end(self) -> None:
        """Write the last weights; from then on there is nothing to go on from."""
        if self.is_first:
            self.save_checkpoint(str(self.fold_folder / keep.FINAL))
            keep.tidy(self.fold_folder, finished=True)

    # -- checkpoints ---------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint, and where in the epoch it is; a killed run keeps the last."""
        if not self.is_first:
            return
        path, done = Path(filename), self.current_epoch
        scaler, log = self.grad_scaler, self.logger.get_checkpoint()
        contents = {
            "network_weights": self.bare_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if scaler is None else scaler.state_dict(),
            "logging": {key: values[:done] for key, values in log.items()},
            "_best_ema": None,
            "current_epoch": done,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            keep.OURS: {"losses": self.losses, "score": self.score},
        }
        keep.save(
            contents, path, path.with_name(keep.PREVIOUS) if path.name == keep.LATEST else None
        )
        if path.name == keep.LATEST:
            self.watch.saved()

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Go on from a checkpoint: its file, or what was read from it."""
        if isinstance(filename_or_checkpoint, str):
            filename_or_checkpoint = read_checkpoint(Path(filename_or_checkpoint))
        contents = filename_or_checkpoint
        if not self.was_initialized:
            self.initialize()
        self.bare_network.load_state_dict(contents["network_weights"])
        self.optimizer.load_state_dict(contents["optimizer_state"])
        if self.grad_scaler is not None and contents["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(contents["grad_scaler_state"])
        self.logger.load_checkpoint(contents["logging"])
        self.current_epoch = contents["current_epoch"]
        self.losses = list(contents.get(keep.OURS, {}).get("losses", ()))

    # -- what nnU-Net does besides -------------------------------------------------------------

    def print_to_log_file(
        self,
        *args: object,
        also_print_to_console: bool = True,  # noqa: ARG002 - the parent's signature
        add_timestamp: bool = True,
    ) -> None:
        """Log to nnU-Net's file alone; the recipe's own lines go to the console."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)


# nnU-Net names the model folder and the checkpoint after the class. Under its own trainer's name
# every stock nnU-Net opens them; the numbers that differ matter for training alone.
StageTrainer.__name__ = nnUNetTrainer.__name__
