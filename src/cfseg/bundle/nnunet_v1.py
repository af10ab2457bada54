"""State dicts of nnU-Net v1's Generic_UNet as stages, under the layer names of nnU-Net v2.

Both networks compute the same function when v1 used strided convolutions and transposed
convolutions, as its 3D plans do. v1's transposed convolutions and heads have no bias, v2's get one
of zeros. The shapes of the tensors tell the whole architecture, strides included: a transposed
convolution's kernel is the stride that it undoes.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from cfseg.bundle.checkpoints import check_sizes, read_checkpoint, tensors_of
from cfseg.bundle.plans_v2 import head_weights
from cfseg.errors import ModelError
from cfseg.foreign import problem
from cfseg.plan import Architecture, Role, StagePlan
from cfseg.recipes.v1 import V1Network, V1Values

CONTEXT = re.compile(
    r"conv_blocks_context\.(\d{1,3})\.(?:(\d)\.)?blocks\.(\d{1,3})\.(conv|instnorm)\.(\w+)"
)
LOCALIZATION = re.compile(
    r"conv_blocks_localization\.(\d{1,3})\.(\d)\.blocks\.(\d{1,3})\.(conv|instnorm)\.(\w+)"
)
UPSAMPLING = re.compile(r"tu\.(\d+)\.weight")
HEAD = re.compile(r"seg_outputs\.(\d+)\.weight")
LAYER = {"conv": "conv", "instnorm": "norm"}

Weights = dict[str, torch.Tensor]


def read_v1_folder(
    folder: Path, values: V1Values
) -> list[tuple[Role, StagePlan, Weights, dict[str, Any]]]:
    """Read the published networks that a recipe names.

    Args:
        folder: with the files.
        values: the recipe's ``[v1]`` table.

    Returns:
        Role, plan, weights under nnU-Net v2's names, and provenance of each network.

    Raises:
        ModelError: a file is missing, damaged, wants to run code, or holds another network.
    """
    missing = [n.file for n in values.networks if not (folder / n.file).is_file()]
    if missing:
        raise ModelError(f"{folder}: no {', '.join(missing)}; get them from {values.source}")
    return [_read(folder / network.file, network, values) for network in values.networks]


def _read(
    path: Path, network: V1Network, values: V1Values
) -> tuple[Role, StagePlan, Weights, dict[str, Any]]:
    contents = read_checkpoint(path)
    state = tensors_of(contents.get("state_dict", contents), path)
    check_sizes(state, path)
    try:
        weights = convert(state)
        architecture = architecture_of(state)
        plan = StagePlan(
            spacing_mm=network.spacing_mm,
            patch=network.patch,
            labels=network.labels,
            architecture=architecture,
            intensity=network.intensity,
            resampling=values.resampling,
            deep_supervision=head_weights(len(architecture.n_conv_decoder)),
        )
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}") from error
    except ValidationError as error:
        raise ModelError(f"{path}: {problem(error)}; give a plain 3D U-Net's file") from error
    provenance = {
        "format": "nnU-Net v1 state dict",
        "file": network.file,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": values.source,
    }
    return network.role, plan, weights, provenance


def convert(state: Mapping[str, torch.Tensor]) -> Weights:
    """Return a v1 state dict under nnU-Net v2's names, with zeros for the biases v1 lacks.

    Raises:
        ModelError: a name that v1's network does not have.
    """
    depth = _depth(state)
    convolutions = _convolutions(state, depth)
    weights: Weights = {}
    for name, tensor in state.items():
        if found := CONTEXT.fullmatch(name):
            stage, half, block, layer, kind = found.groups()
            index = _index(half, block, convolutions["encoder", int(stage)])
            weights[f"encoder.stages.{stage}.0.convs.{index}.{LAYER[layer]}.{kind}"] = tensor
        elif found := LOCALIZATION.fullmatch(name):
            stage, half, block, layer, kind = found.groups()
            index = _index(half, block, convolutions["decoder", int(stage)])
            weights[f"decoder.stages.{stage}.convs.{index}.{LAYER[layer]}.{kind}"] = tensor
        elif found := UPSAMPLING.fullmatch(name):
            weights[f"decoder.transpconvs.{found[1]}.weight"] = tensor
            # A transposed convolution's weight is (in, out, z, y, x).
            weights[f"decoder.transpconvs.{found[1]}.bias"] = tensor.new_zeros(tensor.shape[1])
        elif found := HEAD.fullmatch(name):
            weights[f"decoder.seg_layers.{found[1]}.weight"] = tensor
            weights[f"decoder.seg_layers.{found[1]}.bias"] = tensor.new_zeros(tensor.shape[0])
        else:
            raise ModelError(
                f"{name[:200]} is no layer of nnU-Net v1's 3D U-Net; give its state dict"
            )
    return weights


def architecture_of(state: Mapping[str, torch.Tensor]) -> Architecture:
    """Return the architecture that a v1 state dict's shapes tell.

    Raises:
        ModelError: layers are missing.
    """
    depth = _depth(state)
    convolutions = _convolutions(state, depth)
    first = [_first_weight(state, stage) for stage in range(depth + 1)]
    strides = [_triple(state, f"tu.{depth - 1 - pool}.weight") for pool in range(depth)]
    return Architecture(
        features=tuple(int(weight.shape[0]) for weight in first),
        kernel_sizes=tuple(_axes(weight) for weight in first),
        strides=((1, 1, 1), *strides),
        n_conv_encoder=tuple(convolutions["encoder", stage] for stage in range(depth + 1)),
        n_conv_decoder=tuple(convolutions["decoder", stage] for stage in range(depth)),
        conv_bias=True,
    )


def _depth(state: Mapping[str, torch.Tensor]) -> int:
    """Return how many times the network downsamples; all its kernels are 3D."""
    for name, tensor in state.items():
        is_kernel = name.endswith("conv.weight") or UPSAMPLING.fullmatch(name)
        if (is_kernel or HEAD.fullmatch(name)) and tensor.ndim != 5:
            raise ModelError(f"{name[:200]} has {tensor.ndim} axes, not 5; cfseg takes 3D networks")
    depth = sum(UPSAMPLING.fullmatch(name) is not None for name in state)
    if depth == 0:
        raise ModelError("no tu.*.weight in it: not a state dict of nnU-Net v1's 3D U-Net")
    return depth


def _convolutions(state: Mapping[str, torch.Tensor], depth: int) -> dict[tuple[str, int], int]:
    """Count the convolutions of each encoder and decoder stage."""
    count = {("encoder", stage): 0 for stage in range(depth + 1)}
    count |= {("decoder", stage): 0 for stage in range(depth)}
    for name in state:
        for side, pattern in (("encoder", CONTEXT), ("decoder", LOCALIZATION)):
            found = pattern.fullmatch(name)
            if found:
                key = (side, int(found[1]))
                count[key] = count.get(key, 0) + name.endswith("conv.weight")
    if 0 in count.values() or len(count) != 2 * depth + 1:
        raise ModelError("stages are missing: not a whole state dict of nnU-Net v1's 3D U-Net")
    return count


def _index(half: str | None, block: str, convolutions: int) -> int:
    """Return a convolution's number in its stage.

    v1 splits the bottleneck and the decoder stages in two halves, the second of which is the last
    convolution.
    """
    return convolutions - 1 if half == "1" else int(block)


def _first_weight(state: Mapping[str, torch.Tensor], stage: int) -> torch.Tensor:
    for half in ("", "0."):
        name = f"conv_blocks_context.{stage}.{half}blocks.0.conv.weight"
        if name in state:
            return state[name]
    raise ModelError(f"conv_blocks_context.{stage} is missing; the file is not whole")


def _triple(state: Mapping[str, torch.Tensor], name: str) -> tuple[int, int, int]:
    if name not in state:
        raise ModelError(f"{name} is missing; the file is not whole")
    return _axes(state[name])


def _axes(weight: torch.Tensor) -> tuple[int, int, int]:
    z, y, x = weight.shape[2:]
    return int(z), int(y), int(x)
