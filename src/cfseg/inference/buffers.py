"""What a stage takes of memory, computed before it runs: each large array it makes, by size."""

from math import prod

from cfseg.geometry import Geometry, Triple
from cfseg.networks.backends import Backend
from cfseg.plan import Architecture, StagePlan
from cfseg.preprocessing.prepare import network_shape, slab_planes, spacing, transposed
from cfseg.preprocessing.resample import separate_axis
from cfseg.preprocessing.restore import goes_by_planes

Buffers = dict[str, int]
"""Bytes by what they are for."""

_LAYERS: dict[Backend, float] = {"openvino": 1.8, "torch": 5.5}
"""Activations of the largest layer's size that exist at once beside the skips; measured."""
COPIES: dict[Backend, float] = {"openvino": 2.9, "torch": 2.0}
"""Times that a network's weights are held: as read, and as the layers want them; measured."""


def stage_buffers(
    plan: StagePlan,
    geometry: Geometry,
    backend: Backend,
    *,
    half: bool = False,
    whole: int = 0,
    mirror: bool = False,
    remember: bool = False,
) -> Buffers:
    """Return what a stage needs to label a volume, beside the volume and the network's weights.

    Args:
        plan: of the stage.
        geometry: grid of the volume that it sees.
        backend: what runs the network.
        half: sums are kept in half precision.
        whole: networks whose logits of the whole volume are still to be kept, this one among
            them; 0 keeps those of the open planes only.
        mirror: the reflections of a window are averaged.
        remember: the logits of a window that holds nothing are kept.
    """
    classes, patch = len(plan.labels), plan.patch
    shape = network_shape(geometry, plan)
    source = transposed(geometry.shape, plan)
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    plane = padded[1] * padded[2]
    slab = slab_planes(source)
    slab_of_logits = min(shape[0], -(-slab * shape[0] // source[0]) + 2)
    sums = (2 if half else 4) * classes * (padded[0] if whole else patch[0]) * plane
    answers = 1 + 2 * mirror + remember
    buffers = {
        "image": _image(plan, geometry, source, shape),
        "padded image": 4 * prod(padded) if padded != shape else 0,
        "layers": layer_bytes(plan.architecture, patch, backend),
        "window": answers * 4 * classes * prod(patch),
        "sums": sums,
        "weights of planes": 4 * slab_planes(padded) * plane,
        "labels": (1 if plan.transpose == (0, 1, 2) else 2) * prod(source),
        "slabs": 12 * slab * source[1] * source[2]
        + (8 + classes) * slab_of_logits * plane
        + 4 * classes * plane,
    }
    if whole > 1:
        buffers["logits of other networks"] = (whole - 1) * sums
    if not goes_by_planes(plan):
        buffers["logits"] = 2 * 4 * classes * prod(padded)
    return buffers


def _image(plan: StagePlan, geometry: Geometry, source: Triple, shape: Triple) -> int:
    """Return what preparing takes at its peak."""
    rule = plan.resampling
    axis = separate_axis(spacing(geometry, plan), plan.spacing_mm, rule)
    if rule.method == "spline" and axis in (1, 2):
        largest = prod(max(a, b) for a, b in zip(source, shape, strict=True))
        return 4 * (prod(source) + 2 * largest)
    slab = slab_planes(source) * 4 * (3 * source[1] * source[2] + shape[1] * source[2])
    return 4 * max(source[0], shape[0]) * shape[1] * shape[2] + slab


def layer_bytes(arch: Architecture, patch: Triple, backend: Backend) -> int:
    """Return what lies between the layers of a network while it looks at a window."""
    sizes, shape = [], patch
    for features, stride in zip(arch.features, arch.strides, strict=True):
        shape = _divided(shape, stride)
        sizes.append(4 * features * prod(shape))
    return sum(sizes) + int(_LAYERS[backend] * max(sizes)) + weight_bytes(arch) // 4


def _divided(shape: Triple, stride: Triple) -> Triple:
    z, y, x = (-(-n // s) for n, s in zip(shape, stride, strict=True))
    return z, y, x


def weight_bytes(arch: Architecture) -> int:
    """Return the size of a network's kernels in single precision."""
    kernels, before = 0, 1
    last = len(arch.features) - 1
    for stage, features in enumerate(arch.features):
        size = prod(arch.kernel_sizes[stage])
        kernels += size * features * (before + (arch.n_conv_encoder[stage] - 1) * features)
        if stage < last:
            layers = arch.n_conv_decoder[last - 1 - stage]
            kernels += size * features * (2 * features + (layers - 1) * features)
            above = arch.features[stage + 1]
            kernels += prod(arch.strides[stage + 1]) * above * features
        before = features
    return 4 * kernels
