"""Findings as JSON: TotalSegmentator's ``statistics.json`` with more keys.

Each label has ``volume`` in cubic mm and ``intensity``, the mean in HU, under TotalSegmentator's
keys. What cannot be told is null: the volume of an organ that the scan cuts, the density of an
absent one. Indices are those of the file as stored, (i, j, k), boxes with both ends inside.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from cfseg.findings.lesions import Lesion
from cfseg.findings.measure import Findings
from cfseg.findings.organs import Organ, extent_mm
from cfseg.foreign import Stored
from cfseg.geometry import Box, TripleMm
from cfseg.io import SourceGrid
from cfseg.labels import TUMOR

AXES = ("head_foot", "front_back", "left_right")


def as_record(findings: Findings) -> dict[str, Any]:
    """Return what ``statistics/CASE.json`` holds: one entry per label, and ``about``."""
    record: dict[str, Any] = {
        organ.label.name: _organ(organ, findings.source, _sureness(findings, organ.label.name))
        for organ in findings.organs
    }
    record[TUMOR.name]["lesions"] = [_lesion(it, findings.source) for it in findings.lesions]
    record["about"] = {
        "case": findings.case,
        "notice": findings.notice,
        "reading": findings.source.options.given(),
        "spacing_mm": _by_axis(findings.source.geometry.spacing_mm),
        "border_slices": findings.border_slices,
        "low_agreement": findings.low_agreement,
        "label_map_sha256": findings.label_map_sha256,
    }
    return record


class _KeptLesion(Stored):
    lesion: int
    volume_ml: float | None
    visible_ml: float
    touches_border: bool
    longest_mm: float
    perpendicular_mm: float
    mean_hu: float
    sd_hu: float
    host_organ: str | None
    nearest_organ: str | None
    nearest_mm: float | None
    slices: Annotated[list[int], Field(min_length=2, max_length=2)]


class _KeptLabel(Stored):
    volume_ml: float | None
    visible_ml: float
    touches_border: bool
    cut_by: list[str]
    n_voxels: int
    intensity: float | None
    intensity_std: float | None
    extent_mm: dict[str, float] | None
    agreement: float | None
    low_agreement: bool | None


class _KeptTumor(_KeptLabel):
    lesions: list[_KeptLesion]


class _About(Stored):
    label_map_sha256: str


class _Record(Stored):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _KeptLabel] = Field(init=False)

    about: _About
    tumor: _KeptTumor


RECORD = TypeAdapter(_Record)
"""What a record has to be to make tables of it."""


def label_rows(case: str, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one flat row per label of a record, for tables of cohorts."""
    rows = []
    for name, entry in record.items():
        if name == "about":
            continue
        rows.append(
            {"case": case, "label": name}
            | {key: entry[key] for key in ("volume_ml", "visible_ml", "touches_border")}
            | {"cut_by": " ".join(entry["cut_by"]), "voxels": entry["n_voxels"]}
            | {"mean_hu": entry["intensity"], "sd_hu": entry["intensity_std"]}
            | {f"{a}_mm": (entry["extent_mm"] or {}).get(a) for a in AXES}
            | {"agreement": entry["agreement"], "low_agreement": entry["low_agreement"]}
        )
    return rows


def lesion_rows(case: str, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one flat row per lesion of a record."""
    keys = (
        "lesion", "volume_ml", "visible_ml", "touches_border", "longest_mm", "perpendicular_mm",
        "mean_hu", "sd_hu", "host_organ", "nearest_organ", "nearest_mm",
    )  # fmt: skip
    rows = []
    for lesion in record[TUMOR.name]["lesions"]:
        first, last = lesion["slices"]
        row = {"case": case} | {key: lesion[key] for key in keys}
        rows.append(row | {"first_slice": first, "last_slice": last})
    return rows


def stored_index(source: SourceGrid, index: TripleMm) -> list[float]:
    """Return an index (z, y, x) as (i, j, k) of the file."""
    stored = [0.0, 0.0, 0.0]
    for value, axis, flip in zip(index, source.order, source.flips, strict=True):
        stored[axis] = source.shape[axis] - 1 - value if flip else value
    return stored


def stored_box(source: SourceGrid, box: Box) -> list[list[int]]:
    """Return a box as [[least, most], ...] along (i, j, k) of the file, both ends inside."""
    z, y, x = (stop - 1 for stop in box.stop)
    ends = stored_index(source, box.start), stored_index(source, (z, y, x))
    return [sorted((int(a), int(b))) for a, b in zip(*ends, strict=True)]


def _organ(organ: Organ, source: SourceGrid, sureness: dict[str, Any]) -> dict[str, Any]:
    hu, whole_ml = organ.density, organ.volume_ml
    return {
        "volume": None if whole_ml is None else round(whole_ml * 1000, 2),
        "intensity": None if hu is None else round(hu.mean_hu, 2),
        "n_voxels": organ.voxels,
        "intensity_std": None if hu is None else round(hu.sd_hu, 2),
        "intensity_min": None if hu is None else hu.least_hu,
        "intensity_max": None if hu is None else hu.most_hu,
        "centroid_vox": _rounded(organ.centroid and stored_index(source, organ.centroid)),
        "bbox_vox": organ.box and stored_box(source, organ.box),
        "volume_ml": _ml(whole_ml),
        "visible_ml": _ml(organ.visible_ml),
        "touches_border": bool(organ.cut_by),
        "cut_by": list(organ.cut_by),
        "extent_mm": organ.extent_mm and _by_axis(organ.extent_mm),
    } | sureness


def _lesion(lesion: Lesion, source: SourceGrid) -> dict[str, Any]:
    sizes = lesion.diameters
    spacing_mm = source.geometry.spacing_mm
    bbox = stored_box(source, lesion.box)
    z = int(stored_index(source, (float(sizes.slice), 0, 0))[source.order[0]])
    return {
        "lesion": lesion.number,
        "n_voxels": lesion.voxels,
        "volume_ml": _ml(lesion.volume_ml),
        "visible_ml": _ml(lesion.visible_ml),
        "touches_border": bool(lesion.cut_by),
        "cut_by": list(lesion.cut_by),
        "longest_mm": round(sizes.longest_mm, 1),
        "perpendicular_mm": round(sizes.perpendicular_mm, 1),
        "measured_on_slice": z,
        "mean_hu": round(lesion.density.mean_hu, 2),
        "sd_hu": round(lesion.density.sd_hu, 2),
        "host_organ": lesion.host,
        "nearest_organ": lesion.nearest,
        "nearest_mm": None if lesion.nearest_mm is None else round(lesion.nearest_mm, 1),
        "slices": bbox[source.order[0]],
        "centroid_vox": _rounded(stored_index(source, lesion.centroid)),
        "bbox_vox": bbox,
        "extent_mm": _by_axis(extent_mm(lesion.box, spacing_mm)),
    }


def _sureness(findings: Findings, name: str) -> dict[str, Any]:
    value = findings.agreement.get(name)
    return {"agreement": value, "low_agreement": None if value is None else name in findings.unsure}


def _ml(volume_ml: float | None) -> float | None:
    return None if volume_ml is None else round(volume_ml, 3)


def _by_axis(lengths_mm: TripleMm) -> dict[str, float]:
    return {axis: round(mm, 4) for axis, mm in zip(AXES, lengths_mm, strict=True)}


def _rounded(values: list[float] | None) -> list[float] | None:
    return None if values is None else [round(value, 2) for value in values]
