"""Which scans lie in files and folders at any depth: each one is found, or refused, or counted.

Nothing that is met here stops the rest: an entry that cannot be looked at becomes a refused input.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cfseg.errors import CfsegError, InputError, UsageError
from cfseg.io.archives import is_archive_name, unpack
from cfseg.io.found import Ignored, Input, Listing, nothing_in
from cfseg.io.label_like import is_label_map
from cfseg.io.names import has_dicom_head, has_nifti_head, is_scan_name
from cfseg.io.options import AS_IS, ReadingOptions
from cfseg.tables import listed

if TYPE_CHECKING:
    from cfseg.io.dicom_index import Broken, IndexEntry

OnLook = Callable[[int], None]
"""Called with the number of files that were looked at so far."""


def list_inputs(
    paths: Sequence[Path],
    options: ReadingOptions = AS_IS,
    *,
    skip: Path | None = None,
    on_look: OnLook | None = None,
) -> Listing:
    """Return the scans among paths.

    A path is a scan, an archive of scans, or a folder that holds them at any depth. Each gives one
    input at least: a folder without a scan is refused, as is a file that is none.

    Args:
        paths: of files and folders.
        options: which series of a study is wanted, and whether another modality is read.
        skip: the folder of outputs, which is not looked at.
        on_look: see :data:`OnLook`.

    Raises:
        UsageError: no path exists.
    """
    paths = [Path(path) for path in paths]
    missing = [path for path in paths if not os.path.lexists(path)]
    if paths and len(missing) == len(paths):
        raise UsageError(f"there is no {listed(list(map(str, missing)))}; check the paths")
    search = _Search(options, None if skip is None else skip.absolute(), on_look)
    inputs: dict[tuple[str, str, int], Input] = {}
    for found in search.all_named(paths):
        place, series, acquisition = found.identity
        same = inputs.setdefault((os.path.realpath(place), series, acquisition), found)
        if same.identity != found.identity:
            search.ignored.append(Ignored(found.shown, "the same scan by another path"))
    return Listing(tuple(inputs.values()), tuple(search.ignored))


def the_input(path: Path, options: ReadingOptions = AS_IS) -> Input:
    """Return the one scan of a file or folder.

    Raises:
        InputError: there is none, or more than one (``E_MULTI_SERIES``).
    """
    if path.is_file() and not (is_archive_name(path) or has_dicom_head(path)):
        return Input(path)
    listing = list_inputs([path], options) if os.path.lexists(path) else Listing((Input(path),))
    if len(listing.inputs) > 1:
        there = listed([one.shown.name for one in listing.inputs])
        raise InputError(
            f"{path} holds {len(listing.inputs)} scans ({there}); give one of them",
            code="E_MULTI_SERIES",
        )
    return listing.inputs[0]


@dataclass
class _Search:
    """A walk through files and folders."""

    options: ReadingOptions
    skip: Path | None
    on_look: OnLook | None
    ignored: list[Ignored] = field(default_factory=list)
    looked: int = 0
    is_packed: bool = False
    """Whether an archive is being looked into; one inside of it may hold itself, without end."""

    def all_named(self, paths: Sequence[Path]) -> list[Input]:
        """Return the scans of all paths that somebody named; DICOM files count together."""
        files = [path for path in paths if _is_file(path) and has_dicom_head(path)]
        together = set(files) if len(files) > 1 else set()
        found = self._dicom_files(files) if together else []
        for path in paths:
            if path not in together:
                found += self.named(path)
        return found

    def named(self, path: Path) -> list[Input]:
        """Return the scans of a path that somebody named."""
        if os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
            return self._below(path)
        if is_archive_name(path) and _is_file(path):
            return self._in_archive(path, named=True)
        return self._dicom_files([path]) if has_dicom_head(path) else [Input(path)]

    def _dicom_files(self, files: list[Path]) -> list[Input]:
        """Return the scans of DICOM files that somebody named; each file is part of one."""
        try:
            images, broken = self._look_at(files)
        except UsageError as error:  # the extra is missing
            return [Input.refused(path, error) for path in files]
        found = self._sorted([it for it in images if not it.kind], [])
        alone = [it.files[0] for it in found if len(it.files) == 1 and not _is_volume(it, images)]
        lost = [*alone, *(it.path for it in images if it.kind), *(it.path for it in broken)]
        # Of those that are no volume, reading says what is wrong.
        volumes = [it for it in found if it.files[0] not in alone]
        return [*map(_as_file, volumes), *map(Input, lost)]

    def _below(self, root: Path) -> list[Input]:
        """Return the scans below a folder: files in order, then DICOM series."""
        inputs: list[Input] = []
        images: list[IndexEntry] = []
        broken: list[Broken] = []
        before = len(self.ignored)
        for folder, files in self._folders(root, inputs):
            others = []
            for path in files:
                self._count()
                if path.name.upper() == "DICOMDIR":
                    self.ignored.append(Ignored(path, "DICOMDIR", "files_skipped"))
                elif is_scan_name(path):
                    inputs += self._image_file(path, is_top=folder == root)
                elif is_archive_name(path) and self.is_packed:
                    self.ignored.append(Ignored(path, "archive inside of an archive"))
                elif is_archive_name(path) and _is_file(path):
                    inputs += self._in_archive(path, named=False)
                else:
                    others.append(path)
            found = {path for path in others if has_dicom_head(path)}
            try:
                here, lost = self._look_at([path for path in others if path in found])
            except UsageError as error:  # the extra is missing
                inputs.append(Input.refused(folder, error))
                here, lost = [], []
            images += here
            rest = []
            for path in others:
                if path in found:
                    continue
                if has_nifti_head(path):  # asked last: it reads more of a file
                    inputs += self._image_file(path, is_top=folder == root)
                else:
                    rest.append(path)
            broken += lost + self._strays(rest, [it.path for it in here])
        inputs += self._sorted(images, broken)
        if not inputs:
            return [Input.refused(root, nothing_in(root, self.ignored[before:]))]
        return inputs

    def _count(self) -> None:
        self.looked += 1
        if self.on_look is not None:
            self.on_look(self.looked)

    def _folders(self, root: Path, inputs: list[Input]) -> Iterator[tuple[Path, list[Path]]]:
        """Yield each folder and its files, in order; one that cannot be read is refused."""
        seen: set[tuple[int, int]] = set()
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                info = folder.stat()
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                inputs.append(Input.refused(folder, _unreadable(folder, error)))
                continue
            if (info.st_dev, info.st_ino) in seen:
                self.ignored.append(Ignored(folder, "link to a folder seen already"))
                continue
            seen.add((info.st_dev, info.st_ino))
            shown = [folder / entry.name for entry in entries if not entry.name.startswith(".")]
            if folder != root and self._is_of_results(folder):
                continue
            below = {path: os.path.isdir(path) for path in shown}  # noqa: PTH112 - as in named
            waiting += reversed([path for path, is_folder in below.items() if is_folder])
            yield folder, [path for path, is_folder in below.items() if not is_folder]

    def _is_of_results(self, folder: Path) -> bool:
        if self.skip is not None and folder.absolute() == self.skip:
            self.ignored.append(Ignored(folder, "the output folder"))
            return True
        # An export may well have a folder called status: that alone says nothing.
        marks = (folder / ".inputs", folder / "status")
        hidden, status = map(os.path.isdir, marks)
        if hidden or (status and any(folder.glob("summary*.json"))):
            self.ignored.append(Ignored(folder, "results of cfseg"))
            return True
        return False

    def _image_file(self, path: Path, *, is_top: bool) -> list[Input]:
        if not is_top and is_label_map(path):
            self.ignored.append(Ignored(path, "label map"))
            return []
        return [Input(path)]

    def _in_archive(self, path: Path, *, named: bool) -> list[Input]:
        """Return the scans of an archive; one without any counts only if somebody named it."""
        before = len(self.ignored)
        try:
            unpacked = unpack(path)
        except CfsegError as error:
            return [Input.refused(path, error)]
        folder, self.is_packed = unpacked.folder, True
        try:
            found = self._below(folder)
        finally:
            self.is_packed = False
        inside = [it for it in found if it.path != folder or it.files]
        self.ignored[before:] = [
            Ignored(path / it.path.relative_to(folder), it.reason) for it in self.ignored[before:]
        ]
        if inside:
            return [it.from_archive(path, unpacked) for it in found]
        if named:
            return [Input.refused(path, nothing_in(path, self.ignored[before:]))]
        self.ignored[before:] = [Ignored(path, "archive without a scan")]
        return []

    def _look_at(self, files: list[Path]) -> tuple["list[IndexEntry]", "list[Broken]"]:
        if not files:
            return [], []
        from cfseg.io.dicom_index import Broken, look

        images, broken = [], []
        for path in files:
            try:
                images.append(look(path))
            except InputError as error:
                broken.append(Broken(path, error.message.removeprefix(f"{path} is damaged: ")))
        return images, broken

    def _strays(self, files: list[Path], dicom: list[Path]) -> "list[Broken]":
        """Return the files that should be DICOM as those beside them are; ignore the others."""
        if not dicom:
            self.ignored += [Ignored(path, _kind(path)) for path in files]
            return []
        from cfseg.io.dicom_index import Broken, name_shape, should_be_dicom

        shapes = {name_shape(path) for path in dicom}
        broken = []
        for path in files:
            if should_be_dicom(path, shapes):
                broken.append(Broken(path, f"it is not DICOM ({_kind(path)})"))
            else:
                self.ignored.append(Ignored(path, _kind(path), "files_skipped"))
        return broken

    def _sorted(self, images: "list[IndexEntry]", broken: "list[Broken]") -> list[Input]:
        if not images and not broken:
            return []
        from cfseg.io.dicom_index import inputs_of

        found, ignored = inputs_of(images, broken, self.ignored, self.options)
        self.ignored += ignored
        return found


def _is_volume(found: Input, images: "Sequence[IndexEntry]") -> bool:
    return any(it.path == found.files[0] and it.frames > 1 for it in images)


def _as_file(found: Input) -> Input:
    """Return a volume of one file under the name of the file, which somebody named."""
    if len(found.files) > 1:
        return found
    return replace(found, path=found.files[0], shown=found.files[0], suffix="")


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path's raises where it may not look


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be looked into: {error.strerror}; give yourself the right to read it, or "
        "leave it out",
        code="E_READ",
    )


def _kind(path: Path) -> str:
    """Return in a few words what a file is that is no scan."""
    try:
        info = path.stat()
    except OSError as error:
        return "link that leads nowhere" if path.is_symlink() else f"unreadable: {error.strerror}"
    if not stat.S_ISREG(info.st_mode):
        return "no regular file"
    if not info.st_size:
        return "empty file"
    return next((kind for ends, kind in _KINDS if path.name.lower().endswith(ends)), "other file")


_KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".hdr", ".img"), "Analyze or a NIfTI pair: convert it to .nii.gz"),
    ((".rar", ".7z", ".bz2", ".xz", ".zst", ".gz"), "compressed in a way that is not unpacked"),
    ((".mgz", ".mgh", ".mnc"), "image of a format that is not read"),
)
"""Endings of what may well be a scan, and why it is none here."""
