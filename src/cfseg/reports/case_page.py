"""The page of one case."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cfseg.evaluation.scores import MISSED_DSC
from cfseg.findings.agreement import LOW_AGREEMENT
from cfseg.io import without_paths
from cfseg.labels import LABELS, ORGANS, TUMOR
from cfseg.reports.embedding import HU_STEPS, embed, ras_mm
from cfseg.reports.outputs import CaseOutput
from cfseg.reports.page import data_block, render, viewer_license, viewer_scripts
from cfseg.reports.places import viewpoint
from cfseg.reports.stills import Still, label_places, stills, worst_organ
from cfseg.volume import LabelMap, Volume

WINDOWS: tuple[tuple[str, int, int], ...] = (
    ("Soft tissue", 40, 400),
    ("Liver", 90, 180),
    ("Bone", 400, 1800),
    ("Lung", -600, 1500),
)
"""Presets of the viewer: name, level and width in HU."""

LESIONS_LISTED = 15


@dataclass(frozen=True)
class Images:
    """What there is to see of a case, all on one grid.

    Attributes:
        volume: (Z, Y, X) in HU.
        prediction: its label map.
        affine: (4, 4) from an index (i, j, k) of the file to NIfTI's millimeters.
        reference: its reference, or None.
    """

    volume: Volume
    prediction: LabelMap
    affine: npt.NDArray[np.float64]
    reference: LabelMap | None = None


@dataclass(frozen=True)
class CaseView:
    """A case as its page and the cohort's show it.

    Attributes:
        output: what predict wrote.
        record: its findings as ``statistics/CASE.json`` has them, None if they are not known.
        problems: what the reader should know about this page: a CT that is not there, and so on.
    """

    output: CaseOutput
    record: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = field(default=())

    @property
    def agreement(self) -> dict[str, float]:
        """Agreement of the networks by label name."""
        return dict(self.output.status.get("agreement") or {})

    @property
    def unsure(self) -> list[str]:
        """Labels on which the networks disagree."""
        return [name for name, value in self.agreement.items() if value < LOW_AGREEMENT]

    @property
    def cut(self) -> list[str]:
        """Labels that the border of the scan cuts."""
        if self.record is None:
            return []
        return [it.name for it in LABELS if self.record[it.name]["touches_border"]]

    @property
    def lesions(self) -> list[Mapping[str, Any]]:
        """Lesions, the largest first."""
        return list(self.record[TUMOR.name]["lesions"]) if self.record else []

    def mean_score(self, metric: str) -> float | None:
        """Return the mean of ``dsc`` or ``nsd`` over the organs that have one."""
        values = self.output.scores.get(metric, {})
        known = [v for it in ORGANS if (v := values.get(it.name)) is not None]
        return sum(known) / len(known) if known else None

    def score(self, metric: str, name: str) -> float | None:
        """Return a label's score."""
        return self.output.scores.get(metric, {}).get(name)

    @property
    def worst(self) -> tuple[str, str] | None:
        """The worst organ and why."""
        return worst_organ(self.output.scores, self.agreement)

    @property
    def warnings(self) -> list[str]:
        """All that asks for a second look."""
        found = [*self.problems]
        found += [without_paths(str(note)) for note in self.output.status.get("notes", [])]
        if self.output.missed:
            found.append(
                f"Missed, or all but missed (DSC under {MISSED_DSC}): "
                f"{_listed(list(self.output.missed))}."
            )
        if self.cut:
            found.append(
                f"Cut by the border of the scan: {_listed(self.cut)}. Their volumes are those of "
                "the visible part."
            )
        if self.unsure:
            found.append(f"The networks disagree on {_listed(self.unsure)}.")
        return found


def case_page(view: CaseView, images: Images | None) -> str:
    """Return the page of a case as HTML.

    Args:
        view: the case.
        images: CT and label maps; None leaves out viewer and pictures.
    """
    return render(
        "case.html.j2",
        viewer_scripts() if images else (),
        view=view,
        status=view.output.status,
        labels=LABELS,
        organs=_label_rows(view),
        lesions=view.lesions[:LESIONS_LISTED],
        lesions_left=max(0, len(view.lesions) - LESIONS_LISTED),
        stages=_stages(view.output.status.get("seconds") or {}),
        windows=WINDOWS,
        pictures=_pictures(view, images),
        grid=_grid(images),
        viewer=_viewer(view, images) if images else None,
        license=viewer_license(),
    )


def _label_rows(view: CaseView) -> list[dict[str, Any]]:
    volumes = view.output.status.get("volumes_ml") or {}
    rows = []
    for label in LABELS:
        entry: Mapping[str, Any] = (view.record or {}).get(label.name, {})
        rows.append(
            {
                "label": label,
                "visible_ml": entry.get("visible_ml", volumes.get(label.name)),
                "cut_by": entry.get("cut_by", []),
                "mean_hu": entry.get("intensity"),
                "sd_hu": entry.get("intensity_std"),
                "extent_mm": entry.get("extent_mm"),
                "agreement": view.agreement.get(label.name),
                "unsure": label.name in view.unsure,
                "dsc": view.score("dsc", label.name),
                "nsd": view.score("nsd", label.name),
            }
        )
    return rows


def _stages(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the time of each step, and how long its bar is in percent of the longest."""
    steps = {name: value for name, value in seconds.items() if name != "total"}
    longest = max(steps.values(), default=0) or 1
    return [
        {"name": name, "seconds": value, "percent": round(100 * value / longest, 1)}
        for name, value in steps.items()
    ]


def _pictures(view: CaseView, images: Images | None) -> list[Still]:
    if images is None:
        return []
    return stills(images.volume, images.prediction, images.reference, view.worst)


def _grid(images: Images | None) -> str:
    if images is None:
        return ""
    z, y, x = images.volume.geometry.shape
    dz, dy, dx = images.volume.geometry.spacing_mm
    return f"{x} × {y} × {z} voxels of {dx:.2f} × {dy:.2f} × {dz:.2f} mm"


def _viewer(view: CaseView, images: Images) -> dict[str, Any]:
    """Return what the viewer's script reads: settings as JSON, images as base64."""
    maps = {"prediction": images.prediction}
    if images.reference is not None:
        maps["reference"] = images.reference
    embedded = embed(images.volume, maps)
    geometry = images.volume.geometry
    places = label_places(*maps.values())
    shown = (images.reference, images.prediction)
    settings = {
        "labels": [
            {"id": it.id, "name": it.name.replace("_", " "), "color": it.color} for it in LABELS
        ],
        "places": {str(it.id): ras_mm(geometry, places[it.name]) for it in LABELS
                   if it.name in places},
        "start": ras_mm(geometry, viewpoint(*(it for it in shown if it is not None))),
        "slices_each": embedded.block[0],
        "hu": [value for value, _ in HU_STEPS],
        "bytes": [code for _, code in HU_STEPS],
        "windows": [{"name": n, "level": level, "width": width} for n, level, width in WINDOWS],
    }  # fmt: skip
    return {
        "settings": data_block(settings),
        "ct": embedded.ct,
        "label_maps": embedded.label_maps,
        "present": [it for it in LABELS if it.name in places],
        "lesion_places": [_lesion_place(images, lesion) for lesion in view.lesions],
    }


def _lesion_place(images: Images, lesion: Mapping[str, Any]) -> str:
    place = images.affine @ np.array([*lesion["centroid_vox"], 1.0])
    return " ".join(f"{mm:.2f}" for mm in place[:3])


def _listed(names: list[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
