"""Where networks run."""

import torch

from cfseg.errors import UsageError


def find_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is the first GPU, else the CPU.

    Raises:
        UsageError: an unknown name, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: give auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: {torch.cuda.device_count()} CUDA devices are here; use --device cpu"
        )
    return device
