"""``manifest.json``: which labels are annotated in each case, and, if need be, where it lies.

``{case: [annotated ids]}`` is the short form, ``[]`` an unlabelled case. The long form is an
object with any of ``image``, ``label`` (paths relative to the manifest), ``annotated``, ``absent``,
``label_map`` ({id in the file: FLARE id}, 0 leaves a label out) and ``ignore`` (the value in the
file of voxels that nobody annotated). ``absent`` are organs that were removed, and 14 where it is
known that there is no tumor. Both may stand in one file. A ``label_map`` or an ``ignore`` beside
the cases holds for all that have none of their own. All ids but the keys of a label map and
``ignore`` are FLARE's.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cfseg.dataset.folders import is_file_name
from cfseg.dataset.json_object import read_object
from cfseg.dataset.label_names import IDENTITY
from cfseg.errors import UsageError
from cfseg.foreign import problem
from cfseg.io import write_json
from cfseg.labels import ORGAN_IDS, TUMOR

if TYPE_CHECKING:
    from cfseg.dataset.cases import Case

NAME = "manifest.json"
DEFAULT_KEY = "label_map"
IGNORE_KEY = "ignore"
_IDS = frozenset((*ORGAN_IDS, TUMOR.id))
_LABEL_MAP = TypeAdapter(dict[int, int])


class ManifestCase(BaseModel):
    """What a manifest says of one case; None where it says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Path | None = None
    label: Path | None = None
    annotated: tuple[int, ...] | None = None
    absent: tuple[int, ...] = ()
    label_map: dict[int, int] | None = None
    ignore: int | None = None

    @property
    def is_unlabelled(self) -> bool:
        """Whether it says outright that there is no label map."""
        return "label" in self.model_fields_set and self.label is None


@dataclass(frozen=True)
class Manifest:
    """A manifest, read.

    Attributes:
        path: of the file.
        cases: what it says, by case.
        label_map: for the cases that have none of their own.
        ignore: for the cases that have none of their own.
        problems: why what it says of a case cannot be used, by case.
    """

    path: Path
    cases: dict[str, ManifestCase]
    label_map: dict[int, int] | None = None
    ignore: int | None = None
    problems: dict[str, str] = field(default_factory=dict)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; what is wrong with single cases is kept as their problem.

    Raises:
        UsageError: the file as a whole is not a manifest.
    """
    found = read_object(path, "{case: [annotated label ids]}")
    default = _default_label_map(path, found.pop(DEFAULT_KEY, None))
    # A case may be called so too; what is said of a case is never a number.
    ignore = found.pop(IGNORE_KEY) if type(found.get(IGNORE_KEY)) is int else None
    cases, problems = {}, {}
    for name, value in found.items():
        cases[name], wrong = _case(name, value)
        if wrong:
            problems[name] = f"{path}: {name[:60]} {wrong}"
    return Manifest(path, cases, default, ignore, problems)


def write_manifest(path: Path, cases: Iterable["Case"], planned: Collection[str] = ()) -> None:
    """Write a manifest in the long form; paths are relative to it.

    Args:
        path: of the file.
        cases: to be named.
        planned: those among them whose files are not there yet, by name; no paths are written.

    Raises:
        ResourceError: the disk refuses.
    """
    folder = path.parent.resolve()
    said = {
        case.name: _labels(case) if case.name in planned else _files(case, folder) | _labels(case)
        for case in cases
    }
    write_json(path, said)


def check_label_map(label_map: Mapping[int, int]) -> str:
    """Return what is wrong with a label map, "" if nothing is."""
    if any(not 0 <= source <= 255 for source in label_map):
        return "has a label_map whose keys are not 0..255"
    if label_map.get(0, 0) != 0:
        return "has a label_map that gives the background 0 a label"
    if not {*label_map.values()} <= {0, *_IDS}:
        return "has a label_map to ids other than 0..14"
    return ""


def check_ignore(ignore: int | None, label_map: Mapping[int, int] | None) -> str:
    """Return what is wrong with the value of voxels to be ignored, "" if nothing is."""
    if ignore is None:
        return ""
    if not 1 <= ignore <= 255:
        return f"ignores {ignore}; give a value from 1 to 255"
    if ignore in (IDENTITY if label_map is None else label_map):
        return f"ignores {ignore}, which is also a label; give another value"
    return ""


def _default_label_map(path: Path, value: object) -> dict[int, int] | None:
    if value is None:
        return None
    try:
        label_map = _LABEL_MAP.validate_python(value)
    except ValidationError as error:
        raise UsageError(
            f"{path}: label_map: expected {{id in the files: FLARE id}}: {problem(error)}"
        ) from error
    if wrong := check_label_map(label_map):
        raise UsageError(f"{path} {wrong}")
    return label_map


def _case(name: str, value: object) -> tuple[ManifestCase, str]:
    """Return what is said of a case and what is wrong with it."""
    try:
        case = ManifestCase.model_validate(
            value if isinstance(value, dict) else {"annotated": value}
        )
    except ValidationError as error:
        return ManifestCase(), f"cannot be used: {problem(error)}"
    if not is_file_name(name) or {*name} & {*':*?"<>|'}:
        return case, "cannot be the name of a file"
    if not _IDS.issuperset(case.annotated or ()):
        return case, "has ids other than 1..14"
    if not _IDS.issuperset(case.absent):
        return case, "names as absent ids other than 1..14"
    return case, check_label_map(case.label_map or {})


def _files(case: "Case", folder: Path) -> dict[str, Any]:
    return {
        "image": _relative(case.image, folder),
        "label": None if case.label is None else _relative(case.label, folder),
    }


def _labels(case: "Case") -> dict[str, Any]:
    record: dict[str, Any] = {"annotated": sorted(case.annotated)}
    if case.absent:
        record["absent"] = sorted(case.absent)
    if case.label_map is not None:
        record["label_map"] = {str(k): v for k, v in case.label_map.items()}
    if case.ignore is not None:
        record["ignore"] = case.ignore
    return record


def _relative(path: Path, folder: Path) -> str:
    # The cohort may lie beside the manifest rather than below it; Path.relative_to cannot go up.
    real = os.path.realpath(path)  # Path.resolve raises where a link leads to itself
    try:
        return Path(os.path.relpath(real, folder)).as_posix()
    except ValueError:  # another drive
        return Path(real).as_posix()
