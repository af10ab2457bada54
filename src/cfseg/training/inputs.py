"""What decides the outcome of each step, so that a step is done again only when it has to be."""

from collections.abc import Sequence
from typing import Any

from cfseg.dataset.cases import Case
from cfseg.dataset.digests import Digests, facts
from cfseg.plan import ROLES, Frozen
from cfseg.recipes.training import StageTraining, Training

DATA_KEYS = ("batch_size", "batch_dice", "seed", "validation_fraction", "z_margin_slices")
"""Of what the stages share, that which decides their data, plans and splits."""
LATER_KEYS = (
    "checkpoint", "coarse_cases", "tumor_cases", "organ_labels", "pseudo_label_step",
    "keep_at_most", "save_every_epochs", "save_every_minutes", "power_watts", "co2_g_per_kwh",
)  # fmt: skip
"""Of what the stages share, that which does not decide how a network learns from its data."""
LOOP_KEYS = (
    "epochs", "tumor_focus", "tumor_dice_weight", "oversample_foreground", "rare_label_exponent",
    "hard_voxels",
)  # fmt: skip
"""Of what is a stage's own, that which does not decide its data."""
CHAIN_KEYS = ("weights", "rounds", "drop_fraction", "start", "initial_lr")
"""Of what is a stage's own, that which does not decide a single network.

A second weight leaves the first as it is; a further round of the teacher the one before. What a
network starts from counts by its inputs, see :class:`cfseg.training.learners.Learner`; the learning
rate counts among what all stages share.
"""
NEW_KEYS = ("hard_voxels",)
"""What counts only where it differs from its default: what was trained before it came stays."""
NEW_STAGE_KEYS = ("batch_dice", "tumor_dice_weight", "hard_voxels", "window_hu")
"""The same of what is a stage's own."""


def stage_inputs(
    training: Training,
    stage: StageTraining,
    cases: Sequence[Case],
    labels: dict[str, Any] | None = None,
    digests: Digests | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what decides a stage's ``data``, and what decides its ``network``.

    Args:
        training: what all stages share.
        stage: what is this stage's own.
        cases: that it learns from.
        labels: what decides the pseudo-labels.
        digests: known ones of the cases' files.
    """
    own = _without_defaults(stage, NEW_STAGE_KEYS)
    for key in CHAIN_KEYS:
        own.pop(key, None)
    shared = _without_defaults(training, NEW_KEYS)
    for key in (*ROLES, "teacher"):
        shared.pop(key)
    data: dict[str, Any] = {"cases": facts(cases, digests), "labels": labels}
    data |= {key: shared[key] for key in DATA_KEYS}
    data |= {key: value for key, value in own.items() if key not in LOOP_KEYS}
    loop = {key: value for key, value in shared.items() if key not in LATER_KEYS}
    loop["initial_lr"] = training.of(stage).initial_lr
    return {"data": data, "network": {"data": data, "stage": own, "shared": loop}}


def _without_defaults(model: Frozen, keys: Sequence[str]) -> dict[str, Any]:
    fields, values = type(model).model_fields, model.model_dump(mode="json")
    unused = {key for key in keys if values[key] == fields[key].default}
    return {key: value for key, value in values.items() if key not in unused}
