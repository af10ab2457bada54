"""Which value of a reference marks voxels that nobody annotated: nnU-Net's ``ignore`` label.

FLARE has no such rule. nnU-Net names the value in ``dataset.json``: ``"labels": {"ignore": 15}``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfseg.errors import UsageError
from cfseg.foreign import read_object
from cfseg.labels import NAMES

DESCRIPTION = "dataset.json"
NONE = 0
"""Given as the value: nothing is ignored, whatever the description says."""
_MAX_ID = 255


def ignored_value(ref: Path, labels: Sequence[int], given: int | None = None) -> int | None:
    """Return the value whose voxels are left out, or None if there is none.

    Args:
        ref: the references, a folder or one file. Unless a value is given, the ``dataset.json``
            beside them decides, or else that in the folder above.
        labels: the ids to judge; none of them can be ignored.
        given: the value, or :data:`NONE`.

    Raises:
        UsageError: the value is a label to judge or none that a label map can hold, or the
            description cannot be read.
    """
    value, source = (given, "--ignore") if given is not None else _described(ref)
    if value is None or value == NONE:
        return None
    if type(value) is not int or not 0 < value <= _MAX_ID:
        raise UsageError(
            f"{source}: the value to ignore is {value!r}; it has to be a whole number from 1 to "
            f"{_MAX_ID} (--ignore 0: none)"
        )
    if value in labels:
        raise UsageError(
            f"{source}: {value} is to be ignored and is the {NAMES[value]} to be judged; choose "
            "--labels without it, or give another value with --ignore (0: none)"
        )
    return value


def _described(ref: Path) -> tuple[Any, Path]:
    folder = ref if ref.is_dir() else ref.parent
    for path in (folder / DESCRIPTION, folder.resolve().parent / DESCRIPTION):
        if path.is_file():
            return _ignore_of(path), path
    return None, folder


def _ignore_of(path: Path) -> Any:  # noqa: ANN401 - JSON
    try:
        labels = read_object(path, finite=False).get("labels")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read, and it may name a value to ignore: {error}; repair it, or say "
            "the value with --ignore (0: none)"
        ) from error
    return labels.get("ignore") if isinstance(labels, dict) else None
