"""Files that a training goes on from: tensors as safetensors, all else as JSON beside them.

The JSON file is written last and carries a digest of both, so a checkpoint is there whole or not
at all, and a damaged one is known. No pickle is read or written.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError

from cfseg.errors import ModelError
from cfseg.io import replacing, write_text, writing
from cfseg.io.atomic import TEMPORARY_PREFIX, remove_quietly
from cfseg.plan import Frozen

TENSORS = ".safetensors"
Tensors = Mapping[str, torch.Tensor]
Contents = tuple[dict[str, torch.Tensor], dict[str, Any]]


class Sheet(Frozen):
    """The JSON file of a checkpoint.

    Attributes:
        schema_version: of this file.
        digest: sha256 of the values, as JSON with sorted keys, and of the tensors' file after it.
        values: what is no tensor.
    """

    schema_version: Literal[1] = 1
    digest: str
    values: dict[str, Any]


def write(folder: Path, kind: str, step: int, tensors: Tensors, values: Mapping[str, Any]) -> Path:
    """Write a checkpoint; one of the same kind and step is replaced.

    Args:
        folder: of the checkpoints; nobody else writes there meanwhile.
        kind: of checkpoint, a word.
        step: of the training.
        tensors: by name, on any device.
        values: JSON.

    Returns:
        Its JSON file.

    Raises:
        ResourceError: ``E_DISK``; checkpoints that were there are as they were.
    """
    sheet = folder / f"{kind}_{step:08d}.json"
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    contents = safetensors.torch.save(on_cpu)
    _remove([sheet])  # between the two writes below nothing may vouch for the old tensors
    with replacing(sheet.with_suffix(TENSORS)) as temporary:
        temporary.write_bytes(contents)
    written = Sheet(digest=_digest(values, contents), values=dict(values))
    write_text(sheet, written.model_dump_json(indent=2) + "\n")
    return sheet


def read(sheet: Path) -> Contents:
    """Read a checkpoint: its tensors on the CPU, and its values.

    Args:
        sheet: its JSON file.

    Raises:
        ModelError: it is damaged.
    """
    file = sheet.with_suffix(TENSORS)
    try:
        values, contents = _sheet(sheet), file.read_bytes()
        if values.digest != _digest(values.values, contents):
            raise ModelError(
                f"{file}: damaged, its sha256 is not the one in {sheet.name}; restore it from a "
                f"backup, or delete {sheet.parent} to train this network again"
            )
        return dict(safetensors.torch.load(contents)), values.values
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from error
    except safetensors.SafetensorError as error:
        raise ModelError(f"{file}: not a safetensors file ({error})") from error


def values_of(sheet: Path) -> dict[str, Any]:
    """Return the values of a checkpoint without reading its tensors.

    Raises:
        ModelError: they cannot be read.
    """
    return _sheet(sheet).values


def newest(folder: Path, kind: str, report: Callable[[str], None]) -> Contents | None:
    """Read the newest checkpoint that is whole; None if there is none at all.

    Args:
        folder: of the checkpoints.
        kind: of checkpoint.
        report: is told about each that is passed over.

    Raises:
        ModelError: there are some, and none is whole.
    """
    sheets = listed(folder, kind)
    for sheet in reversed(sheets):
        try:
            return read(sheet)
        except ModelError as error:
            report(f"{error.message}; going on from the checkpoint before it")
    if sheets:
        raise ModelError(
            f"{folder}: none of its {len(sheets)} checkpoints is whole; restore one from a backup, "
            "or delete the folder to begin anew"
        )
    return None


def listed(folder: Path, kind: str) -> list[Path]:
    """Return the checkpoints of a kind, by step."""
    return sorted(folder.glob(f"{kind}_*.json"))


def keep_only(folder: Path, kind: str, stay: Iterable[Path]) -> None:
    """Remove all checkpoints of a kind but some, and what a killed process left of any.

    Args:
        folder: of the checkpoints.
        kind: of checkpoint.
        stay: their JSON files.

    Raises:
        ResourceError: ``E_DISK``, the folder may not be written.
    """
    names = {sheet.stem for sheet in stay}
    # First what vouches for the tensors, then the tensors.
    for pattern in (f"{kind}_*.json", f"{kind}_*{TENSORS}"):
        _remove(path for path in folder.glob(pattern) if path.stem not in names)
    for temporary in folder.glob(f"{TEMPORARY_PREFIX}*"):
        remove_quietly(temporary)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with writing(path):
            path.unlink(missing_ok=True)


def _sheet(path: Path) -> Sheet:
    try:
        return Sheet.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise ModelError(f"{path}: damaged, it is not the JSON of a checkpoint") from error


def _digest(values: Mapping[str, Any], contents: bytes) -> str:
    whole = hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode())
    whole.update(contents)
    return whole.hexdigest()
