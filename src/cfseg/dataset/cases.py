"""A FLARE-like cohort: which scans there are, and which labels are annotated in each.

Annotated is not the same as present: a case may lack a gallbladder although all organs are
annotated. The manifest says which labels are annotated; without one, those that are present are.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cfseg.errors import UsageError
from cfseg.io import read_label_map
from cfseg.labels import ORGAN_IDS, TUMOR

SUFFIXES = (".nii.gz", ".nii")
PHANTOM_NOTICE = (
    "This model was trained on synthetic scans. It shows how the software works and is not for "
    "clinical use; its masks of real scans mean nothing."
)


@dataclass(frozen=True)
class Case:
    """One CT of a cohort.

    Attributes:
        name: of the case.
        image: its scan.
        label: its label map, None if it has none.
        annotated: FLARE ids that are annotated.
    """

    name: str
    image: Path
    label: Path | None
    annotated: frozenset[int]

    @property
    def has_all_organs(self) -> bool:
        """Whether all 13 organs are annotated."""
        return self.annotated.issuperset(ORGAN_IDS)

    @property
    def has_tumor(self) -> bool:
        """Whether tumors are annotated (the paper's group 4)."""
        return TUMOR.id in self.annotated


@dataclass(frozen=True)
class Groups:
    """The paper's groups (2.1, Fig. 1) that partition a cohort; 2 and 3 are unions of them.

    Attributes:
        unlabelled: group 1.
        tumor: group 4.
        partial: group 5, some organs, no tumor.
        full: group 6, all organs, no tumor.
    """

    unlabelled: tuple[Case, ...]
    tumor: tuple[Case, ...]
    partial: tuple[Case, ...]
    full: tuple[Case, ...]


def group(cases: Iterable[Case]) -> Groups:
    """Sort cases into the paper's groups 1, 4, 5 and 6."""
    cases = tuple(cases)
    return Groups(
        unlabelled=tuple(c for c in cases if not c.annotated),
        tumor=tuple(c for c in cases if c.has_tumor),
        partial=tuple(c for c in cases if c.annotated and not c.has_tumor and not c.has_all_organs),
        full=tuple(c for c in cases if c.has_all_organs and not c.has_tumor),
    )


def read_cases(folder: Path) -> tuple[Case, ...]:
    """List the cases of a data set in nnU-Net's raw layout, in order of name.

    ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz`` where there is one, and, if there is
    one, ``manifest.json`` with ``{case: [annotated label ids]}``.

    Raises:
        UsageError: no images, or a manifest that does not fit them.
        InputError: a label map cannot be read (only where the manifest is missing).
    """
    images = sorted(p for p in (folder / "imagesTr").glob("*") if p.name.endswith(SUFFIXES))
    if not images:
        raise UsageError(f"{folder}: no scans in imagesTr; expected imagesTr/CASE_0000.nii.gz")
    manifest = _manifest(folder)
    cases = []
    for image in images:
        name = _stem(image).removesuffix("_0000")
        label = next(
            (p for s in SUFFIXES if (p := folder / "labelsTr" / f"{name}{s}").exists()), None
        )
        annotated = _annotated(folder, name, label, manifest)
        cases.append(Case(name, image, label, annotated))
    return tuple(cases)


def phantom_notice(folder: Path) -> str:
    """Return what a model trained on this cohort must say, "" unless it is made of phantoms."""
    return PHANTOM_NOTICE if (folder / "cohort.json").exists() else ""


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(s) for s in SUFFIXES if path.name.endswith(s))


def _manifest(folder: Path) -> dict[str, list[int]] | None:
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): [int(i) for i in v] for k, v in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: expected {{case: [annotated label ids]}}, found {error}"
        ) from error


def _annotated(
    folder: Path, name: str, label: Path | None, manifest: dict[str, list[int]] | None
) -> frozenset[int]:
    if manifest is None:
        if label is None:
            return frozenset()
        return frozenset(int(i) for i in np.unique(read_label_map(label)[0].ids) if i)
    if name not in manifest:
        raise UsageError(f"{folder / 'manifest.json'} does not name the case {name}")
    annotated = frozenset(manifest[name])
    if not annotated <= {*ORGAN_IDS, TUMOR.id}:
        raise UsageError(f"{folder / 'manifest.json'}: {name} has ids other than 1..14")
    if annotated and label is None:
        raise UsageError(f"{name} is annotated by the manifest but has no file in labelsTr")
    return annotated
