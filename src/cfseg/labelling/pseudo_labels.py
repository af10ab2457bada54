"""A trained network labels the organs of cases that lack them (paper 2.2)."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from cfseg.bundle.nnunet_v2 import read_model_folder
from cfseg.dataset.cases import Case
from cfseg.inference.predictor import Stage, Windows, predict
from cfseg.io import make_folder, read_scan, replacing
from cfseg.labels import TUMOR
from cfseg.networks.backends import find_backend, load
from cfseg.plan import Role
from cfseg.preprocessing.body import body_box
from cfseg.volume import LabelMap, Volume


def load_teacher(
    model: Path, role: Role, checkpoint: str, device: torch.device
) -> tuple[Stage, str]:
    """Load a trained network of a workspace.

    Args:
        model: nnU-Net's model folder.
        role: of the network, which decides its classes.
        checkpoint: file name of the weights.
        device: where it runs; on a CPU with OpenVINO if that is installed, as predicting does.

    Returns:
        The stage and the digest of its weights.
    """
    plan, weights = read_model_folder(model, role, checkpoint=checkpoint)
    contents = b"".join(weights[key].cpu().numpy().tobytes() for key in sorted(weights))
    backend = find_backend("auto", device)
    runner = load(plan, weights, device, backend=backend)
    stage = Stage(role, role, plan, runner, device, backend)
    return stage, hashlib.sha256(contents).hexdigest()


def label_cases(
    cases: Sequence[Case],
    folder: Path,
    teacher: tuple[Stage, str],
    step: float,
    on_case: Callable[[int], None],
) -> None:
    """Write the organs of each case as a network sees them; what it wrote before is kept.

    Args:
        cases: to be labelled.
        folder: gets ``CASE.npz``.
        teacher: of :func:`load_teacher`.
        step: distance between windows as a fraction of the patch.
        on_case: called after each case with the number done.
    """
    stage, digest = teacher
    make_folder(folder)
    for number, case in enumerate(cases, 1):
        file = pseudo_file(folder, case)
        if _teacher_of(file) != digest:
            volume = read_scan(case.image).volume
            _save(file, label(stage, volume, step, organs_only=True), digest)
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
