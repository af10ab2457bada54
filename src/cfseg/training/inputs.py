"""What decides the outcome of each step, so that a step is done again only when it has to be."""

from collections.abc import Sequence
from typing import Any

from cfseg.dataset.cases import Case
from cfseg.dataset.digests import Digests, facts
from cfseg.plan import ROLES
from cfseg.recipes.training import StageTraining, Training

DATA_KEYS = ("seed", "validation_fraction", "z_margin_slices")
"""Of what the stages share, that which decides their data, plans and splits."""
LATER_KEYS = (
    "checkpoint", "coarse_cases", "tumor_cases", "organ_labels", "pseudo_label_step",
    "keep_at_most", "save_every_epochs", "save_every_minutes", "power_watts", "co2_g_per_kwh",
)  # fmt: skip
"""Of what the stages share, that which does not decide how a network learns from its data."""
PLAN_KEYS = (
    "patch", "spacing_mm", "features", "strides", "n_conv_encoder", "n_conv_decoder", "window_hu",
)  # fmt: skip
"""Of what is a stage's own, that which decides its plan, and so its data."""
CHAIN_KEYS = ("weights", "rounds", "drop_fraction", "start", "initial_lr")
"""Of what is a stage's own, that which does not decide a single network.

A second weight leaves the first as it is; a further round of the teacher the one before. What a
network starts from counts by its inputs, see :class:`cfseg.training.curriculum.Learner`; the
learning rate counts among what all stages share.
"""


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
    own, shared = stage.model_dump(mode="json"), training.model_dump(mode="json")
    data: dict[str, Any] = {"cases": facts(cases, digests), "labels": labels}
    data |= {key: shared[key] for key in DATA_KEYS} | {key: own[key] for key in PLAN_KEYS}
    later = (*LATER_KEYS, *ROLES, "teacher")
    loop = {key: value for key, value in shared.items() if key not in later}
    loop["initial_lr"] = training.of(stage).initial_lr
    own = {key: value for key, value in own.items() if key not in CHAIN_KEYS}
    return {"data": data, "network": {"data": data, "stage": own, "shared": loop}}
