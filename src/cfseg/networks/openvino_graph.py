"""An OpenVINO graph of a plan's U-Net, written down from plan and weights.

Converting the torch module takes 5 to 14 s and an ONNX file; writing the graph down takes a tenth
of a second. It is the network of :mod:`cfseg.networks.build`, layer by layer.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cfseg.networks.build import fitting_weights
from cfseg.networks.openvino_silent import op, ov
from cfseg.plan import StagePlan

Node = Any
_SPACE = np.array([2, 3, 4], dtype=np.int64)


def build_graph(
    plan: StagePlan, weights: Mapping[str, torch.Tensor], decoder_stop: int = 0
) -> ov.Model:
    """Return the graph from a window (1, 1, Z, Y, X) to its logits (1, C, Z, Y, X), float32.

    Args:
        plan: gives architecture, classes and the size of the window.
        weights: by state-dict name, as in an nnU-Net v2 checkpoint. The graph shares their memory,
            but for kernels that are cut in two.
        decoder_stop: see :func:`cfseg.networks.build.build_network`.

    Raises:
        ModelError: as :func:`cfseg.networks.build.load_network`.
    """
    tensors = fitting_weights(plan, weights, decoder_stop)
    return _Graph(plan, {name: _array(t) for name, t in tensors.items()}).model(decoder_stop)


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().cpu().float().contiguous().numpy()
    return array


class _Graph:
    def __init__(self, plan: StagePlan, weights: dict[str, npt.NDArray[np.float32]]) -> None:
        self.plan, self.arch, self.weights = plan, plan.architecture, weights

    def model(self, decoder_stop: int) -> ov.Model:
        image = op.parameter([1, 1, *self.plan.patch], np.float32, name="image")
        skips = self.encoder(image)
        last = len(self.arch.n_conv_decoder) - decoder_stop
        features = skips[-1]
        for stage in range(last):
            features = self.decoder_stage(stage, features, skips[-(stage + 2)])
        logits = self.with_bias(
            _convolution(
                features, self.constant(f"decoder.seg_layers.{last - 1}.weight"), (1, 1, 1)
            ),
            f"decoder.seg_layers.{last - 1}",
        )
        if decoder_stop:
            logits = self.upsampled(logits)
        return ov.Model([op.result(logits, name="logits")], [image], "unet")

    def encoder(self, image: Node) -> list[Node]:
        skips, features = [], image
        for stage, convs in enumerate(self.arch.n_conv_encoder):
            for number in range(convs):
                stride = self.arch.strides[stage] if number == 0 else (1, 1, 1)
                name = f"encoder.stages.{stage}.0.convs.{number}"
                features = self.block([features], name, stride)
            skips.append(features)
        return skips

    def decoder_stage(self, stage: int, below: Node, skip: Node) -> Node:
        name = f"decoder.transpconvs.{stage}"
        stride = self.arch.strides[-(stage + 1)]
        upsampled = op.convolution_backprop_data(
            below, self.constant(f"{name}.weight"), list(stride)
        )
        above = [self.with_bias(upsampled, name), skip]
        for number in range(self.arch.n_conv_decoder[stage]):
            above = [self.block(above, f"decoder.stages.{stage}.convs.{number}", (1, 1, 1))]
        return above[0]

    def block(self, features: Sequence[Node], name: str, stride: Sequence[int]) -> Node:
        """Convolution, instance norm, leaky ReLU.

        Of several features the network takes the concatenation. A convolution of that is the sum
        of one convolution each, and the copy, the largest array of all, is not made.

        The convolution's bias is left out: the norm subtracts the mean, and it with it.
        """
        kernel, start = self.weights[f"{name}.conv.weight"], 0
        parts = []
        for each in features:
            stop = start + list(each.shape)[1]
            weight = np.ascontiguousarray(kernel[:, start:stop])
            parts.append(_convolution(each, op.constant(weight, shared_memory=True), stride))
            start = stop
        result = reduce(op.add, parts)
        result = op.mvn(result, _SPACE, True, self.arch.norm_eps, "inside_sqrt")
        result = op.multiply(result, self.per_channel(f"{name}.norm.weight"))
        result = op.add(result, self.per_channel(f"{name}.norm.bias"))
        return op.prelu(result, np.array([self.arch.negative_slope], dtype=np.float32))

    def with_bias(self, result: Node, name: str) -> Node:
        if f"{name}.bias" not in self.weights:
            return result
        return op.add(result, self.per_channel(f"{name}.bias"))

    def upsampled(self, logits: Node) -> Node:
        return op.interpolate(
            logits,
            scales_or_sizes=np.array(self.plan.patch, dtype=np.int64),
            mode="linear_onnx",
            shape_calculation_mode="sizes",
            coordinate_transformation_mode="half_pixel",
            axes=_SPACE,
        )

    def constant(self, name: str) -> Node:
        return op.constant(self.weights[name], shared_memory=True)

    def per_channel(self, name: str) -> Node:
        return op.constant(self.weights[name].reshape(1, -1, 1, 1, 1), shared_memory=True)


def _convolution(features: Node, kernel: Node, stride: Sequence[int]) -> Node:
    # nnU-Net pads by (k - 1) // 2 on both sides.
    pads = [(size - 1) // 2 for size in list(kernel.shape)[2:]]
    return op.convolution(features, kernel, list(stride), pads, pads, [1, 1, 1])
