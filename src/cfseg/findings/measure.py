"""A CT and its label map to findings, in memory or from files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cfseg.errors import InputError
from cfseg.findings.agreement import LOW_AGREEMENT
from cfseg.findings.lesions import Lesion, find_lesions
from cfseg.findings.organs import BORDER_SLICES, Organ, find_organs
from cfseg.io import AS_IS, Input, ReadingOptions, SourceGrid, read_label_map, read_scan
from cfseg.labels import LABELS
from cfseg.volume import LabelMap, Volume


@dataclass(frozen=True)
class Findings:
    """What a label map says about one scan.

    Attributes:
        case: identifier.
        organs: every label, tumor included, absent ones too.
        lesions: the connected parts of the tumor label, the largest first.
        source: grid of the file, for indices as other programs count them.
        agreement: Dice coefficient of two networks by label name; see
            :func:`cfseg.findings.agreement.agreement`.
        low_agreement: under this an agreement is flagged.
        border_slices: what reaches into so many outer slices counts as cut.
        notice: what the makers of the model want said with every output.
        label_map_sha256: digest of the label map's file, empty if there is none.
    """

    case: str
    organs: tuple[Organ, ...]
    lesions: tuple[Lesion, ...]
    source: SourceGrid
    agreement: Mapping[str, float] = field(default_factory=dict)
    low_agreement: float = LOW_AGREEMENT
    border_slices: int = BORDER_SLICES
    notice: str = ""
    label_map_sha256: str = ""

    @property
    def cut(self) -> tuple[str, ...]:
        """Names of the labels that the border of the scan cuts."""
        return tuple(organ.label.name for organ in self.organs if organ.cut_by)

    @property
    def unsure(self) -> tuple[str, ...]:
        """Names of the labels on which the networks disagree."""
        low = self.low_agreement
        return tuple(name for name, value in self.agreement.items() if value < low)


def find(
    case: str,
    volume: Volume,
    label_map: LabelMap,
    source: SourceGrid,
    agreement: Mapping[str, float] | None = None,
    *,
    low_agreement: float = LOW_AGREEMENT,
    border_slices: int = BORDER_SLICES,
    notice: str = "",
    label_map_sha256: str = "",
) -> Findings:
    """Return what a label map says about a CT; see :class:`Findings` for the arguments.

    Raises:
        InputError: ``E_GRID``, they lie on different grids; ``E_LABELS``, a value is no label.
    """
    _check(case, volume, label_map)
    return Findings(
        case=case,
        organs=find_organs(volume, label_map, border_slices),
        lesions=find_lesions(volume, label_map, border_slices),
        source=source,
        agreement=dict(agreement or {}),
        low_agreement=low_agreement,
        border_slices=border_slices,
        notice=notice,
        label_map_sha256=label_map_sha256,
    )


def measure(
    ct: str | Path | Input,
    label_map: str | Path,
    *,
    low_agreement: float = LOW_AGREEMENT,
    border_slices: int = BORDER_SLICES,
    options: ReadingOptions = AS_IS,
) -> Findings:
    """Return what a label map says about a CT: volumes, densities, lesions.

    Args:
        ct: a file, or a folder or archive with one CT; or what a listing found.
        label_map: a NIfTI file on the CT's grid with FLARE's labels, whoever made it.
        low_agreement: under this an agreement of networks is flagged.
        border_slices: what reaches into so many outer slices of the scan counts as cut.
        options: how both are read; the record names them.

    Raises:
        InputError: a file is refused, or (``E_GRID``) they lie on different grids.

    Example:
        >>> measure("ct.nii.gz", "labels.nii.gz").lesions       # doctest: +SKIP
    """
    scan = read_scan(ct if isinstance(ct, Input) else Path(ct), options=options)
    labels, source = read_label_map(Path(label_map), options)
    return find(
        scan.case,
        scan.volume,
        labels,
        source,
        low_agreement=low_agreement,
        border_slices=border_slices,
    )


def _check(case: str, volume: Volume, label_map: LabelMap) -> None:
    if not volume.geometry.matches(label_map.geometry):
        one, other = volume.geometry, label_map.geometry
        raise InputError(
            f"{case}: the label map does not lie on the CT's grid (CT {one.shape} voxels, label "
            f"map {other.shape} voxels, or at another place); resample it to the CT's grid",
            code="E_GRID",
        )
    most = int(label_map.ids.max(initial=np.uint8(0)))
    if most > LABELS[-1].id:
        raise InputError(
            f"{case}: the label map holds {most}, but FLARE's labels are 0 to {LABELS[-1].id}; "
            "is it in another program's numbering? What marks voxels that nobody annotated has to "
            "become 0 first",
            code="E_LABELS",
        )
