"""In what precision a network is trained on a CPU: bf16 only where that is fast."""

import platform
from typing import Literal

import torch

from cfseg.errors import UsageError
from cfseg.recipes.training import Precision

_X86 = ("x86_64", "amd64")


def can_bf16() -> bool:
    """Say whether this CPU computes in bf16 at all; others imitate it, hundreds of times slower."""
    built_in = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(built_in and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_bf16_instructions() -> bool:
    """Say whether this CPU has instructions for bf16, so that it is faster than fp32.

    An x86 CPU with AVX-512 alone can compute in bf16 but gains nothing.
    """
    if platform.machine().lower() not in _X86:
        return can_bf16()
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, name, bool)() for name in names)
    return native and can_bf16()


def cpu_precision(wanted: Precision) -> Literal["fp32", "bf16"]:
    """Return the precision on this CPU for what a recipe wants.

    Raises:
        UsageError: bf16 is wanted by name and this CPU cannot do it.
    """
    if wanted == "auto":
        return "bf16" if has_bf16_instructions() else "fp32"
    if wanted == "bf16" and not can_bf16():
        raise UsageError(
            "training.cpu_precision=bf16: this CPU has no instructions for bf16 and would be "
            "hundreds of times slower; set training.cpu_precision=auto or fp32"
        )
    return wanted


def precision_on(device: torch.device, wanted: Precision) -> Literal["fp32", "bf16", "fp16"]:
    """Return the precision that a network is trained in: on a GPU nnU-Net's own, fp16.

    Args:
        device: where it is trained.
        wanted: of a CPU.

    Raises:
        UsageError: see :func:`cpu_precision`.
    """
    return "fp16" if device.type == "cuda" else cpu_precision(wanted)
