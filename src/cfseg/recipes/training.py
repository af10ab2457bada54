"""How the networks of a recipe are planned and trained: its ``[training]`` table."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cfseg.plan import MOST_STAGES, Convolutions, Features, Frozen, Hu, Patch, SpacingMm, Stride

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0, le=10**9)]
_MOST = Field(max_length=MOST_STAGES)
OWN_KEYS = (
    "batch_dice", "oversample_foreground", "rare_label_exponent", "hard_voxels", "initial_lr",
)  # fmt: skip
"""Of what the stages share, that which a stage may have of its own."""
Precision = Literal["auto", "fp32", "bf16"]
ORGAN_LABELS = ("coarse", "tumor", "teacher")
"""Networks of the chain that the organ model's labels may come from."""


class StageTraining(Frozen):
    """How one network is planned and trained.

    Attributes:
        epochs: passes of ``iterations_per_epoch`` batches.
        patch: (z, y, x) voxels.
        spacing_mm: (z, y, x); None takes the plan that nnU-Net makes from the data.
        features: channels per stage; None takes nnU-Net's plan of the whole network.
        strides: (z, y, x) of each stage where features are given; None halves every axis from the
            second stage on.
        n_conv_encoder: convolutions per encoder stage.
        n_conv_decoder: convolutions per decoder stage.
        weights: how many networks are trained from different random initializations.
        tumor_focus: share of the windows centered on a label that are centered on a tumor; the
            others take any label, as in nnU-Net.
        batch_dice: this stage's own, in place of what all stages share.
        oversample_foreground: this stage's own, in place of what all stages share.
        tumor_dice_weight: how often the tumor counts in the mean of the Dice loss over the labels,
            of which each other counts once; of the tumor model alone.
        rare_label_exponent: this stage's own, in place of what all stages share.
        hard_voxels: this stage's own, in place of what all stages share.
        initial_lr: this stage's own, in place of what all stages share.
        window_hu: lowest and highest HU that it sees and by which it normalizes; None takes the
            0.5 and 99.5 percentiles of the labelled voxels, as nnU-Net does. Air in the stomach
            makes those wide, and a tumor faint.
        start: the weights that it starts from: ``random`` ones as in the paper, or those of the
            ``coarse`` or the first ``tumor`` model, which has to be built alike.
    """

    epochs: Count
    patch: Patch
    spacing_mm: SpacingMm | None = None
    features: Annotated[tuple[Features, ...], _MOST] | None = None
    strides: Annotated[tuple[Stride, ...], _MOST] | None = None
    n_conv_encoder: Convolutions | Annotated[tuple[Convolutions, ...], _MOST] = 2
    n_conv_decoder: Convolutions | Annotated[tuple[Convolutions, ...], _MOST] = 2
    weights: Annotated[int, Field(gt=0, le=2)] = 1
    tumor_focus: Annotated[float, Field(ge=0, le=1)] = 0.0
    batch_dice: bool | None = None
    oversample_foreground: Annotated[float, Field(ge=0, le=1)] | None = None
    tumor_dice_weight: Annotated[float, Field(ge=1)] = 1.0
    rare_label_exponent: Annotated[float, Field(ge=0, le=1)] | None = None
    hard_voxels: Fraction | None = None
    initial_lr: Annotated[float, Field(gt=0)] | None = None
    window_hu: tuple[Hu, Hu] | None = None
    start: Literal["random", "coarse", "tumor"] = "random"

    @field_validator("window_hu")
    @classmethod
    def _window_is_open(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and not window[0] < window[1]:
            raise ValueError(f"{list(window)}: give the lower HU first")
        return window


class Teacher(StageTraining):
    """The network that labels organs for the organ model, round by round (FLARE22's winner).

    Round 1 learns from the cases with all organs (without any, from all cases); each later round
    learns from all cases, with the labels of the round before. The label maps that change most in
    the last round are left out.

    Attributes:
        rounds: how often it is trained and labels all cases.
        drop_fraction: share of the pseudo-labelled cases that the organ model does not learn
            from: those with the most changed voxels per labelled voxel between the last rounds.
    """

    rounds: Annotated[int, Field(ge=1, le=9)] = 2
    drop_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.038


class Learning(Frozen):
    """What moves the weights of a network, whatever it learns from (paper 3.2, Table 2).

    Attributes:
        optimizer: ``sgd`` with Nesterov momentum, or ``adamw``.
        initial_lr: learning rate at the start, after ``warmup_epochs``.
        momentum: of SGD.
        weight_decay: of the optimizer.
        lr_schedule: ``halve`` halves every ``lr_halve_epochs``; ``poly`` is nnU-Net's;
            ``cosine`` falls to nothing along half a wave.
        lr_halve_epochs: see above.
        warmup_epochs: the rate rises linearly over so many epochs.
        batch_dice: the Dice loss counts a batch as one scan, instead of each window by itself.
        hard_voxels: share of a window's voxels that count in the cross-entropy, those that are
            hardest to tell; 1 is nnU-Net's, all of them.
        ema: decay of a moving average of the weights, which is validated and kept in their place;
            0 is nnU-Net's, none.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    initial_lr: Annotated[float, Field(gt=0)] = 0.01
    momentum: Fraction = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 3e-5
    lr_schedule: Literal["halve", "poly", "cosine"] = "halve"
    lr_halve_epochs: Count = 200
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    batch_dice: bool = False
    hard_voxels: Fraction = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Training(Learning):
    """How the networks of a recipe are trained (paper 3.2, Table 2).

    Attributes:
        seed: of splits and initializations.
        batch_size: windows per step.
        iterations_per_epoch: optimizer steps in an epoch.
        validation_cases: whole cases that a network is judged by, of those that are held out.
        mirror: mirror along all axes as augmentation.
        elastic_probability: of an elastic deformation as augmentation.
        rare_label_exponent: the cross-entropy weighs a label by the inverse of its share of the
            voxels, to this power; 0 is nnU-Net's, all labels alike.
        oversample_foreground: share of windows centered on a labelled voxel.
        phantom_share: share of the windows that are of phantoms, which are made meanwhile.
        map_share: share of the windows that are rendered from atlases, real anatomies without
            a scan.
        empty_share: share of those that show no abdomen, so that no organ is found where none is.
        cpu_precision: of the network's arithmetic on a CPU; ``bf16`` is nearly twice as fast where
            the CPU has instructions for it and is refused where it has none, ``auto`` takes it
            where it has them, else ``fp32``. Weights and losses stay fp32. On a GPU it is fp16
            with scaled losses, as in nnU-Net.
        save_every_epochs: how often a checkpoint to go on from is written.
        save_every_minutes: and at the latest after so long, in the middle of an epoch too.
        keep_every_epochs: how often a network is validated on whole cases; the best weights are
            kept for the selection at the end.
        keep_at_most: how many kept weights the selection compares; the best by validation stay.
        validation_fraction: share of the cases held out for validation.
        checkpoint: which weights go on: the ``best`` on the validation cases by the stage's own
            measure (organs; for the tumor model, tumor), or the ``final`` ones.
        coarse_cases: the coarse model learns from the cases without tumor that have ``full``
            organ labels (the paper's group 6), or from all that have ``all_organs``.
        tumor_cases: the tumor model learns from the cases with annotated ``tumor`` (the paper's
            group 4), or also from those of which it is ``known`` that they have none.
        pseudo_label_step: distance between windows when the coarse model labels cases.
        organ_labels: where the organ model's labels come from: the ``coarse`` model, the ``tumor``
            model (its first weight; the best of its organs where it sees a tumor), the ``teacher``,
            or a folder with a label map ``CASE.nii.gz`` of another method.
        z_margin_slices: slices kept beyond the labelled ones when training scans are cropped.
        coarse: the coarse model.
        tumor: the tumor model.
        organ: the organ model.
        teacher: of organ labels, where ``organ_labels`` asks for one.
        power_watts: of the machine under load, for the energy of training.
        co2_g_per_kwh: of the electricity, for the emissions of training.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    batch_size: Count = 2
    iterations_per_epoch: Count = 250
    validation_cases: Count = 50
    mirror: bool = False
    elastic_probability: Annotated[float, Field(ge=0, le=1)] = 0.2
    rare_label_exponent: Annotated[float, Field(ge=0, le=1)] = 0.0
    oversample_foreground: Annotated[float, Field(ge=0, le=1)] = 0.33
    phantom_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    map_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    empty_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    cpu_precision: Precision = "fp32"
    save_every_epochs: Count = 1
    save_every_minutes: Annotated[float, Field(gt=0)] = 10.0
    keep_every_epochs: Count = 50
    keep_at_most: Count = 5
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    checkpoint: Literal["best", "final"] = "best"
    coarse_cases: Literal["full", "all_organs"] = "full"
    tumor_cases: Literal["tumor", "known"] = "tumor"
    pseudo_label_step: Fraction = 0.5
    organ_labels: Annotated[str, Field(min_length=1)] = "coarse"
    z_margin_slices: Annotated[int, Field(ge=0)] = 10
    coarse: StageTraining
    tumor: StageTraining
    organ: StageTraining
    teacher: Teacher | None = None
    power_watts: Annotated[float, Field(gt=0)] = 285.0
    co2_g_per_kwh: Annotated[float, Field(gt=0)] = 475.0

    def of(self, stage: StageTraining) -> Self:
        """Return these values with a stage's own in place of the shared ones."""
        own = {key: getattr(stage, key) for key in OWN_KEYS}
        return self.model_copy(update={k: v for k, v in own.items() if v is not None})

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.phantom_share + self.map_share > 1:
            raise ValueError(
                f"training.phantom_share {self.phantom_share:g} and training.map_share "
                f"{self.map_share:g} are more than all windows"
            )
        return self

    @model_validator(mode="after")
    def _starts_from_one_before_it(self) -> Self:
        later = {"coarse": ("coarse", "tumor"), "tumor": ("tumor",)}
        for name, unknown in later.items():
            start = getattr(self, name).start
            if start in unknown:
                raise ValueError(
                    f"training.{name}.start: the {name} model cannot start from the {start} model, "
                    "which is not trained before it"
                )
        return self

    @model_validator(mode="after")
    def _only_tumor_models_weigh_tumors(self) -> Self:
        for name in ("coarse", "organ", "teacher"):
            stage: StageTraining | None = getattr(self, name)
            if stage is not None and stage.tumor_dice_weight != 1:
                raise ValueError(
                    f"training.{name}.tumor_dice_weight: this network has no tumors to weigh; "
                    "only training.tumor may have it"
                )
        return self

    @model_validator(mode="after")
    def _teacher_is_described(self) -> Self:
        if self.organ_labels == "teacher" and self.teacher is None:
            raise ValueError("organ_labels is 'teacher', so a [training.teacher] table is needed")
        return self
