"""The cohorts people have: which scans and label maps lie where. No image is opened here."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from cfseg.dataset.folders import Folders, by_case, channels, is_file_name, with_suffix
from cfseg.dataset.json_object import read_object
from cfseg.dataset.label_names import ignore_from_names, label_map_from_names
from cfseg.dataset.manifest import NAME, Manifest, ManifestCase, check_ignore, read_manifest
from cfseg.dataset.problems import Problem
from cfseg.errors import UsageError
from cfseg.foreign import brief
from cfseg.io import CHANNEL, stem
from cfseg.labels import TUMOR

_T = TypeVar("_T")
SUFFIXES = (".nii.gz", ".nii")
EXPECTED = (
    "expected imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz, a dataset.json of nnU-Net or of "
    "the Medical Segmentation Decathlon, or a manifest.json that names the scans"
)


@dataclass(frozen=True)
class Entry:
    """A case as a folder or a manifest tells of it, before any image is opened.

    Attributes:
        name: of the case.
        image: its scan.
        label: its label map, None if it has none.
        annotated: FLARE ids; None: those that are present in the label map.
        absent: labels known not to be there.
        label_map: {id in the label map: FLARE id}; None: its ids are FLARE's.
        ignore: value in the label map of voxels that nobody annotated, None if it has none.
        problem: why the case cannot be used, "" if nothing is known against it.
        code: of the problem.
    """

    name: str
    image: Path
    label: Path | None
    annotated: frozenset[int] | None = None
    absent: frozenset[int] = frozenset()
    label_map: Mapping[int, int] | None = field(default=None, hash=False)
    ignore: int | None = None
    problem: str = ""
    code: str = ""

    @property
    def is_planned(self) -> bool:
        """Whether it is said what is annotated, and nothing is wrong but that files are missing."""
        return self.code == "E_MISSING" and self.annotated is not None


@dataclass(frozen=True)
class Cohort:
    """A cohort, listed.

    Attributes:
        root: its folder or manifest.
        layout: what kind of a cohort it is, in words.
        entries: its cases, in order of name.
        orphans: label maps without a scan.
        problems: folders that cannot be read; whatever cases are in them are not among ``entries``.
    """

    root: Path
    layout: str
    entries: tuple[Entry, ...]
    orphans: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()


def list_cohort(root: Path) -> Cohort:
    """List the cases of a cohort.

    Args:
        root: a folder (FLARE-like with ``imagesTr*``, ``labelsTr*`` and ``unlabel*``; nnU-Net's
            raw layout; the Decathlon's), with or without a ``manifest.json``; or a manifest, which
            then alone says which cases there are.

    Raises:
        UsageError: no such folder, a description that cannot be read, or label names that are not
            FLARE's.
    """
    root = Path(root)
    if os.path.isdir(root):  # noqa: PTH112 - Path's raises where a folder above cannot be read
        cohort = _list_folder(root)
    elif os.path.isfile(root):  # noqa: PTH113
        cohort = Cohort(root, "manifest", tuple(_from_manifest(_manifest_of(root), {})))
    else:
        raise UsageError(f"there is no cohort {root}; {EXPECTED}")
    return replace(cohort, entries=tuple(_without_twins(cohort.entries)))


def _manifest_of(root: Path) -> Manifest:
    try:
        return read_manifest(root)
    except UsageError as error:
        if root.suffix.lower() == ".json":
            raise
        raise UsageError(f"{root} is a file but no manifest; {EXPECTED}") from error


@dataclass(frozen=True)
class _Meaning:
    """What the values in label maps mean, unless more is said of a case."""

    label_map: Mapping[int, int] | None = None
    ignore: int | None = None

    def entry(self, name: str, image: Path, label: Path | None) -> Entry:
        if label is None:
            return Entry(name, image, None)
        return Entry(name, image, label, label_map=self.label_map, ignore=self.ignore)


def _list_folder(root: Path) -> Cohort:
    path = root / NAME
    manifest = read_manifest(path) if os.path.lexists(path) else None
    cohort = _described(root, manifest)
    if manifest is None:
        return cohort
    found = {entry.name: entry for entry in _without_twins(cohort.entries)}
    entries = [*_from_manifest(manifest, found)]
    for name in found.keys() - manifest.cases.keys():
        problem = f"{manifest.path} does not name the case {name}"
        entries.append(replace(found[name], problem=problem, code="E_MANIFEST"))
    return replace(cohort, layout=f"{cohort.layout} with a manifest", entries=tuple(entries))


def _from_manifest(manifest: Manifest, found: Mapping[str, Entry]) -> Iterable[Entry]:
    """Yield the manifest's cases; scans that it does not name are the ones found in its folder."""
    for name, said in manifest.cases.items():
        before = found.get(name)
        yield before if before and before.problem else _said(manifest, name, said, before)


def _said(manifest: Manifest, name: str, said: ManifestCase, before: Entry | None) -> Entry:
    folder = manifest.path.parent
    image = folder / said.image if said.image else before.image if before else None
    label = before.label if before and not said.is_unlabelled else None
    entry = Entry(
        name,
        image or folder / "imagesTr" / f"{name}{CHANNEL}{SUFFIXES[0]}",
        folder / said.label if said.label else label,
        None if said.annotated is None else frozenset(said.annotated),
        frozenset(said.absent),
        _first(said.label_map, manifest.label_map, before.label_map if before else None),
    )
    inherited = _unless_mapped(before.ignore if before else None, entry.label_map)
    entry = replace(entry, ignore=_first(said.ignore, manifest.ignore, inherited))
    problem = manifest.problems.get(name, "")
    if not problem and (wrong := check_ignore(entry.ignore, entry.label_map)):
        problem = f"{manifest.path}: {name} {wrong}"
    if problem:
        return replace(entry, problem=problem, code="E_MANIFEST")
    if image is None:
        problem = f"{manifest.path} names the case {name}, but there is no scan of it"
        return replace(entry, problem=problem, code="E_MISSING")
    if (entry.annotated or entry.absent - {TUMOR.id}) and entry.label is None:
        problem = f"{name} is annotated by the manifest but has no file in labelsTr"
        code = "E_MANIFEST" if said.is_unlabelled else "E_MISSING"
        return replace(entry, problem=problem, code=code)
    return entry


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)


