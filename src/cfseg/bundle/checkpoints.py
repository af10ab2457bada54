"""The one place where a ``.pth`` file is read, and it never runs code from it.

``torch.load(weights_only=True)`` builds tensors and plain containers. Stock nnU-Net v2 checkpoints
also hold numpy floats in their training log, for which four names of numpy are needed. Whatever
else a file wants to build is refused, and there is no way around that here.
"""

import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar

from cfseg.errors import ModelError

NUMPY_NAMES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    scalar,
    # numpy 1 wrote the same function under another name.
    (scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it; tensors come to the CPU.

    Raises:
        ModelError: the file is missing, damaged, not a dictionary, or it wants to build something
            else than tensors, containers and numpy floats.
    """
    try:
        with torch.serialization.safe_globals(NUMPY_NAMES), warnings.catch_warnings():
            # Of a pickle that torch did not write it first warns; what follows says more.
            warnings.simplefilter("ignore", UserWarning)
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file; check the folder's name") from error
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: {_refusal(str(error))}") from error
    except Exception as error:
        # Damaged bytes are read as instructions: they fail in any way they like.
        raise ModelError(
            f"{path}: not a checkpoint, or damaged ({type(error).__name__}); copy it again"
        ) from error
    if not isinstance(contents, dict):
        raise ModelError(
            f"{path}: holds a {type(contents).__name__}, not a checkpoint's dictionary"
        )
    return contents


def tensors_of(contents: object, path: Path) -> dict[str, torch.Tensor]:
    """Return a state dict as plain names and tensors, without the prefixes of wrappers.

    Raises:
        ModelError: it is not a dictionary of tensors.
    """
    if not isinstance(contents, dict) or not contents:
        raise ModelError(f"{path}: holds no network weights; give another checkpoint")
    found = {}
    for name, tensor in contents.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelError(f"{path}: {name!r} is not a weight; give another checkpoint")
        # DataParallel and torch.compile put these before the names.
        found[name.removeprefix("module.").removeprefix("_orig_mod.")] = tensor
    return found


def _refusal(message: str) -> str:
    # torch names the offender in these two ways.
    named = re.search(r"GLOBAL ([\w.]+)|<class '([\w.]+)'", message)
    if named is None:
        return "not a checkpoint, or damaged; copy it again"
    name = named[1] or named[2]
    return (
        f"refused: it wants to build {name}, which could run code; ask its makers for a plain "
        "nnU-Net checkpoint or a bundle"
    )
