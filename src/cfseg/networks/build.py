"""From a plan to a network: nnU-Net's plain U-Net, so that its checkpoints load by name."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from cfseg.errors import ModelError
from cfseg.plan import StagePlan

SHOWN = 3
"""Names of layers that an error message lists before it says how many more there are."""


class StoppedUNet(nn.Module):
    """A U-Net whose finest decoder stages are left out (method of the authors' coarse stage).

    The logits come from the deep-supervision head of the last stage that runs and are upsampled
    linearly to the size of the input. The names in the state dict are those of the whole U-Net.
    """

    def __init__(self, unet: nn.Module, decoder_stop: int) -> None:
        super().__init__()
        self.encoder: Any = unet.encoder
        self.decoder: Any = unet.decoder
        self.decoder_stop = decoder_stop

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, Z, Y, X) of an image (N, 1, Z, Y, X)."""
        skips = self.encoder(image)
        features = skips[-1]
        last = len(self.decoder.stages) - self.decoder_stop
        for stage in range(last):
            upsampled = self.decoder.transpconvs[stage](features)
            joined = torch.cat((upsampled, skips[-(stage + 2)]), dim=1)
            features = self.decoder.stages[stage](joined)
        logits = self.decoder.seg_layers[last - 1](features)
        size = image.shape[2:]
        return F.interpolate(logits, size=size, mode="trilinear", align_corners=False)


def build_network(plan: StagePlan, decoder_stop: int = 0) -> nn.Module:
    """Return a freshly initialized network with the state-dict names of nnU-Net v2.

    Args:
        plan: gives architecture and classes.
        decoder_stop: how many of the finest decoder stages are left out.

    Returns:
        A module from (N, 1, Z, Y, X) float32 to logits (N, C, Z, Y, X).

    Raises:
        ModelError: the head that would be used does not exist or was not trained.
    """
    _check_stop(plan, decoder_stop)
    unet = _plain_unet(plan)
    return StoppedUNet(unet, decoder_stop) if decoder_stop else unet


def fresh_network(plan: StagePlan, seed: int) -> nn.Module:
    """Return a network with random weights as nnU-Net draws them (He, paper 3.2).

    Args:
        plan: gives architecture and classes.
        seed: of the weights; the generators of the process stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(plan)
        network.apply(PlainConvUNet.initialize)
    return network


def load_network(
    plan: StagePlan,
    weights: Mapping[str, torch.Tensor],
    device: torch.device,
    decoder_stop: int = 0,
) -> nn.Module:
    """Return a network with these weights on a device, ready to predict.

    A tensor that the module knows by several names (nnU-Net's decoder refers to the encoder, and
    each block lists its layers twice) may be given by any of them.

    Args:
        plan: gives architecture and classes.
        weights: by state-dict name, as in an nnU-Net v2 checkpoint.
        device: where the network is to run.
        decoder_stop: see :func:`build_network`.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape.
    """
    network = build_network(plan, decoder_stop)
    _copy_weights(network, weights)
    return network.eval().requires_grad_(False).to(device)


def fitting_weights(
    plan: StagePlan, weights: Mapping[str, torch.Tensor], decoder_stop: int = 0
) -> dict[str, torch.Tensor]:
    """Return each tensor of a plan's network once, under its first name; nothing is computed.

    Args and errors are those of :func:`load_network`.
    """
    with torch.device("meta"):
        network = build_network(plan, decoder_stop)
    return _fitting(network.state_dict(keep_vars=True), weights)


def _plain_unet(plan: StagePlan) -> nn.Module:
    arch = plan.architecture
    unet: nn.Module = PlainConvUNet(
        input_channels=1,
        n_stages=len(arch.features),
        features_per_stage=list(arch.features),
        conv_op=nn.Conv3d,
        kernel_sizes=[list(k) for k in arch.kernel_sizes],
        strides=[list(s) for s in arch.strides],
        n_conv_per_stage=list(arch.n_conv_encoder),
        num_classes=len(plan.labels),
        n_conv_per_stage_decoder=list(arch.n_conv_decoder),
        conv_bias=arch.conv_bias,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": arch.norm_eps, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True, "negative_slope": arch.negative_slope},
        deep_supervision=False,  # the heads are there all the same, only not run
    )
    return unet


def _check_stop(plan: StagePlan, decoder_stop: int) -> None:
    heads = len(plan.architecture.n_conv_decoder)
    if not 0 <= decoder_stop < heads:
        raise ModelError(
            f"decoder_stop = {decoder_stop}, but the network has {heads} decoder stages; "
            f"choose 0 to {heads - 1}."
        )
    if decoder_stop and _head_weight(plan, decoder_stop) == 0:
        raise ModelError(
            f"decoder_stop = {decoder_stop} needs the head at 1/{2**decoder_stop} of the "
            "resolution, whose weight in training was 0: it learned nothing. "
            "Choose a smaller decoder_stop or a network with more stages."
        )


def _head_weight(plan: StagePlan, decoder_stop: int) -> float:
    """Return the weight of a head's loss in training, up to a common factor."""
    known = plan.deep_supervision
    if known:
        return known[decoder_stop] if decoder_stop < len(known) else 0.0
    # Of a plan that does not say, only nnU-Net's habit is known: its coarsest head gets none.
    is_coarsest = decoder_stop == len(plan.architecture.n_conv_decoder) - 1
    return 0.0 if is_coarsest else 1.0


def _copy_weights(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    tensors = network.state_dict(keep_vars=True)
    for name, tensor in _fitting(tensors, weights).items():
        tensors[name].data.copy_(tensor)


def _fitting(
    tensors: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the weights under the first name that a network knows each of its tensors by."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    missing, misshapen, fitting = [], [], {}
    for aliases in names.values():
        given = [name for name in aliases if name in weights]
        misshapen += [n for n in given if weights[n].shape != tensors[n].shape]
        if given:
            fitting[aliases[0]] = weights[given[0]]
        else:
            missing.append(aliases[0])
    unknown = [name for name in weights if name not in tensors]
    problems = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    found = [f"{_listed(bad)} {what}" for what, bad in problems.items() if bad]
    if found:
        raise ModelError(
            f"The weights do not fit the plan's network: {'; '.join(found)}. "
            "Use the plan that the network was trained with."
        )
    return fitting


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
