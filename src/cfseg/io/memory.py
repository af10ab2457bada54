"""How much memory there is, and whether a scan fits, before any is asked for."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cfseg.errors import CfsegError, InputError, ResourceError, is_out_of_memory

MAX_VOXELS = 1_500_000_000
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


def check_voxels(what: str, shape: Sequence[int]) -> None:
    """Refuse more voxels than are ever read.

    Args:
        what: has them, in words.
        shape: voxels along each axis.

    Raises:
        InputError: ``E_TOO_LARGE``.
    """
    voxels = math.prod(shape)
    if voxels > MAX_VOXELS:
        raise InputError(
            f"{what} has {voxels / 1e9:.1f}e9 voxels {tuple(shape)}; at most "
            f"{MAX_VOXELS / 1e9:.1f}e9 are read; crop or resample the scan",
            code="E_TOO_LARGE",
        )


def reading_bytes(voxels: int, dtype: np.dtype[Any], resampled: int = 0) -> int:
    """Return the memory that reading takes at its peak: as stored, in HU, on the canonical axes.

    Args:
        voxels: of the file.
        dtype: of the file.
        resampled: voxels of the orthogonal grid that a sheared scan is brought to.
    """
    hu_bytes = min(4, max(2, dtype.itemsize))
    as_stored = voxels * (dtype.itemsize + 2 * hu_bytes)
    return as_stored + (voxels + resampled) * hu_bytes if resampled else as_stored


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn what a failed allocation raises within the block into one error that says so.

    Args:
        what: ran out of memory, in words.

    Raises:
        ResourceError: ``E_OOM``.
    """
    try:
        yield
    except CfsegError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"{what}: out of memory; free some, or crop the scan", code="E_OOM"
        ) from error


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
