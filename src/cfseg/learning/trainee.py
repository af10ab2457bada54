"""A network that learns, with all that changes meanwhile."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cfseg.errors import ModelError
from cfseg.learning.group import is_joined
from cfseg.learning.losses import DeepSupervision, Loss
from cfseg.learning.run import Settings
from cfseg.learning.schedule import make_optimizer


class Trainee:
    """A network and what changes its weights.

    Args:
        network: on its device.
        settings: of the training.
    """

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        self.network, self.precision = network, settings.precision
        self.device = next(network.parameters()).device
        _freeze_idle_heads(network, settings)
        if self.device.type == "cpu":
            _channels_last(network)
        self.optimizer = make_optimizer(network.parameters(), settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.average = (
            AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))  # type: ignore[no-untyped-call]
            if settings.ema
            else None
        )
        self.loss = DeepSupervision(
            Loss(
                batch_dice=settings.batch_dice,
                hard_voxels=settings.hard_voxels,
                tumor_dice_weight=settings.tumor_dice_weight,
                label_weights=settings.label_weights,
            ),
            settings.head_weights,
        ).to(self.device)
        self.shared = network

    def share(self) -> None:
        """Join the network with those of the other processes; its weights become the first's."""
        if is_joined():
            on_gpu = [self.device] if self.device.type == "cuda" else None
            self.shared = DistributedDataParallel(self.network, device_ids=on_gpu)

    def autocast(self) -> torch.autocast:
        """Return the context in which the network computes; losses are not computed in it."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def follow(self) -> None:
        """Let the average follow the weights, where there is one."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    # -- what a checkpoint holds ---------------------------------------------------------------

    def best_network(self) -> nn.Module:
        """Return the network whose weights count: the average, where there is one."""
        return self.network if self.average is None else self.average.module

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights that count, each tensor once."""
        return dict(self.best_network().named_parameters())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that a later step depends on, by name."""
        found = self._own_tensors()
        for name, weight in self.network.named_parameters():
            for key, value in self.optimizer.state.get(weight, {}).items():
                found[f"optimizer/{name}/{key}"] = value
        return found

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over the tensors of a checkpoint.

        Raises:
            ModelError: they are not those of this network.
        """
        for name, tensor in self._own_tensors().items():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise ModelError(
                    f"the checkpoint is of another network: {name} is missing or of another "
                    "shape; train in another folder"
                )
            tensor.copy_(tensors[name])
        optimizer = self.optimizer.state_dict()
        for index, (name, weight) in enumerate(self.network.named_parameters()):
            prefix = f"optimizer/{name}/"
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            if own:  # a head without weight in the loss has none
                optimizer["state"][index] = {k: _laid_as(weight, t) for k, t in own.items()}
        self.optimizer.load_state_dict(optimizer)

    def _own_tensors(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        found |= {f"weights/{name}": weight for name, weight in self.network.named_parameters()}
        if self.average is not None:
            found |= {f"average/{name}": weight for name, weight in self.weights().items()}
            found["averaged"] = self.average.n_averaged
        return found


def _freeze_idle_heads(network: Any, settings: Settings) -> None:  # noqa: ANN401 - nnU-Net's
    """Leave out heads that have no weight in the loss: a group would wait for their gradients."""
    idle = len(network.decoder.seg_layers) - len(settings.head_weights)
    weights = (*settings.head_weights, *[0.0] * idle)
    for weight, head in zip(weights, reversed(network.decoder.seg_layers), strict=True):
        head.requires_grad_(weight > 0)


def _channels_last(network: nn.Module) -> None:
    """Lay out weights so that a CPU is a sixth faster with the few channels of small networks.

    Those of 1x1x1 kernels stay: their gradients come in the usual order, which a group of
    processes would tell of as a warning.
    """
    for weight in network.parameters():
        if weight.ndim == 5 and weight[0, 0].numel() > 1:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)


def _laid_as(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the optimizer in the weight's order of memory.

    In another order other instructions work on it, which round otherwise.
    """
    if value.shape != weight.shape:
        return value
    return torch.empty_like(weight, requires_grad=False).copy_(value)


@contextmanager
def all_heads(network: Any, settings: Settings) -> Iterator[None]:  # noqa: ANN401 - nnU-Net's
    """Let a network answer with all of its heads, where more than one is learned from."""
    network.train()
    with _heads(network, all_of_them=len(settings.head_weights) > 1):
        yield


@contextmanager
def ready_to_predict(network: nn.Module) -> Iterator[nn.Module]:
    """Give a network as those have it who predict: the finest head alone, no gradients."""
    network.eval()
    with _heads(network, all_of_them=False), torch.no_grad():
        yield network
    network.train()


@contextmanager
def _heads(network: Any, *, all_of_them: bool) -> Iterator[None]:  # noqa: ANN401 - nnU-Net's
    before = network.decoder.deep_supervision
    network.decoder.deep_supervision = all_of_them
    try:
        yield
    finally:
        network.decoder.deep_supervision = before
