"""Atlases: real anatomy without a scan, as files that any viewer opens.

An atlas is a map of tissue classes, NAME.nii.gz, beside NAME.json, which says where it comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, distance_transform_edt

from cfseg import foreign
from cfseg.errors import InputError, UsageError
from cfseg.geometry import Box, Geometry, TripleMm
from cfseg.io import (
    AS_IS,
    SourceGrid,
    files_in,
    read_label_map,
    stem,
    write_json,
    write_label_map,
)
from cfseg.labels import IGNORE, NAMES, ORGAN_IDS
from cfseg.phantoms import tissues as t
from cfseg.phantoms.class_names import AMBIGUOUS, UNKNOWN
from cfseg.situs import misplaced
from cfseg.volume import LabelMap

Ids = npt.NDArray[np.uint8]
NEIGHBORS = ((12, 4), (10, 11), (9, 1), (7, 2), (8, 13))
"""Organs that touch or nearly do: duodenum and pancreas, esophagus and stomach, and so on."""
APART_MM = 15.0
"""Between neighbors; more is worth a word, in people it exists."""
OUTSIDE = (t.AIR, t.TABLE)
TISSUES = frozenset(
    {*ORGAN_IDS, UNKNOWN}
    | {value for name, value in vars(t).items() if name.isupper() and isinstance(value, int)}
)


@dataclass(frozen=True)
class Atlas:
    """A real anatomy without a scan, axes (z up, y back, x left).

    Attributes:
        name: of its files.
        tissue: (Z, Y, X) uint8, organs 1..13, classes of :mod:`cfseg.phantoms.tissues`, or
            :data:`UNKNOWN`.
        labels: (Z, Y, X) uint8, FLARE ids 0..13, and :data:`cfseg.labels.IGNORE` where nobody
            knows whether an organ is there; see :func:`labels_of`.
        spacing_mm: of the grid, (z, y, x).
        source: attribution in one line.
    """

    name: str
    tissue: Ids
    labels: Ids
    spacing_mm: TripleMm
    source: str

    @classmethod
    def of(cls, name: str, tissue: Ids, spacing_mm: TripleMm, source: str) -> "Atlas":
        """Return the atlas with these tissues; its labels follow from them."""
        return cls(name, tissue, labels_of(tissue), spacing_mm, source)

    @property
    def label_map(self) -> LabelMap:
        """The labels on their grid."""
        shape = self.tissue.shape
        grid = Geometry.from_spacing((shape[0], shape[1], shape[2]), self.spacing_mm)
        return LabelMap(self.labels, grid)

    @property
    def organs(self) -> tuple[int, ...]:
        """Ids of the organs that it has."""
        return tuple(organ for organ in ORGAN_IDS if (self.tissue == organ).any())


def labels_of(tissue: Ids) -> Ids:
    """Return the labels of a map of tissues.

    An organ keeps its id, what is known to be something else is background. A voxel of which nobody
    knows is background too where all organs are in the map, for then it is none of them, else
    ignored.

    Args:
        tissue: (Z, Y, X).
    """
    is_organ = (tissue >= 1) & (tissue <= len(ORGAN_IDS))
    labels = np.where(is_organ, tissue, 0).astype(np.uint8)
    if len(np.unique(tissue[is_organ])) < len(ORGAN_IDS):
        labels[np.isin(tissue, (UNKNOWN, AMBIGUOUS))] = IGNORE
    return labels


@dataclass(frozen=True)
class Findings:
    """What an atlas holds, as a table shows it.

    Attributes:
        volumes_ml: of the organs that are there, by name.
        gaps_mm: shortest distance between the organs of :data:`NEIGHBORS`, by their names.
        misplaced: organs on the wrong side of others, in words.
        outside_share: part of the surface of its organs that touches air or the table.
        unknown_share: part of the voxels of which nobody knows the tissue.
    """

    volumes_ml: dict[str, float]
    gaps_mm: dict[str, float]
    misplaced: tuple[str, ...]
    outside_share: float
    unknown_share: float

    @property
    def line(self) -> str:
        """The findings on one line."""
        total = sum(self.volumes_ml.values())
        apart = [
            f"{names} {mm:.0f} mm apart" for names, mm in self.gaps_mm.items() if mm > APART_MM
        ]
        known = f"{len(self.volumes_ml)} organs of {total:.0f} ml, {self.unknown_share:.0%} unknown"
        return "; ".join([known, *apart])

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "volumes_ml": {name: round(ml, 2) for name, ml in self.volumes_ml.items()},
            "gaps_mm": {names: round(mm, 1) for names, mm in self.gaps_mm.items()},
            "misplaced": list(self.misplaced),
            "outside_share": round(self.outside_share, 4),
            "unknown_share": round(self.unknown_share, 4),
        }


def examine(atlas: Atlas) -> Findings:
    """Return volumes, adjacency, situs, and whether the organs lie inside of the body."""
    volumes = atlas.label_map.volumes_ml()
    present = atlas.organs
    gaps = {
        f"{NAMES[a]} - {NAMES[b]}": _gap_mm(atlas, a, b)
        for a, b in NEIGHBORS
        if a in present and b in present
    }
    return Findings(
        {NAMES[organ]: volumes[NAMES[organ]] for organ in present},
        gaps,
        misplaced(atlas.label_map),
        _outside_share(atlas.tissue),
        float((atlas.tissue == UNKNOWN).mean()),
    )


def _gap_mm(atlas: Atlas, first: int, second: int) -> float:
    box = Box.around((atlas.tissue == first) | (atlas.tissue == second))
    assert box is not None  # noqa: S101 - both are there
    tissue = atlas.tissue[box.slices]
    away = distance_transform_edt(tissue != first, sampling=atlas.spacing_mm)
    return float(away[tissue == second].min())


def _outside_share(tissue: Ids) -> float:
    organ = (tissue >= 1) & (tissue <= len(ORGAN_IDS))
    shell = binary_dilation(organ) & ~organ
    return float(np.isin(tissue[shell], OUTSIDE).mean()) if shell.any() else 0.0


def check(atlas: Atlas) -> Findings:
    """Return the findings of an atlas that can be learned from.

    Raises:
        InputError: ``E_SITUS``, organs lie on the wrong side of each other; ``E_BODY``, more than
            a tenth of their surface touches air.
    """
    found = examine(atlas)
    if found.misplaced:
        raise InputError(
            f"{atlas.name}: {'; '.join(found.misplaced)}: is the map mirrored, or are its names "
            "exchanged? Repair its orientation or leave it out",
            code="E_SITUS",
        )
    if found.outside_share > 0.1:
        raise InputError(
            f"{atlas.name}: {found.outside_share:.0%} of the organs' surface touches air; is the "
            "body complete, and does its class table name what surrounds them?",
            code="E_BODY",
        )
    return found


def write_atlas(file: Path, atlas: Atlas, more: Mapping[str, Any] | None = None) -> None:
    """Write an atlas: its tissues, and a JSON beside them.

    Args:
        file: NAME.nii.gz; NAME.json is written first, so that a map is never without it.
        atlas: to write.
        more: further entries of the JSON.

    Raises:
        UsageError: the name has another suffix.
        ResourceError: the disk is full or refuses.
    """
    file = Path(file)
    if not file.name.endswith(".nii.gz"):
        raise UsageError(f"{file}: an atlas is written as NAME.nii.gz")
    missing = [NAMES[organ] for organ in ORGAN_IDS if organ not in atlas.organs]
    about = {"source": atlas.source, "missing": missing, "checks": examine(atlas).as_dict()}
    write_json(_beside(file), about | dict(more or {}))
    z, y, x = atlas.spacing_mm
    grid = SourceGrid.from_affine(
        np.diag([-x, -y, z, 1.0]), atlas.tissue.shape[::-1], AS_IS.for_labels()
    )
    write_label_map(file, LabelMap(atlas.tissue, grid.geometry), grid)


def atlas_files(place: Path) -> tuple[Path, ...]:
    """Return the maps of a file or a folder, in the order of their names."""
    return tuple(file for file in files_in(Path(place)) if file.name.endswith(".nii.gz"))


def read_atlases(place: Path) -> tuple[Atlas, ...]:
    """Read an atlas, or all those of a folder, in the order of their names.

    Args:
        place: a file NAME.nii.gz or a folder.

    Raises:
        UsageError: there are none, or one has no JSON beside it that tells its source.
        InputError: a file is damaged, or ``E_LABELS``, it holds what is no tissue class.
    """
    files = atlas_files(place)
    if not files:
        raise UsageError(f"{place}: no atlases; make them with cfseg dataset atlas")
    return tuple(map(_read, files))


def _read(file: Path) -> Atlas:
    label_map, _ = read_label_map(file)
    strange = set(np.unique(label_map.ids).tolist()) - TISSUES
    if strange:
        raise InputError(
            f"{file}: {sorted(strange)} are no tissue classes; make an atlas of it with cfseg "
            "dataset atlas",
            code="E_LABELS",
        )
    spacing_mm = label_map.geometry.spacing_mm
    return Atlas.of(stem(file), label_map.ids, spacing_mm, read_about(file)["source"])


def read_about(file: Path) -> dict[str, Any]:
    """Return what stands beside an atlas.

    Raises:
        UsageError: nothing does, or no source.
    """
    beside = _beside(file)
    try:
        about = foreign.read_object(beside)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{beside} cannot be read: {error}; make the atlas again with cfseg dataset atlas"
        ) from error
    if not isinstance(about.get("source"), str):
        raise UsageError(f'{beside}: "source" is missing; say where the anatomy comes from')
    return about


def _beside(file: Path) -> Path:
    return file.with_name(f"{stem(file)}.json")
