"""How much memory there is, and whether a scan fits, before any is asked for."""

import math
import os
from pathlib import Path

from cfseg.errors import InputError

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def limit_bytes() -> float:
    """Return the most memory that this process can have: of the machine, its group, its limits."""
    return min(_physical(), _of_group(), _of_process())


def check_memory(what: str, needed: float) -> None:
    """Refuse what this machine cannot hold.

    Args:
        what: needs it, in words.
        needed: bytes at the peak, estimated.

    Raises:
        InputError: ``E_TOO_LARGE`` with both numbers.
    """
    limit = limit_bytes()
    if needed > limit:
        raise InputError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory and this process can have "
            f"{limit / 1e9:.1f} GB; crop or resample the scan, or take a machine with more memory",
            code="E_TOO_LARGE",
        )


def _physical() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _of_group() -> float:
    """Return the least limit of the control groups that the process is in (Slurm, containers)."""
    try:
        lines = _OWN_GROUP.read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    own = next((line[3:] for line in lines if line.startswith("0::")), "/").lstrip("/")
    folder = _GROUPS / own
    folders = [folder, *(f for f in folder.parents if f.is_relative_to(_GROUPS))]
    files = [*(f / "memory.max" for f in folders), _GROUPS / "memory/memory.limit_in_bytes"]
    return min(map(_number, files))


def _number(file: Path) -> float:
    try:
        return float(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf


def _of_process() -> float:
    try:
        import resource
    except ImportError:
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else float(limit)
