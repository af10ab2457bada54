"""The machine and the software of a training (the paper's Table 1)."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

CPU_INFO = Path("/proc/cpuinfo")


def environment() -> dict[str, str]:
    """Return the rows of the paper's Table 1: system, processor, memory, GPU, software."""
    rows = {
        "System": _system(),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "RAM": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "GPU (number and type)": _gpu(),
        "CUDA version": str(torch.version.cuda or "none"),
        "Programming language": f"Python {platform.python_version()}",
        "Deep learning framework": f"torch {torch.__version__}",
    }
    packages = ("dynamic_network_architectures", "cfseg")
    return rows | {"Specific dependencies": ", ".join(f"{n} {_version(n)}" for n in packages)}


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _cpu() -> str:
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{count} x {torch.cuda.get_device_name(0)}" if count else "none"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
