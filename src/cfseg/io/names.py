"""Which files of a folder are scans, and what a case is called."""

import re
from pathlib import Path

from cfseg.errors import UsageError

_SUFFIX = re.compile(r"(\.nii)?(\.gz)+$|\.nii$", re.IGNORECASE)
_SCAN_NAME = re.compile(r"\.nii(\.gz)*$", re.IGNORECASE)
_CHANNEL = re.compile(r"_0000$")
_PREAMBLE = 132


def case_id(path: Path) -> str:
    """Return the case's identifier: ``CASE_0000.nii.gz`` and a folder ``CASE`` both give ``CASE``.

    Characters other than letters, digits, ``-``, ``_`` and ``.`` become ``_``.
    """
    name = path.name if path.name not in ("", "..") else path.resolve().name
    if not path.is_dir():
        name = _CHANNEL.sub("", _SUFFIX.sub("", name))
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "case"


def names_of(path: Path) -> tuple[str, ...]:
    """Return the case ids that a label map may belong to, the likeliest first.

    A label map ``x_0000.nii.gz`` is that of a CT ``x_0000_0000.nii.gz`` or else of a case ``x``.
    """
    stem = re.sub(r"[^\w.-]", "_", _SUFFIX.sub("", path.name))
    return tuple(dict.fromkeys((stem, _CHANNEL.sub("", stem))))


def is_scan_name(path: Path) -> bool:
    """Say whether a path could be a CT: by its name a NIfTI file, or a folder holding DICOM."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return holds_dicom(path)
    return _SCAN_NAME.search(path.name) is not None


def holds_dicom(folder: Path) -> bool:
    """Say whether a DICOM file lies directly in the folder."""
    return any(is_dicom_file(path) for path in sorted(folder.iterdir()))


def is_dicom_file(path: Path) -> bool:
    """Say whether a regular file begins like DICOM, with the preamble or, as of old, without."""
    if path.name.startswith(".") or not path.is_file():
        return False
    try:
        with path.open("rb") as handle:
            head = handle.read(_PREAMBLE)
    except OSError:
        return False
    # Without a preamble: a little-endian element of group 0008 with a small element number.
    return head[128:132] == b"DICM" or (head[:2] == b"\x08\x00" and head[3:4] == b"\x00")


def find_scans(inputs: list[Path]) -> tuple[list[Path], int]:
    """Return the scans among the inputs, in order, and how many other entries were ignored.

    An input is a file, a folder with a DICOM series, or a folder of both. A file that is named
    itself always counts as a scan, so that reading it says what is wrong with it; so does one that
    does not exist, unless none does.

    Raises:
        UsageError: no input exists.
    """
    missing = [path for path in map(Path, inputs) if not path.exists() and not path.is_symlink()]
    if inputs and len(missing) == len(inputs):
        raise UsageError(f"there is no {', no '.join(map(str, missing[:5]))}; check the paths")
    scans: list[Path] = []
    ignored = 0
    for path in map(Path, inputs):
        if not path.is_dir():
            scans.append(path)
            continue
        found, others = _in_folder(path)
        scans += found
        ignored += others
    return list(dict.fromkeys(scans)), ignored


def _in_folder(folder: Path) -> tuple[list[Path], int]:
    children = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    scans = [path for path in children if is_scan_name(path)]
    if not scans and holds_dicom(folder):
        return [folder], 0
    return scans, len(children) - len(scans)
