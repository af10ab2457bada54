"""What cfseg takes of an nnU-Net v2 ``plans.json``, and in which form: anybody may have written it.

Types are checked here, and all that cfseg does not run as nnU-Net would is refused: residual
networks, 2D, cascades, other normalizations. How large a value may be, :mod:`cfseg.plan` says.
"""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
)

from cfseg.foreign import brief
from cfseg.plan import MOST_STAGES, Architecture

RESAMPLER = "resample_data_or_seg_to_shape"


def _number(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Refuse what pydantic would take for a number: true, and "3"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number is needed (found {brief(value)})")
    return value


def _three(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list) and len(value) == 2:
        raise ValueError("a 2D configuration; cfseg takes 3D ones")
    return [value] * 3 if type(value) is int else value


def _per_stage(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - JSON
    """One number stands for all stages."""
    return [value] * info.data.get("n_stages", 1) if type(value) is int else value


def _per_decoder_stage(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - JSON
    return [value] * (info.data.get("n_stages", 2) - 1) if type(value) is int else value


def _runs(wanted: str) -> AfterValidator:
    """Refuse a class or function of another name than the one that cfseg runs."""

    def check(found: str) -> str:
        if found.rpartition(".")[2] != wanted:
            raise ValueError(f"{brief(found)}; cfseg runs {wanted} alone")
        return found

    return AfterValidator(check)


def _ct_alone(schemes: list[str]) -> list[str]:
    if schemes != ["CTNormalization"]:
        raise ValueError(f"normalization {brief(schemes)}; cfseg takes one CT channel")
    return schemes


def _no_cascade(previous: str | None) -> str | None:
    if previous:
        raise ValueError(
            "the second network of nnU-Net's own cascade, which needs the first one's output; "
            "give a 3d_lowres or 3d_fullres network"
        )
    return previous


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Axes = Annotated[list[Whole], Field(min_length=3, max_length=3), BeforeValidator(_three)]
_Few = Field(max_length=MOST_STAGES)
_PerStage = BeforeValidator(_per_stage)


class Foreign(BaseModel):
    """Base of what is read of nnU-Net's files: keys that cfseg does not use may hold anything."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Channel(Foreign):
    """Intensities of the labelled voxels of the training set, HU."""

    percentile_00_5: Number
    percentile_99_5: Number
    mean: Number
    std: Number


class Channels(Foreign):
    """The channels; a CT has one."""

    ct: Channel = Field(alias="0")


class Plans(Foreign):
    """What holds for all configurations."""

    foreground_intensity_properties_per_channel: Channels
    transpose_forward: Axes = [0, 1, 2]


class ResamplingArguments(Foreign):
    """Arguments of nnU-Net's resampling; left out, they are its function's own defaults."""

    order: Whole = 3
    order_z: Whole = 0
    force_separate_z: StrictBool | None = False
    separate_z_anisotropy_threshold: Number = 3.0


class Configuration(Foreign):
    """A configuration without its network."""

    normalization_schemes: Annotated[list[str], AfterValidator(_ct_alone)]
    patch_size: Axes
    spacing: Annotated[list[Number], Field(min_length=3, max_length=3)]
    previous_stage: Annotated[str | None, AfterValidator(_no_cascade)] = None
    preprocessor_name: Annotated[str, _runs("DefaultPreprocessor")] = "DefaultPreprocessor"
    resampling_fn_data: Annotated[str, _runs(RESAMPLER)] = RESAMPLER
    resampling_fn_probabilities: Annotated[str, _runs(RESAMPLER)] = RESAMPLER
    resampling_fn_data_kwargs: ResamplingArguments = ResamplingArguments()
    resampling_fn_probabilities_kwargs: ResamplingArguments = ResamplingArguments()


class NormArguments(Foreign):
    """Arguments of the norm."""

    eps: Number = 1e-5
    affine: StrictBool = False


class NonlinearityArguments(Foreign):
    """Arguments of the nonlinearity."""

    negative_slope: Number = 0.01


class NetworkArguments(Foreign):
    """Arguments of ``dynamic_network_architectures``' PlainConvUNet."""

    conv_op: Annotated[str, _runs("Conv3d")]
    norm_op: Annotated[str, _runs("InstanceNorm3d")]
    nonlin: Annotated[str, _runs("LeakyReLU")]
    n_stages: Annotated[Whole, Field(ge=2, le=MOST_STAGES)]
    features_per_stage: Annotated[list[Whole], _Few, _PerStage]
    kernel_sizes: Annotated[list[Axes], _Few, _PerStage]
    strides: Annotated[list[Axes], _Few, _PerStage]
    n_conv_per_stage: Annotated[list[Whole], _Few, _PerStage]
    n_conv_per_stage_decoder: Annotated[list[Whole], _Few, BeforeValidator(_per_decoder_stage)]
    conv_bias: StrictBool = False
    nonlin_first: StrictBool = False
    norm_op_kwargs: NormArguments | None = None
    nonlin_kwargs: NonlinearityArguments | None = None


class Network(Foreign):
    """A network as nnU-Net 2.3 and later names it."""

    network_class_name: Annotated[str, _runs("PlainConvUNet")]
    arch_kwargs: NetworkArguments


class NewConfiguration(Configuration):
    """A configuration of nnU-Net 2.3 and later."""

    architecture: Network

    def network(self) -> Architecture:
        """Return the network.

        Raises:
            ValueError: of a kind or a size that cfseg does not run.
        """
        kwargs = self.architecture.arch_kwargs
        norm = kwargs.norm_op_kwargs or NormArguments()
        if not norm.affine or kwargs.nonlin_first:
            raise ValueError("cfseg takes affine instance norm, before the nonlinearity")
        return Architecture.model_validate(
            {
                "features": kwargs.features_per_stage,
                "kernel_sizes": kwargs.kernel_sizes,
                "strides": kwargs.strides,
                "n_conv_encoder": kwargs.n_conv_per_stage,
                "n_conv_decoder": kwargs.n_conv_per_stage_decoder,
                "conv_bias": kwargs.conv_bias,
                "norm_eps": norm.eps,
                "negative_slope": (kwargs.nonlin_kwargs or NonlinearityArguments()).negative_slope,
            }
        )


class OldConfiguration(Configuration):
    """A configuration before nnU-Net 2.3, which names the network's parts one by one."""

    UNet_class_name: Annotated[str, _runs("PlainConvUNet")]
    UNet_base_num_features: Whole
    unet_max_num_features: Whole
    n_conv_per_stage_encoder: Annotated[list[Whole], _Few]
    n_conv_per_stage_decoder: Annotated[list[Whole], _Few]
    conv_kernel_sizes: Annotated[list[Axes], _Few]
    pool_op_kernel_sizes: Annotated[list[Axes], _Few]

    def network(self) -> Architecture:
        """Return the network.

        Raises:
            ValueError: of a size that cfseg does not run.
        """
        base, most = self.UNet_base_num_features, self.unet_max_num_features
        stages = range(len(self.n_conv_per_stage_encoder))
        return Architecture.model_validate(
            {
                "features": [min(base * 2**stage, most) for stage in stages],
                "kernel_sizes": self.conv_kernel_sizes,
                "strides": self.pool_op_kernel_sizes,
                "n_conv_encoder": self.n_conv_per_stage_encoder,
                "n_conv_decoder": self.n_conv_per_stage_decoder,
                "conv_bias": True,
            }
        )
