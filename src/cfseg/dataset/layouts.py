"""The cohorts people have: which scans and label maps lie where. No image is opened here."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cfseg.dataset.label_names import label_map_from_names
from cfseg.dataset.manifest import NAME, Manifest, ManifestCase, read_manifest
from cfseg.errors import UsageError
from cfseg.labels import TUMOR

SUFFIXES = (".nii.gz", ".nii")
CHANNEL = "_0000"
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
        problem: why the case cannot be used, "" if nothing is known against it.
        code: of the problem.
    """

    name: str
    image: Path
    label: Path | None
    annotated: frozenset[int] | None = None
    absent: frozenset[int] = frozenset()
    label_map: Mapping[int, int] | None = field(default=None, hash=False)
    problem: str = ""
    code: str = ""


@dataclass(frozen=True)
class Cohort:
    """A cohort, listed.

    Attributes:
        root: its folder or manifest.
        layout: what kind of a cohort it is, in words.
        entries: its cases, in order of name.
        orphans: label maps without a scan.
    """

    root: Path
    layout: str
    entries: tuple[Entry, ...]
    orphans: tuple[Path, ...] = ()


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
    if root.is_file():
        cohort = Cohort(root, "manifest", tuple(_from_manifest(read_manifest(root), {})))
    elif root.is_dir():
        cohort = _list_folder(root)
    else:
        raise UsageError(f"there is no cohort {root}; {EXPECTED}")
    return replace(cohort, entries=tuple(_without_twins(cohort.entries)))


def _list_folder(root: Path) -> Cohort:
    manifest = read_manifest(root / NAME) if (root / NAME).exists() else None
    cohort = _described(root, None if manifest is None else manifest.label_map)
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
        yield _said(manifest, name, said, found.get(name))


def _said(manifest: Manifest, name: str, said: ManifestCase, before: Entry | None) -> Entry:
    folder = manifest.path.parent
    image = folder / said.image if said.image else before.image if before else None
    if image is None and name not in manifest.problems:
        problem = f"{manifest.path} names the case {name}, but there is no scan of it"
        return Entry(name, _usual_place(folder, name), None, problem=problem, code="E_MISSING")
    label = before.label if before and not said.is_unlabelled else None
    entry = Entry(
        name,
        image or _usual_place(folder, name),
        folder / said.label if said.label else label,
        None if said.annotated is None else frozenset(said.annotated),
        frozenset(said.absent),
        _first(said.label_map, manifest.label_map, before.label_map if before else None),
    )
    if before and before.problem:
        return before
    problem = manifest.problems.get(name, "")
    if not problem and (entry.annotated or entry.absent - {TUMOR.id}) and entry.label is None:
        problem = f"{name} is annotated by the manifest but has no file in labelsTr"
    return replace(entry, problem=problem, code="E_MANIFEST" if problem else "")


def _first(*label_maps: Mapping[int, int] | None) -> Mapping[int, int] | None:
    return next((m for m in label_maps if m is not None), None)


def _usual_place(folder: Path, name: str) -> Path:
    return folder / "imagesTr" / f"{name}{CHANNEL}{SUFFIXES[0]}"


def _described(root: Path, label_map: dict[int, int] | None) -> Cohort:
    """List a folder by its ``dataset.json`` if that says anything, else by its subfolders."""
    path = root / "dataset.json"
    about = _load(path) if path.exists() else {}
    labels = about.get("labels")
    if label_map is None and isinstance(labels, dict):
        label_map = label_map_from_names(labels, path)
    training = about.get("training")
    if isinstance(training, list) and training:
        return Cohort(root, "Decathlon", _listed_cases(root, path, about, label_map))
    _check_nnunet(about, path)
    if isinstance(about.get("dataset"), dict):
        pairs = {"training": [_explicit(path, n, v) for n, v in about["dataset"].items()]}
        return Cohort(root, "nnU-Net", _listed_cases(root, path, pairs, label_map))
    entries, orphans = _in_subfolders(root, label_map)
    return Cohort(root, "nnU-Net" if "file_ending" in about else "FLARE", entries, orphans)


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected an object, found a {type(found).__name__}")
    return found


