"""The one place where a ``.pth`` file is read, and it never runs code from it.

``torch.load(weights_only=True)`` builds tensors and plain containers. Stock nnU-Net v2 checkpoints
also hold numpy floats in their training log, for which four names of numpy are needed. Whatever
else a file wants to build is refused, and there is no way around that here.
"""

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar

from cfseg.bundle.checkpoint_contents import check_contents
from cfseg.errors import ModelError
from cfseg.foreign import brief

LONGEST_NUMBER = 16
"""Bytes of a numpy number that is read."""


def numpy_number(dtype: np.dtype[Any], contents: bytes) -> Any:  # noqa: ANN401 - any number
    """Return a number of numpy; a type that says it has a gigabyte is none.

    Raises:
        pickle.UnpicklingError: it is no number.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > LONGEST_NUMBER:
        raise pickle.UnpicklingError(f"{dtype} is no number")
    return scalar(dtype, contents)


NUMPY_NAMES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (numpy_number, "numpy._core.multiarray.scalar"),
    # numpy 1 wrote the same function under another name.
    (numpy_number, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it; tensors come to the CPU.

    Raises:
        ModelError: the file is missing, damaged, not a dictionary, takes more memory than its own
            size, or wants to build something else than tensors, containers and numpy floats.
    """
    try:
        check_contents(path)
        with torch.serialization.safe_globals(NUMPY_NAMES), warnings.catch_warnings():
            # Of a pickle that torch did not write it first warns; what follows says more.
            warnings.simplefilter("ignore", UserWarning)
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file; check the folder's name") from error
    except ModelError:
        raise
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
            raise ModelError(f"{path}: {brief(name)} is not a weight; give another checkpoint")
        # DataParallel and torch.compile put these before the names.
        found[name.removeprefix("module.").removeprefix("_orig_mod.")] = tensor
    return found


def check_sizes(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check that weights are as large as they say, each with its own part of the file.

    A tensor may name a shape that its numbers do not fill: one of them, repeated without end.

    Raises:
        ModelError: together they are larger than the file.
    """
    total = sum(tensor.nbytes for tensor in weights.values())
    if total > path.stat().st_size:
        raise ModelError(
            f"{path}: refused: its weights are {total} bytes by their shapes, more than the file "
            "has; ask its makers for a file as torch.save writes it"
        )