def _described(root: Path, manifest: Manifest | None) -> Cohort:
    """List a folder by its ``dataset.json`` if that says anything, else by its subfolders."""
    path = root / "dataset.json"
    about = read_object(path) if os.path.lexists(path) else {}
    meaning = _meaning(about, path, manifest)
    training = about.get("training")
    if isinstance(training, list) and training:
        return Cohort(root, "Decathlon", tuple(_listed_cases(root, path, about, meaning)))
    _check_nnunet(about, path)
    if isinstance(about.get("dataset"), dict):
        pairs = {"training": [_explicit(path, n, v) for n, v in about["dataset"].items()]}
        return Cohort(root, "nnU-Net", tuple(_listed_cases(root, path, pairs, meaning)))
    layout = "nnU-Net" if "file_ending" in about else "FLARE"
    return _in_subfolders(root, layout, meaning, () if manifest is None else manifest.cases)


def _meaning(about: dict[str, Any], path: Path, manifest: Manifest | None) -> _Meaning:
    """Return what label values mean; what a manifest says goes before a ``dataset.json``."""
    said = _Meaning() if manifest is None else _Meaning(manifest.label_map, manifest.ignore)
    labels = about.get("labels")
    if not isinstance(labels, dict):
        return said
    ignore = _unless_mapped(ignore_from_names(labels, path), said.label_map)
    named = said.label_map or label_map_from_names(labels, path)
    return _Meaning(named, _first(said.ignore, ignore))


def _unless_mapped(ignore: int | None, label_map: Mapping[int, int] | None) -> int | None:
    """Return a value to be ignored, None if a label map gives it another meaning."""
    return None if ignore in (label_map or ()) else ignore


def _check_nnunet(about: dict[str, Any], path: Path) -> None:
    ending = about.get("file_ending", SUFFIXES[0])
    if ending not in SUFFIXES:
        raise UsageError(f"{path}: the files end in {brief(ending)}; convert them to .nii.gz")
    channel_names = about.get("channel_names", {})
    if not isinstance(channel_names, dict | list):
        raise UsageError(f"{path}: channel_names: expected an object, found {brief(channel_names)}")
    if len(channel_names) > 1:
        raise UsageError(f"{path}: there are {len(channel_names)} channels per case; a CT has one")


