"""nnU-Net v2's ``plans.json`` as a :class:`~cfseg.plan.StagePlan`: new format, and that before 2.3.

What cfseg does not run as nnU-Net would (residual networks, 2D, cascades, other normalizations) is
refused here, with what it found.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cfseg.errors import ModelError
from cfseg.plan import Architecture, Intensity, Resampling, StagePlan

Json = Mapping[str, Any]
RESAMPLER = "resample_data_or_seg_to_shape"


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
        ModelError: a value is missing or of a kind that cfseg does not run.
    """
    try:
        values = resolved(plans.get("configurations", {}), configuration)
        _check(values)
        architecture = _architecture(values)
        return StagePlan(
            spacing_mm=_triple(values["spacing"]),
            patch=_triple(values["patch_size"]),
            labels=labels,
            architecture=architecture,
            intensity=_intensity(plans),
            resampling=_resampling(values),
            transpose=_triple(plans.get("transpose_forward", (0, 1, 2))),
            deep_supervision=_heads(len(architecture.n_conv_decoder), trainer),
        )
    except KeyError as error:
        raise ModelError(
            f"plans.json: {error.args[0]} is missing; plan it with nnU-Net v2"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"plans.json: {key}: {first['msg']} (got {first['input']!r})") from error


def resolved(configurations: Mapping[str, Json], name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits filled in.

    Raises:
        ModelError: it is not there, or it inherits from itself.
    """
    chain: list[str] = []
    values: dict[str, Any] = {}
    parent: str | None = name
    while parent is not None:
        if parent in chain or parent not in configurations:
            raise ModelError(
                f"plans.json: configuration {parent!r} is missing or inherits from itself; "
                f"there are {', '.join(configurations)}"
            )
        chain.append(parent)
        values = dict(configurations[parent]) | values
        # Only the configuration's own parent is followed, not one that it took over.
        parent = configurations[parent].get("inherits_from")
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


def _check(values: Json) -> None:
    """Refuse what nnU-Net would preprocess in another way than cfseg."""
    schemes = list(values["normalization_schemes"])
    if schemes != ["CTNormalization"]:
        raise ModelError(f"plans.json: normalization {schemes}; cfseg takes one CT channel")
    if len(values["patch_size"]) != 3:
        raise ModelError("plans.json: a 2D configuration; cfseg takes 3D ones")
    if values.get("previous_stage"):
        raise ModelError(
            "plans.json: the second network of nnU-Net's own cascade, which needs the first one's "
            "output; give a 3d_lowres or 3d_fullres network"
        )
    found = values.get("preprocessor_name", "DefaultPreprocessor")
    if found != "DefaultPreprocessor":
        raise ModelError(f"plans.json: preprocessor {found}; cfseg takes DefaultPreprocessor")
    for kind in ("data", "probabilities"):
        name = values.get(f"resampling_fn_{kind}", RESAMPLER)
        if name != RESAMPLER:
            raise ModelError(f"plans.json: resampling_fn_{kind} {name}; cfseg takes {RESAMPLER}")


def _intensity(plans: Json) -> Intensity:
    channel = plans["foreground_intensity_properties_per_channel"]["0"]
    return Intensity(
        lower=channel["percentile_00_5"],
        upper=channel["percentile_99_5"],
        mean=channel["mean"],
        # nnU-Net divides by max(std, 1e-8).
        std=max(channel["std"], 1e-8),
    )


def _resampling(values: Json) -> Resampling:
    data = dict(values.get("resampling_fn_data_kwargs", {}))
    logits = dict(values.get("resampling_fn_probabilities_kwargs", {}))
    defaults = Resampling()
    # Left out, nnU-Net's function never separates; its planners write null, which means "decide".
    separate = [kwargs.get("force_separate_z", False) for kwargs in (data, logits)]
    threshold = [
        kwargs.get("separate_z_anisotropy_threshold", defaults.anisotropy_threshold)
        for kwargs in (data, logits)
    ]
    if separate[0] != separate[1] or threshold[0] != threshold[1]:
        raise ModelError("plans.json: images and logits treat the coarse axis differently")
    return Resampling(
        method="spline",
        normalize_first=True,
        order=data.get("order", 3),
        order_z=data.get("order_z", 0),
        # Left out, the order is the function's own default, whatever is resampled.
        logits_order=logits.get("order", 3),
        logits_order_z=logits.get("order_z", 0),
        separate_z=separate[0],
        anisotropy_threshold=threshold[0],
    )


def _architecture(values: Json) -> Architecture:
    if "architecture" not in values:
        return _old_architecture(values)
    network = str(values["architecture"]["network_class_name"]).rpartition(".")[2]
    _check_class("network", network, "PlainConvUNet")
    kwargs = values["architecture"]["arch_kwargs"]
    _check_class("convolution", str(kwargs["conv_op"]).rpartition(".")[2], "Conv3d")
    _check_class("norm", str(kwargs["norm_op"]).rpartition(".")[2], "InstanceNorm3d")
    _check_class("nonlinearity", str(kwargs["nonlin"]).rpartition(".")[2], "LeakyReLU")
    norm = kwargs.get("norm_op_kwargs") or {}
    if not norm.get("affine", False) or kwargs.get("nonlin_first", False):
        raise ModelError("plans.json: cfseg takes affine instance norm, before the nonlinearity")
    stages = int(kwargs["n_stages"])
    return Architecture(
        features=_per_stage(kwargs["features_per_stage"], stages),
        kernel_sizes=tuple(_axes(k) for k in _per_stage(kwargs["kernel_sizes"], stages)),
        strides=tuple(_axes(s) for s in _per_stage(kwargs["strides"], stages)),
        n_conv_encoder=_per_stage(kwargs["n_conv_per_stage"], stages),
        n_conv_decoder=_per_stage(kwargs["n_conv_per_stage_decoder"], stages - 1),
        conv_bias=kwargs.get("conv_bias", False),
        norm_eps=norm.get("eps", 1e-5),
        negative_slope=(kwargs.get("nonlin_kwargs") or {}).get("negative_slope", 0.01),
    )


def _old_architecture(values: Json) -> Architecture:
    """Read the format before nnU-Net 2.3, which names the network's parts one by one."""
    _check_class("network", str(values["UNet_class_name"]), "PlainConvUNet")
    encoder = values["n_conv_per_stage_encoder"]
    base, most = values["UNet_base_num_features"], values["unet_max_num_features"]
    return Architecture(
        features=tuple(min(base * 2**i, most) for i in range(len(encoder))),
        kernel_sizes=tuple(_axes(k) for k in values["conv_kernel_sizes"]),
        strides=tuple(_axes(s) for s in values["pool_op_kernel_sizes"]),
        n_conv_encoder=tuple(encoder),
        n_conv_decoder=tuple(values["n_conv_per_stage_decoder"]),
        conv_bias=True,
    )


def _check_class(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ModelError(f"plans.json: {what} {found}; cfseg runs {wanted} alone")


def _per_stage(value: Any, stages: int) -> tuple[Any, ...]:  # noqa: ANN401 - JSON
    return (value,) * stages if isinstance(value, int) else tuple(value)


def _axes(value: Any) -> tuple[int, int, int]:  # noqa: ANN401 - JSON
    return (value, value, value) if isinstance(value, int) else _triple(value)


def _triple(value: Any) -> Any:  # noqa: ANN401 - JSON; pydantic checks what comes out
    return tuple(value)
