"""Other data sets' label names, and the FLARE ids that they mean."""

from collections.abc import Mapping
from pathlib import Path

from cfseg.errors import UsageError
from cfseg.foreign import brief
from cfseg.labels import LABELS, TUMOR, flare_id, plain_word

IDENTITY = {label.id: label.id for label in LABELS}
IGNORE = TUMOR.id + 1
"""What a voxel that nobody annotated has on FLARE's ids: as nnU-Net wants it, the id after the
last label, whatever value stands in the file."""
MOST_ID = 255
_BACKGROUND = "background"
_IGNORE = "ignore"


def label_map_from_names(labels: Mapping[str, object], path: Path) -> dict[int, int] | None:
    """Return {id in the file: FLARE id} from the ``labels`` of a ``dataset.json``.

    Args:
        labels: {name: id} as nnU-Net v2 writes it, or {id: name} as the Decathlon does; a label
            called ``ignore`` is left out, see :func:`ignore_from_names`.
        path: the file, for messages.

    Returns:
        None if the file's ids are FLARE's own, all 14 of them.

    Raises:
        UsageError: a name that means none of FLARE's labels, an id that is not one number, or two
            names of one id.
    """
    named = [
        (number, name)
        for number, name in _pairs(labels, path)
        if plain_word(name) != _BACKGROUND and name != _IGNORE
    ]
    unknown = [name for _, name in named if flare_id(name) is None]
    if unknown:
        raise UsageError(
            f"{path}: the label names {', '.join(map(brief, unknown[:10]))} are none of "
            f"{', '.join(label.name for label in LABELS)}; say in manifest.json what the ids mean, "
            'for example {"label_map": {"1": 1, "2": 0}, ...}, where 0 leaves a label out'
        )
    found = {number: flare_id(name) or 0 for number, name in named}
    return None if found == IDENTITY else found


def ignore_from_names(labels: Mapping[str, object], path: Path) -> int | None:
    """Return the value that nnU-Net's label ``ignore`` has in the files, None if there is none.

    Args:
        labels: as in :func:`label_map_from_names`.
        path: the file, for messages.

    Raises:
        UsageError: it is not the one after the last label, as nnU-Net wants it.
    """
    pairs = _pairs(labels, path)
    found = next((number for number, name in pairs if name == _IGNORE), None)
    last = max((number for number, name in pairs if name != _IGNORE), default=0)
    if found is not None and found != last + 1:
        raise UsageError(
            f'{path}: the label "ignore" is {found}; nnU-Net wants the id after the last label, '
            f"{last + 1}: repair the description and the label maps"
        )
    return found


def _pairs(labels: Mapping[str, object], path: Path) -> list[tuple[int, str]]:
    pairs = [_pair(key, value, path) for key, value in labels.items()]
    names: dict[int, str] = {}
    for number, name in pairs:
        other = names.setdefault(number, name)
        if other != name:
            raise UsageError(f"{path}: {brief(other)} and {brief(name)} have the same id {number}")
    return pairs


def _pair(key: str, value: object, path: Path) -> tuple[int, str]:
    number, name = (key, value) if isinstance(value, str) else (value, key)
    try:
        found = int(str(number))
    except ValueError:
        found = -1
    if not 0 <= found <= MOST_ID:
        raise UsageError(
            f"{path}: the label {brief(name)} has the id {brief(number)}; expected one number from "
            f"0 to {MOST_ID} per label (regions of several labels cannot be read)"
        )
    return found, str(name)