def _check_nnunet(about: dict[str, Any], path: Path) -> None:
    ending = about.get("file_ending", SUFFIXES[0])
    if ending not in SUFFIXES:
        raise UsageError(f"{path}: the files end in {ending!r}; convert them to .nii.gz")
    channels = about.get("channel_names", {})
    if len(channels) > 1:
        raise UsageError(f"{path}: there are {len(channels)} channels per case; a CT has one")


def _explicit(path: Path, name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Turn an entry of nnU-Net's ``dataset`` into one like the Decathlon's."""
    try:
        return {"name": name, "image": value["images"][0], "label": value["label"]}
    except (KeyError, IndexError, TypeError) as error:
        raise UsageError(f"{path}: dataset.{name}: expected images and a label") from error


def _listed_cases(
    root: Path, path: Path, about: dict[str, Any], label_map: dict[int, int] | None
) -> tuple[Entry, ...]:
    """Return the cases that a ``dataset.json`` names one by one, the ``test`` list unlabelled."""
    entries = []
    for item in [*about["training"], *(about.get("test") or ())]:
        pair = item if isinstance(item, dict) else {"image": item}
        try:
            image, label = _existing(root / pair["image"]), pair.get("label")
            name = str(pair.get("name") or stem(image).removesuffix(CHANNEL))
            truth = None if label is None else root / label
        except (KeyError, TypeError) as error:
            raise UsageError(f"{path}: expected {{image, label}}, found {item!r}") from error
        entries.append(Entry(name, image, truth, label_map=None if truth is None else label_map))
    return tuple(entries)


def _existing(image: Path) -> Path:
    """Return the file as named or, as nnU-Net v1 leaves it out, with the channel's number."""
    with_channel = image.with_name(f"{stem(image)}{CHANNEL}{image.name[len(stem(image)) :]}")
    return with_channel if not image.exists() and with_channel.exists() else image


def _in_subfolders(
    root: Path, label_map: dict[int, int] | None
) -> tuple[tuple[Entry, ...], tuple[Path, ...]]:
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    labelled = [f for f in folders if f.name.startswith("imagesTr") or f.name == "images"]
    truths = [f for f in folders if f.name.startswith("labelsTr") or f.name == "labels"]
    labels = {stem(p): p for p in _scans(truths)}
    entries = []
    for image in _scans(labelled):
        name = stem(image).removesuffix(CHANNEL)
        # A case may itself be called x_0000; only then does its label map end so, as a rule.
        truth = labels.pop(name, None) or labels.pop(f"{name}{CHANNEL}", None)
        entries.append(Entry(name, image, truth, label_map=None if truth is None else label_map))
    without = [f for f in folders if f.name.lower().startswith("unlabel")]
    without += [sub for f in without for sub in sorted(f.glob("images*")) if sub.is_dir()]
    entries += [Entry(stem(p).removesuffix(CHANNEL), p, None) for p in _scans(without)]
    return tuple(entries), tuple(labels.values())


def _scans(folders: Iterable[Path]) -> list[Path]:
    files = (path for folder in folders for path in sorted(folder.iterdir()))
    return [p for p in files if p.name.endswith(SUFFIXES) and not p.name.startswith(".")]


def stem(path: Path) -> str:
    """Return the file's name without ``.nii`` or ``.nii.gz``."""
    suffix = next((s for s in SUFFIXES if path.name.endswith(s)), path.suffix)
    return path.name.removesuffix(suffix)


def _without_twins(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Yield the cases in order of name; a name that came before, whatever its case, is a problem.

    Outputs are called after the case, and some file systems do not tell ``a`` from ``A``.
    """
    seen: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        twin = seen.setdefault(entry.name.lower(), entry)
        if twin is entry or entry.problem:
            yield entry
        else:
            problem = f"{twin.image} and {entry.image} are both called {entry.name}; rename one"
            yield replace(entry, problem=problem, code="E_USAGE")
