"""nnU-Net v2's ``plans.json`` as a :class:`~cfseg.plan.StagePlan`: new format, and that before 2.3.

What cfseg takes of such a file, :mod:`cfseg.bundle.plans_json` says.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cfseg.bundle.plans_json import (
    Channel,
    Configuration,
    NewConfiguration,
    OldConfiguration,
    Plans,
)
from cfseg.errors import ModelError
from cfseg.foreign import brief, problem
from cfseg.plan import Intensity, Resampling, StagePlan

Json = Mapping[str, Any]


def plan_from_json(
    plans: Json, configuration: str, labels: tuple[int, ...], trainer: str
) -> StagePlan:
    """Return the plan of one configuration.

    Args:
        plans: contents of ``plans.json``.
        configuration: for example ``3d_fullres``.
        labels: FLARE id of each output channel.
        trainer: name of nnU-Net's trainer class; it tells the heads' weights.

    Raises:
        ModelError: a value is missing, of another type, or of a kind that cfseg does not run.
    """
    values = resolved(plans.get("configurations"), configuration)
    try:
        kind = NewConfiguration if "architecture" in values else OldConfiguration
        chosen = kind.model_validate(values)
        common = Plans.model_validate(plans)
        architecture = chosen.network()
        return StagePlan.model_validate(
            {
                "spacing_mm": chosen.spacing,
                "patch": chosen.patch_size,
                "labels": labels,
                "architecture": architecture,
                "intensity": _intensity(common.foreground_intensity_properties_per_channel.ct),
                "resampling": _resampling(chosen),
                "transpose": common.transpose_forward,
                "deep_supervision": _heads(len(architecture.n_conv_decoder), trainer),
            }
        )
    except ValidationError as error:
        raise ModelError(f"plans.json: {problem(error)}; plan it with nnU-Net v2") from error
    except ValueError as error:
        raise ModelError(f"plans.json: {error}") from error


def resolved(configurations: object, name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits filled in.

    Args:
        configurations: of ``plans.json``, each under its name.
        name: of the one that is wanted.

    Raises:
        ModelError: it is not there, it is no object, or it inherits from itself.
    """
    if not isinstance(configurations, dict):
        raise ModelError(
            f"plans.json: configurations: an object is needed (found {brief(configurations)}); "
            "plan it with nnU-Net v2"
        )
    chain: list[str] = []
    values: dict[str, Any] = {}
    parent: object = name
    while parent is not None:
        if not isinstance(parent, str) or parent in chain or parent not in configurations:
            raise ModelError(
                f"plans.json: configuration {brief(parent)} is missing or inherits from itself; "
                f"there are {brief(list(configurations))}"
            )
        chain.append(parent)
        own = configurations[parent]
        if not isinstance(own, dict):
            raise ModelError(
                f"plans.json: configurations.{parent}: an object is needed (found {brief(own)}); "
                "plan it with nnU-Net v2"
            )
        values = own | values
        # Only the configuration's own parent is followed, not one that it took over.
        parent = own.get("inherits_from")
    return values


def head_weights(heads: int) -> tuple[float, ...]:
    """Return nnU-Net's loss weights of the deep-supervision heads, finest first.

    Each has half the weight of the next finer one, the coarsest none, and they sum to 1.
    """
    if heads < 2:
        return ()
    raw = [0.5**i for i in range(heads - 1)]
    return (*(weight / sum(raw) for weight in raw), 0.0)


def _heads(heads: int, trainer: str) -> tuple[float, ...]:
    if "NoDeepSupervision" in trainer:
        return (1.0,) + (0.0,) * (heads - 1)
    return head_weights(heads) if trainer.startswith("nnUNetTrainer") else ()


def _intensity(channel: Channel) -> Intensity:
    return Intensity(
        lower=channel.percentile_00_5,
        upper=channel.percentile_99_5,
        mean=channel.mean,
        # nnU-Net divides by max(std, 1e-8).
        std=max(channel.std, 1e-8),
    )


def _resampling(chosen: Configuration) -> Resampling:
    data, logits = chosen.resampling_fn_data_kwargs, chosen.resampling_fn_probabilities_kwargs
    # nnU-Net's planners write null for force_separate_z, which means "decide".
    if (
        data.force_separate_z != logits.force_separate_z
        or data.separate_z_anisotropy_threshold != logits.separate_z_anisotropy_threshold
    ):
        raise ValueError("images and logits treat the coarse axis differently")
    return Resampling(
        method="spline",
        normalize_first=True,
        order=data.order,
        order_z=data.order_z,
        logits_order=logits.order,
        logits_order_z=logits.order_z,
        separate_z=data.force_separate_z,
        anisotropy_threshold=data.separate_z_anisotropy_threshold,
    )
