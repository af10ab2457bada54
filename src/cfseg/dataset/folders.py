"""What lies in a cohort's folders, by name alone; what cannot be read never costs the rest."""

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cfseg.io import CHANNEL, stem

MOST_NAME_BYTES = 200
"""Of a case; a file's name may have 255, and suffixes and a temporary prefix are put to it."""
_NUMBERED = re.compile(r"_\d{4}$")
_NIFTI = re.compile(r"\.nii(\.gz)*$", re.IGNORECASE)


@dataclass
class Folders:
    """The scans and label maps of a folder in FLARE's or nnU-Net's layout.

    Attributes:
        scans: of ``imagesTr*`` or ``images``.
        labels: of ``labelsTr*`` or ``labels``.
        unlabelled: scans of ``unlabel*`` and of ``images*`` in it.
        unread: folders that cannot be read, and why.
        labels_unread: those of them that may hold label maps.
    """

    scans: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    unread: dict[Path, str] = field(default_factory=dict)
    labels_unread: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> "Folders":
        """List the folders of a cohort."""
        found = cls()
        for folder in found.children(root):
            name = folder.name
            if name.startswith("imagesTr") or name == "images":
                found.scans += found.files(folder)
            elif name.startswith("labelsTr") or name == "labels":
                found.labels += found.files(folder)
                found.labels_unread += [folder] if folder in found.unread else []
            elif name.lower().startswith("unlabel"):
                inside = [f for f in found.children(folder) if f.name.startswith("images")]
                for place in (folder, *(f for f in inside if not _NIFTI.search(f.name))):
                    found.unlabelled += found.files(place)
        return found

    def files(self, folder: Path) -> Iterator[Path]:
        """Yield the NIfTI files of a folder by name, those that cannot be opened among them."""
        for path in self.children(folder):
            if _NIFTI.search(path.name) and not path.name.startswith("."):
                yield path

    def children(self, folder: Path) -> list[Path]:
        """Return what lies in a folder, in order; nothing for what is no folder."""
        try:
            if not stat.S_ISDIR(folder.stat().st_mode):
                return []
            return sorted(folder.iterdir())
        except OSError as error:  # a link to nowhere or to itself, no permission, a lost share
            self.unread[folder] = error.strerror or str(error)
            return []


def is_there(path: Path) -> bool:
    """Say whether a path exists; one that may not be looked at does not."""
    return os.path.exists(path)  # noqa: PTH110 - Path's raises PermissionError


def is_file_name(name: str) -> bool:
    """Say whether outputs can be called after a case: its name is no path, and not hidden."""
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:  # half a character, which JSON can hold
        return False
    is_path = bool({*name} & {"/", "\\", "\0"})
    return 0 < length <= MOST_NAME_BYTES and not name.startswith(".") and not is_path


def with_suffix(path: Path, name: str) -> Path:
    """Return a file beside ``path`` with its suffixes and another name."""
    return path.with_name(name + path.name[len(stem(path)) :])


def by_case(
    scans: Iterable[Path], named: Collection[str] = (), labelled: Collection[str] = ()
) -> dict[str, list[Path]]:
    """Return the scans of each case; more than one are the channels that nnU-Net would see.

    ``_0000`` is a channel. Other four digits are one where the first channel is there as well, and
    else belong to the name: ``case_0003.nii.gz`` is a scan of ``case_0003``.

    Args:
        scans: files.
        named: cases that a manifest names: a file that is called so is that case's.
        labelled: names of label maps, which have no channels.
    """
    found: dict[str, list[Path]] = {}
    paths = list(scans)
    stems = {stem(path) for path in paths}
    for path in paths:
        found.setdefault(_case(stem(path), stems, named, labelled), []).append(path)
    return found


def _case(
    name: str, stems: Collection[str], named: Collection[str], labelled: Collection[str]
) -> str:
    base = _NUMBERED.sub("", name)
    if base == name or (name in named and base not in named):
        return name
    if name.endswith(CHANNEL):
        return base
    is_channel = f"{base}{CHANNEL}" in stems and name not in labelled and name not in named
    return base if is_channel else name


def channels(case: str, paths: Sequence[Path]) -> str:
    """Return what is wrong with the scans of a case if they are several channels, else "".

    Args:
        case: its name.
        paths: of :func:`by_case`.
    """
    others = [path for path in paths if stem(path) not in (case, f"{case}{CHANNEL}")]
    if not others:
        return ""
    listed = ", ".join(path.name for path in paths)
    return (
        f"{listed} are named as the channels of one case are, and a CT has one: move the others "
        "away or, if they are cases of their own, name them in manifest.json, for example "
        f'{{"{stem(others[0])}": []}}'
    )