def _explicit(path: Path, name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Turn an entry of nnU-Net's ``dataset`` into one like the Decathlon's."""
    try:
        return {"name": name, "image": value["images"][0], "label": value["label"]}
    except (KeyError, IndexError, TypeError) as error:
        raise UsageError(f"{path}: dataset.{name[:60]}: expected images and a label") from error


def _listed_cases(
    root: Path, path: Path, about: dict[str, Any], meaning: _Meaning
) -> Iterator[Entry]:
    """Yield the cases that a ``dataset.json`` names one by one, the ``test`` list unlabelled."""
    test = about.get("test") or []
    if not isinstance(test, list):
        raise UsageError(f"{path}: test: expected a list, found {brief(test)}")
    for item in [*about["training"], *test]:
        pair = item if isinstance(item, dict) else {"image": item}
        try:
            image, label = _existing(root / pair["image"]), pair.get("label")
            name = str(pair.get("name") or stem(image).removesuffix(CHANNEL))
            truth = None if label is None else root / label
        except (KeyError, TypeError) as error:
            raise UsageError(f"{path}: expected {{image, label}}, found {brief(item)}") from error
        yield meaning.entry(name, image, truth)


def _existing(image: Path) -> Path:
    """Return the file as named or, as nnU-Net v1 leaves it out, with the channel's number."""
    with_channel = with_suffix(image, f"{stem(image)}{CHANNEL}")
    there = os.path.lexists(image) or not os.path.lexists(with_channel)
    return image if there else with_channel


def _in_subfolders(root: Path, layout: str, meaning: _Meaning, named: Collection[str]) -> Cohort:
    """List FLARE's and nnU-Net's folders.

    Args:
        root: of the cohort.
        layout: its name.
        meaning: of the values in its label maps.
        named: cases that a manifest names.
    """
    folders = Folders.of(root)
    labels: dict[str, list[Path]] = {}
    for path in folders.labels:
        labels.setdefault(stem(path), []).append(path)
    entries: list[Entry] = []
    for name, scans in by_case(folders.scans, named, {*labels}).items():
        # A case may itself be called x_0000; only then does its label map end so, as a rule.
        truth = labels.pop(name, None) or labels.pop(f"{name}{CHANNEL}", [])
        entries += _with_truth(name, scans, truth, folders, meaning)
    for name, scans in by_case(folders.unlabelled, named).items():
        entries += _channels_refused(name, scans) or [Entry(name, path, None) for path in scans]
    unread = [
        Problem(path.name, path, "E_READ", f"the folder {path} cannot be read: {reason}")
        for path, reason in folders.unread.items()
    ]
    orphans = tuple(path for paths in labels.values() for path in paths)
    return Cohort(root, layout, tuple(entries), orphans, tuple(unread))


def _with_truth(
    name: str, scans: list[Path], truth: list[Path], folders: Folders, meaning: _Meaning
) -> list[Entry]:
    """Return the entry of a case, or several if it has several scans."""
    if refused := _channels_refused(name, scans):
        return refused
    problem, code = "", ""
    if len(truth) > 1:
        listed = " and ".join(map(str, truth))
        problem, code = f"{listed} are label maps of one case; remove or rename one", "E_USAGE"
    elif not truth and folders.labels_unread:
        unread = folders.labels_unread[0]
        problem, code = f"{name} may have a label map in {unread}, which cannot be read", "E_READ"
    label = truth[0] if truth else None
    return [replace(meaning.entry(name, path, label), problem=problem, code=code) for path in scans]


def _channels_refused(name: str, scans: list[Path]) -> list[Entry]:
    problem = channels(name, scans)
    return [Entry(name, scans[0], None, problem=problem, code="E_CHANNELS")] if problem else []


def _without_twins(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Yield the cases in order of name; one that came before, whatever its case, is a problem.

    So is one that is no name of a file, or has files that none can be called like. Outputs are
    called after the case, and some file systems do not tell ``a`` from ``A``.
    """
    seen: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        twin = seen.setdefault(entry.name.lower(), entry)
        if entry.problem:
            yield entry
        elif not is_file_name(entry.name):
            image, name = brief(str(entry.image)), brief(entry.name)
            problem = f"{image}: outputs cannot be called after the case {name}"
            yield replace(entry, problem=f"{problem}; give it another name", code="E_USAGE")
        elif "\0" in f"{entry.image}{entry.label}":
            problem = f"{entry.name} has files with a NUL in their names, which no file has"
            yield replace(entry, problem=problem, code="E_USAGE")
        elif twin is entry:
            yield entry
        else:
            problem = f"{twin.image} and {entry.image} are both called {entry.name}; rename one"
            yield replace(entry, problem=problem, code="E_USAGE")
