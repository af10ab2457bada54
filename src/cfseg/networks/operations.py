"""How many operations a network takes for a window, and how many this machine can do."""

from math import ceil, prod
from time import perf_counter

import torch

from cfseg.networks.build import build_network
from cfseg.plan import StagePlan

_CPU = torch.device("cpu")


def window_operations(plan: StagePlan, decoder_stop: int = 0) -> int:
    """Return the floating-point operations of one window.

    A multiplication and an addition count as two. Convolutions, transposed ones too, are counted;
    norms and activations, a hundredth of the whole, are not.

    Args:
        plan: gives the architecture and the size of the window.
        decoder_stop: see :func:`cfseg.networks.build.build_network`.
    """
    arch, shapes = plan.architecture, []
    shape: tuple[int, ...] = plan.patch
    total, before = 0, 1
    for stage, features in enumerate(arch.features):
        shape = tuple(ceil(n / s) for n, s in zip(shape, arch.strides[stage], strict=True))
        shapes.append(shape)
        kernel, voxels = prod(arch.kernel_sizes[stage]), prod(shape)
        inner = (arch.n_conv_encoder[stage] - 1) * features
        total += voxels * kernel * features * (before + inner)
        before = features
    last = len(arch.features) - 1
    for step in range(last - decoder_stop):
        stage = last - 1 - step
        features, voxels = arch.features[stage], prod(shapes[stage])
        kernel, layers = prod(arch.kernel_sizes[stage]), arch.n_conv_decoder[step]
        # Each voxel of a transposed convolution's result has one voxel below it.
        total += voxels * arch.features[stage + 1] * features
        total += voxels * kernel * features * (2 * features + (layers - 1) * features)
    finest = decoder_stop
    total += prod(shapes[finest]) * arch.features[finest] * len(plan.labels)
    return 2 * total


def parameters(plan: StagePlan) -> int:
    """Return how many numbers a network learns, its deep-supervision heads included."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build_network(plan).parameters())


def sgemm_gflops(size: int = 2048, repeats: int = 3, device: torch.device = _CPU) -> float:
    """Return the best of a few products of square matrices, in 1e9 operations per second.

    Args:
        size: rows and columns of the matrices.
        repeats: how many products.
        device: what multiplies; a GPU does it in half precision, as it runs the networks.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    one, other = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    out = one @ other
    seconds = []
    for _ in range(repeats):
        start = now_on(device)
        torch.mm(one, other, out=out)
        seconds.append(now_on(device) - start)
    return 2 * size**3 / min(seconds) / 1e9


def now_on(device: torch.device) -> float:
    """Return the time at which the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()
