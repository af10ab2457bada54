"""The still pictures of a case: all of it, the largest lesion, the worst organ."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cfseg.geometry import Box, Triple
from cfseg.labels import ORGANS, TUMOR, Label, by_name
from cfseg.reports.figures import draw_montage
from cfseg.reports.page import data_url
from cfseg.reports.places import close_up, inside, organ_center, tumor_center
from cfseg.volume import LabelMap, Volume

DPI = 100
_QUALITY = {"quality": 88, "subsampling": 0}


@dataclass(frozen=True)
class Still:
    """One picture.

    Attributes:
        title: what it shows.
        text: the same in a sentence, for those who cannot see it.
        url: the picture itself, a ``data:`` URL.
    """

    title: str
    text: str
    url: str


def stills(
    volume: Volume,
    prediction: LabelMap,
    reference: LabelMap | None,
    worst: tuple[str, str] | None,
) -> list[Still]:
    """Return the pictures of a case; each has axial, coronal and sagittal slices.

    Args:
        volume: (Z, Y, X) in HU.
        prediction: on its grid.
        reference: on its grid, or None.
        worst: name of the organ that :func:`worst_organ` picked, and why.
    """
    maps = [it for it in (reference, prediction) if it is not None]
    middle = next((it for m in maps if (it := organ_center(m.ids))), None)
    found = [
        _still(volume, prediction, reference, "Overview", "the middle of the organs", middle, None)
    ]
    lesion = _largest_lesion(prediction, reference)
    if lesion is not None:
        place, whose = lesion
        text = f"the largest lesion of the {whose}"
        box = close_up(place, volume.geometry)
        found.append(_still(volume, prediction, reference, "Largest lesion", text, place, box))
    if worst is not None:
        organ = by_name(worst[0])
        name = organ.name.replace("_", " ")
        spot = _place_of(organ, prediction, reference)
        if spot is not None:
            title, text = f"Worst organ: {name}", f"{name}, {worst[1]}"
            box = close_up(spot, volume.geometry)
            found.append(_still(volume, prediction, reference, title, text, spot, box))
    return found


def worst_organ(
    scores: Mapping[str, Mapping[str, float | None]], agreement: Mapping[str, float]
) -> tuple[str, str] | None:
    """Return the name of the worst organ and why: by its score or else by the networks' agreement.

    Args:
        scores: with DSC by label name under ``dsc``; empty without a reference.
        agreement: by label name.
    """
    dsc = {name: value for name, value in scores.get("dsc", {}).items() if value is not None}
    for what, values in (("DSC", dsc), ("agreement of the networks", agreement)):
        of_organs = {organ.name: values[organ.name] for organ in ORGANS if organ.name in values}
        if of_organs:
            name = min(of_organs, key=lambda it: of_organs[it])
            return name, f"{what} {of_organs[name]:.2f}"
    return None


def _largest_lesion(prediction: LabelMap, reference: LabelMap | None) -> tuple[Triple, str] | None:
    for label_map, whose in ((reference, "reference"), (prediction, "prediction")):
        if label_map is None:
            continue
        place = tumor_center(label_map.ids)
        if place is not None:
            return place, whose
    return None


def _place_of(organ: Label, prediction: LabelMap, reference: LabelMap | None) -> Triple | None:
    """Return where most of an organ is wrong or, without a reference, where most of it is."""
    predicted = prediction.ids == organ.id
    if reference is None:
        return inside(predicted)
    expected = reference.ids == organ.id
    return inside(predicted ^ expected) or inside(expected)


def _still(
    volume: Volume,
    prediction: LabelMap,
    reference: LabelMap | None,
    title: str,
    text: str,
    place: Triple | None,
    box: Box | None,
) -> Still:
    figure = draw_montage(volume, prediction, reference, place=place, box=box)
    stream = io.BytesIO()
    figure.savefig(
        stream, format="jpg", dpi=DPI, facecolor=figure.get_facecolor(), pil_kwargs=_QUALITY
    )
    rows = "prediction" if reference is None else "reference above, prediction below"
    words = f"Axial, coronal and sagittal slice through {text}: {rows}"
    return Still(title, words, data_url(stream.getvalue(), "image/jpeg"))


def label_places(*label_maps: LabelMap) -> dict[str, Triple]:
    """Return a voxel inside each label by name, of the first map that has it."""
    found: dict[str, Triple] = {}
    for label_map in label_maps:
        for label in (*ORGANS, TUMOR):
            box = Box.around(label_map.ids == label.id) if label.name not in found else None
            if box is None:
                continue
            place = inside(label_map.ids[box.slices] == label.id)
            if place is not None:
                z, y, x = np.add(place, box.start).tolist()
                found[label.name] = (z, y, x)
    return found
