"""Which files are scans by their names or first bytes, and what a case is called."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from cfseg.errors import InputError, UsageError
from cfseg.io.found import Input
from cfseg.io.stream import CheckedStream, open_regular

_SUFFIX = re.compile(
    r"(\.nii)?(\.gz)+$|\.nii$|(\.seg)?\.(nrrd|nhdr)$|\.mh[ad]$|\.(zip|tar|tgz)$|\.tar\.gz$",
    re.IGNORECASE,
)
_SCAN_NAME = re.compile(r"\.nii(\.gz)*$|\.(nrrd|nhdr|mha|mhd)$", re.IGNORECASE)
CHANNEL = "_0000"
"""What nnU-Net puts behind the case's name for a scan's first channel; a CT has no other."""
_PREAMBLE, _NIFTI_HEAD = 132, 348
MOST_BYTES = 120
"""Of a case's name: what is put before and behind it must fit into the 255 of a file's."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
JOIN = "__"
"""Between a parent folder's name and that of the case."""


def case_id(path: Path) -> str:
    """Return the case's identifier: ``CASE_0000.nii.gz`` and a folder ``CASE`` both give ``CASE``.

    Characters other than letters, digits, ``-``, ``_`` and ``.`` become ``_``.
    """
    return cleaned(_case(path))


def _case(path: Path) -> str:
    whole = path if path.name not in ("", "..") else path.resolve()
    # Unlike Path.is_dir, isdir takes a path that may not be looked at.
    return whole.name if os.path.isdir(path) else stem(whole).removesuffix(CHANNEL)  # noqa: PTH112


def stem(path: Path) -> str:
    """Return a file's name without ``.nii``, ``.nii.gz`` or what other formats have."""
    return _SUFFIX.sub("", path.name)


def cleaned(name: str) -> str:
    """Return a name that is safe in any file name, and leaves room for what is put around it."""
    safe = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "case"
    if _RESERVED.match(safe):
        safe = f"_{safe}"
    if len(safe.encode()) <= MOST_BYTES:
        return safe
    mark = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    cut = safe.encode()[: MOST_BYTES - len(mark) - 1].decode(errors="ignore")
    return f"{cut}-{mark}"


def names_of(path: Path) -> tuple[str, ...]:
    """Return the case ids that a label map may belong to, the likeliest first.

    A label map ``x_0000.nii.gz`` is that of a CT ``x_0000_0000.nii.gz`` or else of a case ``x``.
    """
    own = stem(path)
    return tuple(dict.fromkeys(cleaned(name) for name in (own, own.removesuffix(CHANNEL))))


def case_names(inputs: Sequence[Input]) -> dict[Input, str]:
    """Return the name of each input's case: its own, and as many parent folders as tell it apart.

    Where no folder does, as for ``x.nii`` beside ``x.nii.gz``, the second becomes ``x_2``.
    """
    depth, number = dict.fromkeys(inputs, 0), _places_among_twins(inputs)
    while True:
        names = {found: _numbered(name_at(found, depth[found]), number[found]) for found in inputs}
        twins: dict[str, list[Input]] = defaultdict(list)
        for found, name in names.items():
            twins[name.lower()].append(found)
        several = [same for same in twins.values() if len(same) > 1]
        if not several:
            return names
        for same in several:
            longer = [found for found in same if depth[found] < len(_parents(found))]
            for found in longer:
                depth[found] += 1
            for found in same[1:] if not longer else ():
                number[found] += 1


def _places_among_twins(inputs: Sequence[Input]) -> dict[Input, int]:
    """Return which one each input is, counted from 1, of those with its name in its folder."""
    seen: Counter[tuple[Path, str]] = Counter()
    places = {}
    for found in inputs:
        key = found.shown.parent, name_at(found, 0).lower()
        seen[key] += 1
        places[found] = seen[key]
    return places


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


def _parents(found: Input) -> tuple[str, ...]:
    """Return the names of the folders above an input, the nearest last."""
    parts = found.shown.absolute().parent.parts[1:]
    return tuple(_SUFFIX.sub("", part) for part in parts)


def name_at(found: Input, depth: int) -> str:
    """Return the name of an input's case with so many parent folders in front."""
    above = _parents(found)
    own = _case(found.shown) if not found.files else _folder_name(found)
    return cleaned(JOIN.join((*above[len(above) - depth :], own)) + found.suffix)


def _folder_name(found: Input) -> str:
    whole = found.shown if found.shown.name not in ("", "..") else found.shown.resolve()
    return stem(whole) if found.archive == found.shown else whole.name


def is_scan_name(path: Path) -> bool:
    """Say whether a path could be an image or a label map by its name."""
    return not path.name.startswith(".") and _SCAN_NAME.search(path.name) is not None


def has_dicom_head(path: Path) -> bool:
    """Say whether a regular file begins like DICOM, with the preamble or, as of old, without."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            head = handle.read(_PREAMBLE)
    except OSError:
        return False
    # Without a preamble: a little-endian element of group 0008 with a small element number.
    return head[128:132] == b"DICM" or (head[:2] == b"\x08\x00" and head[3:4] == b"\x00")


def has_nifti_head(path: Path) -> bool:
    """Say whether a regular file holds NIfTI data, compressed or not, whatever it is called."""
    try:
        with open_regular(path) as handle:
            head = CheckedStream(handle, path).peek(_NIFTI_HEAD)
    except InputError:
        return False
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def files_in(path: Path) -> list[Path]:
    """Return the images and label maps that lie directly in a folder, in order, or the one file.

    Raises:
        UsageError: there is no such path, or the folder cannot be listed.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists() and not path.is_symlink():
            raise UsageError(f"there is no {path}; check the path")
        return [path]
    try:
        children = sorted(path.iterdir())
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error.strerror or error}") from error
    # Unlike Path.is_dir, isdir takes an entry that may not be looked at.
    return [it for it in children if is_scan_name(it) and not os.path.isdir(it)]  # noqa: PTH112
