"""A model labels the organs of cases that lack them (paper 2.2)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfseg.dataset.cases import Case
from cfseg.inference.predictor import Stage, Windows, predict
from cfseg.io import make_folder, read_scan, replacing
from cfseg.labels import TUMOR
from cfseg.preprocessing.body import body_box
from cfseg.volume import LabelMap, Volume


class Teacher(NamedTuple):
    """A model that labels scans.

    Attributes:
        label: gives the label map of a scan.
        digest: of the model.
    """

    label: Callable[[Volume], LabelMap]
    digest: str


def label_cases(
    cases: Sequence[Case], folder: Path, teacher: Teacher, on_case: Callable[[int], None]
) -> None:
    """Write the organs of each case as a model sees them; what it wrote before is kept.

    Args:
        cases: to be labelled.
        folder: gets ``CASE.npz``.
        teacher: the model.
        on_case: called after each case with the number done.
    """
    make_folder(folder)
    for number, case in enumerate(cases, 1):
        file = pseudo_file(folder, case)
        if _teacher_of(file) != teacher.digest:
            _save(file, teacher.label(read_scan(case.image).volume), teacher.digest)
        on_case(number)


def label(stage: Stage, volume: Volume, step: float, *, organs_only: bool = False) -> LabelMap:
    """Return the stage's label map of a whole scan; outside of the body it is background.

    Args:
        stage: a network.
        volume: (Z, Y, X) in HU.
        step: distance between windows as a fraction of the patch.
        organs_only: the best other label where the network sees a tumor.
    """
    body = body_box(volume)
    prediction = predict(stage, volume.crop(body), Windows(step))
    if organs_only and TUMOR.id in stage.plan.labels:
        logits = prediction.logits
        logits[stage.plan.labels.index(TUMOR.id)] = logits.amin(dim=0)
    found = LabelMap.empty(volume.geometry)
    found.ids[body.slices] = prediction.label_map().ids
    return found


def pseudo_file(folder: Path, case: Case) -> Path:
    """Return where a case's pseudo-label lies."""
    return folder / f"{case.name}.npz"


def read_pseudo_label(file: Path) -> np.ndarray:
    """Return (Z, Y, X) label ids as :func:`label_cases` wrote them."""
    with np.load(file) as stored:
        ids: np.ndarray = stored["ids"]
    return ids


def _teacher_of(file: Path) -> str:
    if not file.exists():
        return ""
    with np.load(file) as stored:
        return str(stored["teacher"])


def _save(file: Path, labels: LabelMap, digest: str) -> None:
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, ids=labels.ids, teacher=np.array(digest))
