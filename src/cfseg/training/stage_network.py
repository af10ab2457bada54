"""What nnU-Net builds for a network with the recipe's numbers: network, loss, optimizer, loaders.

Its processes are not bound to GPUs, and one process and many learn from the same loss.
"""

# nnU-Net ships no types.
# mypy: disable-error-code="misc,no-untyped-call,no-any-return"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from cfseg.plan import Role
from cfseg.recipes.training import StageTraining, Training
from cfseg.training.board import Board
from cfseg.training.cost import Stopwatch
from cfseg.training.iteration import Skipped
from cfseg.training.loss import adapt
from cfseg.training.precision import cpu_precision, in_bf16
from cfseg.training.schedule import Schedule, make_optimizer
from cfseg.training.steps import Progress, Report
from cfseg.training.stopping import Stop
from cfseg.training.windows import rare_label_weights, set_augmentation


class StageNetwork(nnUNetTrainer):
    """What nnU-Net builds for one network of the cascade, as the recipe says.

    The signature is the parent's, because nnU-Net reads it. In a group of processes each has its
    share of every batch.
    """

    is_ddp: bool
    network: Any

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - the parent's default
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.device = device  # the parent takes the process's rank for the number of a GPU
        if device.type != "cuda":
            self.grad_scaler = None
        self.losses: list[float] = []  # of the iterations done in this epoch
        self.skipped = Skipped()
        self.stop = Stop()
        self.board: Board | None = None
        self.score = float("nan")  # of the best weights so far

    def configure(
        self,
        training: Training,
        role: Role,
        stage: StageTraining,
        seed: int,
        report: Report,
        progress: Progress | None = None,
        name: str = "",
    ) -> None:
        """Take over the recipe's numbers.

        Args:
            training: what all stages share.
            role: of the stage; the tumor model is judged by its tumors, the others by the organs.
            stage: what is this stage's own.
            seed: of initialization and augmentation.
            report: gets one line per epoch.
            progress: is told after each iteration.
            name: of the network.
        """
        training = training.of(stage)
        self.training, self.role, self.report, self.seed = training, role, report, seed
        self.progress, self.name = progress, name
        self.initial_lr = training.initial_lr
        self.weight_decay = training.weight_decay
        self.num_epochs, self.tumor_focus = stage.epochs, stage.tumor_focus
        self.tumor_dice_weight = stage.tumor_dice_weight
        self.num_iterations_per_epoch = training.iterations_per_epoch
        self.num_val_iterations_per_epoch = training.validation_iterations_per_epoch
        self.oversample_foreground_percent = training.oversample_foreground
        self.rare_label_exponent = training.rare_label_exponent
        self.probabilistic_oversampling = True
        self.fold_folder = Path(self.output_folder)
        self.watch = Stopwatch(
            self.fold_folder, self.name, self.device, self.world, self.initial_lr
        )
        self._seed(seed)

    def _seed(self, seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - nnU-Net's loaders draw from this generator

    @property
    def world(self) -> int:
        """How many processes share each batch."""
        return int(distributed.get_world_size()) if distributed.is_initialized() else 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.local_rank == 0)

    @property
    def bare_network(self) -> torch.nn.Module:
        """The network without the wrapper of a group."""
        return self.network.module if self.is_ddp else self.network

    # -- what nnU-Net builds -------------------------------------------------------------------

    def initialize(self) -> None:
        """Build the network, the loss and the optimizer; the same for one process and for many."""
        is_ddp, self.is_ddp = self.is_ddp, False  # the parent would wrap it for a GPU
        super().initialize()
        if self.device.type == "cpu":  # a sixth faster with the few channels of a small network
            self.network.to(memory_format=torch.channels_last_3d)
        if self.device.type == "cpu" and cpu_precision(self.training.cpu_precision) == "bf16":
            in_bf16(self.network)
        self.is_ddp = is_ddp
        if is_ddp:
            on_gpu = [self.device] if self.device.type == "cuda" else None
            # The coarsest head has no weight in the loss, so its gradients never come.
            self.network = DistributedDataParallel(
                self.network, device_ids=on_gpu, find_unused_parameters=True
            )

    def _set_batch_size_and_oversample(self) -> None:
        """Give each process of a group its share of the batch; windows are drawn alike."""
        self.batch_size = self.configuration_manager.batch_size // self.world

    def _build_loss(self) -> Any:  # noqa: ANN401 - nnU-Net's loss
        """Weigh labels and voxels if the recipe says so."""
        loss = super()._build_loss()
        inner = getattr(loss, "loss", loss)
        inner.dc.ddp = distributed.is_initialized()
        weights = self._label_weights().to(self.device) if self.rare_label_exponent else None
        adapt(
            inner, hard_voxels=self.training.hard_voxels,
            tumor_dice_weight=self.tumor_dice_weight, label_weights=weights,
        )  # fmt: skip
        return loss

    def _label_weights(self) -> torch.Tensor:
        names, _ = self.do_split()
        cases = self.dataset_class(self.preprocessed_dataset_folder, names)
        maps: Iterator[np.ndarray] = (cases.load_case(name)[1][:] for name in names)
        classes = self.label_manager.num_segmentation_heads
        return rare_label_weights(maps, classes, self.rare_label_exponent)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        """Return the recipe's optimizer and schedule."""
        optimizer = make_optimizer(self.network.parameters(), self.training)
        return optimizer, Schedule(optimizer, self.training, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        """Leave mirroring out unless the recipe has it."""
        found = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.training.mirror:
            return found
        # nnU-Net's predictor takes None for none, and fails on an empty tuple.
        self.inference_allowed_mirroring_axes = None
        return (*found[:3], ())

    def get_dataloaders(self) -> Any:  # noqa: ANN401 - nnU-Net's loaders
        """Augment and sample as the recipe says."""
        train, validation = super().get_dataloaders()
        loader: Any = getattr(train, "data_loader", None)
        set_augmentation(loader, self.training, self.tumor_focus)
        return train, validation
