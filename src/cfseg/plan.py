"""What predicting needs of an nnU-Net plan: the grid, the intensities, the network. No torch.

A :class:`StagePlan` is what the bundle stores for each stage. It is read from nnU-Net v2 plans
(old and new format) or from the published values of an nnU-Net v1 model; see ``cfseg.bundle``.
"""

from math import prod
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cfseg.geometry import Triple, TripleMm
from cfseg.labels import LABELS

Role = Literal["coarse", "tumor", "organ"]
ROLES: tuple[Role, ...] = ("coarse", "tumor", "organ")

PositiveMm = Annotated[float, Field(gt=0)]


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"a kernel of {size}; an even one shifts the image")
    return size


# A plan may come from anybody. These limits lie far beyond what nnU-Net plans, and a network within
# them is described, and refused if need be, without a tensor.
MOST_STAGES = 12
MOST_VOXELS = 512**3
"""Of a patch."""
Features = Annotated[int, Field(gt=0, le=4096)]
Convolutions = Annotated[int, Field(gt=0, le=32)]
Hu = Annotated[float, Field(ge=-1e5, le=1e5)]
_Side = Annotated[int, Field(gt=0, le=2048)]
_Size = Annotated[int, Field(gt=0, le=31), AfterValidator(_odd)]
_Stride = Annotated[int, Field(gt=0, le=16)]
_GridMm = Annotated[float, Field(ge=0.01, le=100)]
Patch = tuple[_Side, _Side, _Side]
Kernel = tuple[_Size, _Size, _Size]
Stride = tuple[_Stride, _Stride, _Stride]
SpacingMm = tuple[_GridMm, _GridMm, _GridMm]


class Frozen(BaseModel):
    """Base of all stored values: unknown keys are refused, values are finite and cannot change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Intensity(Frozen):
    """Clip and z-score of a CT, from the fingerprint of the training set (paper 2.1).

    Attributes:
        lower: 0.5th percentile of the foreground, HU; lower values are clipped to it.
        upper: 99.5th percentile of the foreground, HU.
        mean: of the foreground, HU.
        std: of the foreground, HU.
        clamp_hu: limits to which the whole scan is clamped as it is read; None for air alone.
            The authors' released code clamps to +-325 HU.
    """

    lower: Hu
    upper: Hu
    mean: Hu
    std: Annotated[Hu, Field(gt=0)]
    clamp_hu: tuple[Hu, Hu] | None = None

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(f"lower {self.lower} HU is not below upper {self.upper} HU")
        if self.clamp_hu is not None and self.clamp_hu[0] >= self.clamp_hu[1]:
            raise ValueError("clamp_hu is [lower, upper] with lower < upper")
        return self


class Resampling(Frozen):
    """How images get to the network's grid and logits come back from it.

    Attributes:
        method: ``spline`` as nnU-Net does it (voxel edges aligned); ``trilinear`` as the paper's
            authors do it in their released code (voxel centres of the corners aligned).
        normalize_first: nnU-Net v2 normalizes before it resamples, v1 and the authors after.
        order: spline order for images.
        order_z: order along the coarse axis where that is treated apart.
        logits_order: order for the logits.
        logits_order_z: the same along the coarse axis where that is treated apart.
        separate_z: treat the coarse axis apart always, never, or (None) when the spacing is
            more anisotropic than ``anisotropy_threshold``.
        anisotropy_threshold: largest spacing divided by the smallest.
    """

    method: Literal["spline", "trilinear"] = "spline"
    normalize_first: bool = True
    order: Annotated[int, Field(ge=0, le=5)] = 3
    order_z: Annotated[int, Field(ge=0, le=5)] = 0
    logits_order: Annotated[int, Field(ge=0, le=5)] = 1
    logits_order_z: Annotated[int, Field(ge=0, le=5)] = 0
    separate_z: bool | None = None
    anisotropy_threshold: Annotated[float, Field(gt=0)] = 3.0


class Architecture(Frozen):
    """A plain U-Net with instance norm and leaky ReLU, as nnU-Net plans it.

    Attributes:
        features: channels of each encoder stage.
        kernel_sizes: (z, y, x) of each stage.
        strides: (z, y, x) of each stage's first convolution.
        n_conv_encoder: convolutions of each encoder stage.
        n_conv_decoder: convolutions of each decoder stage, one fewer than stages.
        conv_bias: convolutions have a bias.
        norm_eps: epsilon of the instance norm.
        negative_slope: of the leaky ReLU.
    """

    features: tuple[Features, ...]
    kernel_sizes: tuple[Kernel, ...]
    strides: tuple[Stride, ...]
    n_conv_encoder: tuple[Convolutions, ...]
    n_conv_decoder: tuple[Convolutions, ...]
    conv_bias: bool = True
    norm_eps: Annotated[float, Field(ge=0, le=1)] = 1e-5
    negative_slope: Annotated[float, Field(ge=0, le=1)] = 0.01

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        stages = len(self.features)
        per_stage = (self.kernel_sizes, self.strides, self.n_conv_encoder)
        if not 2 <= stages <= MOST_STAGES:
            raise ValueError(f"{stages} stages; a network has 2 to {MOST_STAGES}")
        if any(len(v) != stages for v in per_stage):
            raise ValueError(f"features, kernels, strides and convs must all have {stages} entries")
        if len(self.n_conv_decoder) != stages - 1:
            raise ValueError(f"a decoder of {stages} stages has {stages - 1} entries")
        if self.strides[0] != (1, 1, 1):
            raise ValueError("the first stage has a stride; its logits would not fill the window")
        return self

    @property
    def downsampling(self) -> Triple:
        """Product of the strides: a patch must be a multiple of it along (z, y, x)."""
        z = y = x = 1
        for stride in self.strides:
            z, y, x = z * stride[0], y * stride[1], x * stride[2]
        return z, y, x


class StagePlan(Frozen):
    """Everything but the weights that one stage of the cascade needs.

    Attributes:
        spacing_mm: the network's grid, (z, y, x).
        patch: size of a window in voxels, (z, y, x).
        labels: FLARE id of each output channel; the first is 0, the background.
        architecture: the network.
        intensity: clip and z-score.
        resampling: to the network's grid and back.
        transpose: nnU-Net's ``transpose_forward`` of the (z, y, x) axes; spacing and patch are
            given in transposed order, as nnU-Net stores them.
        deep_supervision: the heads' training weights, finest first; empty if unknown.
    """

    spacing_mm: SpacingMm
    patch: Patch
    labels: tuple[Annotated[int, Field(ge=0, le=len(LABELS))], ...]
    architecture: Architecture
    intensity: Intensity
    resampling: Resampling = Resampling()
    transpose: tuple[int, int, int] = (0, 1, 2)
    deep_supervision: Annotated[tuple[float, ...], Field(max_length=MOST_STAGES)] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.labels) < 2 or self.labels[0] != 0 or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must start with 0 and name every label once")
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError("transpose must be a permutation of 0, 1, 2")
        if prod(self.patch) > MOST_VOXELS:
            raise ValueError(f"a patch of {self.patch} is more than {MOST_VOXELS} voxels")
        down = self.architecture.downsampling
        if any(side % factor for side, factor in zip(self.patch, down, strict=True)):
            raise ValueError(f"a patch of {self.patch} is not a multiple of the strides {down}")
        return self

    @property
    def original_spacing_mm(self) -> TripleMm:
        """The network's spacing in the order of the volume's own (z, y, x) axes."""
        back = [self.transpose.index(axis) for axis in range(3)]
        z, y, x = (self.spacing_mm[b] for b in back)
        return z, y, x
