"""What a listing of files finds: scans to be read, and what was left aside and why."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from os.path import abspath
from pathlib import Path
from typing import Self

from cfseg.errors import CfsegError, InputError
from cfseg.io.archives import Unpacked
from cfseg.tables import listed


@dataclass(frozen=True)
class Input:
    """One scan, found but not read.

    Attributes:
        path: its file, or the folder that holds the files of its DICOM series.
        files: of the series; empty where ``path`` is the file.
        series: UID of the series, "" for other files.
        acquisition: which of several volumes of the series, counted from 1; None for the only one.
        suffix: what tells its case from others of the same folder, as in ``_series3``.
        notes: about what was left aside beside it, each ``word: detail``.
        archive: that it was unpacked from, None if it was not.
        unpacked: keeps what came out of the archive as long as somebody holds the input.
        shown: where it lies for people: ``path``, or the place inside of the archive.
        refusal: why it cannot be read, known already; None if nothing is.
        case: what its case is called, once that is settled among all of a run.
    """

    path: Path
    files: tuple[Path, ...] = ()
    series: str = ""
    acquisition: int | None = None
    suffix: str = ""
    notes: tuple[str, ...] = ()
    archive: Path | None = None
    unpacked: Unpacked | None = field(default=None, compare=False, repr=False)
    shown: Path = Path()
    refusal: CfsegError | None = field(default=None, compare=False)
    case: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.shown == Path():
            object.__setattr__(self, "shown", self.path)

    @classmethod
    def refused(cls, path: Path, error: CfsegError) -> Self:
        """Return an input of which it is known already that it is refused."""
        return cls(path, refusal=error)

    @property
    def name(self) -> str:
        """The name of its file or folder."""
        return self.shown.name

    @property
    def identity(self) -> tuple[str, str, int]:
        """What stays the same from run to run: place, series, acquisition."""
        place = abspath(self.shown)  # noqa: PTH100 - resolve would follow links
        return place, self.series, self.acquisition or 0

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files that are looked at to see whether the input changed."""
        if self.archive is not None:
            return (self.archive,)
        if self.path.suffix.lower() in (".mhd", ".nhdr"):  # the voxels lie in a file beside it
            stem = self.path.name.rpartition(".")[0]
            beside = sorted(it for it in self.path.parent.glob("*") if it.stem == stem)
            return tuple(beside) or (self.path,)
        return self.files or (self.path,)

    def from_archive(self, archive: Path, unpacked: Unpacked) -> Self:
        """Return the input as one of an archive that was unpacked."""
        shown = archive / self.path.relative_to(unpacked.folder)
        return replace(self, archive=archive, unpacked=unpacked, shown=shown)


@dataclass(frozen=True)
class Ignored:
    """Something that is no scan.

    Attributes:
        path: of it.
        reason: in a few words, the same ones for the same reason.
        note: the word under which the notes of scans beside it name it, "" for none.
    """

    path: Path
    reason: str
    note: str = ""


@dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        inputs: the scans, in order.
        ignored: everything else.
    """

    inputs: tuple[Input, ...]
    ignored: tuple[Ignored, ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """How many entries were left aside for which reason, the most frequent first."""
        return dict(Counter(entry.reason for entry in self.ignored).most_common())


_WORDS = {
    "files_skipped": "hold no image",
    "modality_skipped": "are of another modality",
    "localizer_skipped": "are localizers",
}


class Beside:
    """The notes of scans about what was left aside in their folders.

    Args:
        ignored: everything that was left aside.
    """

    def __init__(self, ignored: Iterable[Ignored]) -> None:
        self._names: dict[tuple[Path, str], list[str]] = defaultdict(list)
        for entry in ignored:
            if entry.note:
                self._names[entry.path.parent, entry.note].append(entry.path.name)

    def notes(self, folders: Iterable[Path]) -> tuple[str, ...]:
        """Return the notes of a scan whose files lie in these folders."""
        there = sorted(folders)
        found = {
            word: [name for folder in there for name in self._names.get((folder, word), ())]
            for word in _WORDS
        }
        return tuple(
            f"{word}: {len(names)} files {_WORDS[word]}: {listed(names)}"
            for word, names in found.items()
            if names
        )


def nothing_in(folder: Path, ignored: Iterable[Ignored]) -> InputError:
    """Return the refusal of a folder without any scan, with what there is instead."""
    counts = Counter(entry.reason for entry in ignored).most_common(3)
    there = "; ".join(f"{count} x {reason}" for reason, count in counts)
    return InputError(
        f"{folder} holds no CT ({there or 'it is empty'}); give NIfTI, NRRD or MetaImage files, "
        "DICOM series, archives of them, or folders that hold them at any depth",
        code="E_FORMAT",
    )
