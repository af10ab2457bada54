"""What decides the outcome of each step, so that a step is done again only when it has to be."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfseg.dataset.cases import Case
from cfseg.recipes.training import StageTraining, Training

DATA_KEYS = ("batch_size", "batch_dice", "seed", "validation_fraction", "z_margin_slices")
"""Of what the stages share, that which decides their data, plans and splits."""
LATER_KEYS = (
    "checkpoint", "coarse_cases", "organ_labels", "pseudo_label_step", "keep_at_most",
    "save_every_epochs", "save_every_minutes", "power_watts", "co2_g_per_kwh",
)  # fmt: skip
"""Of what the stages share, that which does not decide how a network learns from its data."""
LOOP_KEYS = ("epochs", "tumor_focus")
"""Of what is a stage's own, that which does not decide its data."""


def stage_inputs(
    training: Training,
    stage: StageTraining,
    cases: Sequence[Case],
    labels: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what decides a stage's ``data``, and what decides its ``network``.

    Args:
        training: what all stages share.
        stage: what is this stage's own.
        cases: that it learns from.
        labels: what decides the pseudo-labels.
    """
    own = stage.model_dump(mode="json")
    own.pop("weights")  # a second weight leaves the first as it is
    shared = training.model_dump(mode="json", exclude={"coarse", "tumor", "organ", "teacher"})
    data: dict[str, Any] = {"cases": facts(cases), "labels": labels}
    data |= {key: value for key, value in own.items() if key not in LOOP_KEYS}
    data |= {key: shared[key] for key in DATA_KEYS}
    loop = {key: value for key, value in shared.items() if key not in LATER_KEYS}
    return {"data": data, "network": {"data": data, "stage": own, "shared": loop}}


def facts(cases: Sequence[Case]) -> list[list[Any]]:
    """Return what counts of the cases: labels by content, scans by their size."""
    return [[c.name, sorted(c.annotated), c.image.stat().st_size, _sha256(c.label)] for c in cases]


def _sha256(path: Path | None) -> str:
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
