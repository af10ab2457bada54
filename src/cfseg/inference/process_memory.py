"""What this process holds in memory, and the most that it held."""

import ctypes
import sys
from pathlib import Path
from typing import Literal

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
Field = Literal["VmRSS", "VmHWM"]


def used_bytes(device: torch.device) -> int:
    """Return what the process holds in memory now, or what of a GPU is in use.

    What torch holds of a GPU to use it again is not counted: it gives that back when memory runs
    short.
    """
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _status("VmRSS") or _largest_ever()


def give_back(device: torch.device) -> None:
    """Return to the system, or to the GPU, what is kept only to be used again, if that is known."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)


def peak_bytes(device: torch.device) -> int:
    """Return the most since :func:`reset_peak`, or of the process's life where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return _status("VmHWM") or _largest_ever()


def reset_peak(device: torch.device) -> None:
    """Begin to measure anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return  # not Linux, or not allowed: the peak stays that of the process's life


def _status(name: Field) -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else 0


def _largest_ever() -> int:
    try:
        import resource
    except ImportError:
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest
