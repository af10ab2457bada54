import re
import tomllib
from importlib import resources

import pytest

from cfseg.errors import UsageError
from cfseg.labels import ORGAN_IDS
from cfseg.recipes.recipe import Recipe, load, names

PAPER = load("paper")
AUTHORS = load("authors")


def text(name: str) -> str:
    return resources.files("cfseg.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_is_valid_and_bears_its_name(name):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description


def test_the_papers_and_the_authors_recipes_are_shipped():
    assert {"paper", "authors", "demo"} <= set(names())


def test_paper_holds_table_2():
    training = PAPER.training
    columns = {
        "coarse": ((64, 160, 224), 1500),
        "tumor": ((96, 128, 192), 2500),
        "organ": ((96, 160, 192), 2000),
    }
    found = {
        role: (getattr(training, role).patch, getattr(training, role).epochs) for role in columns
    }
    assert found == columns
    assert training.batch_size == 2
    assert (training.optimizer, training.momentum, training.initial_lr) == ("sgd", 0.99, 0.01)
    assert (training.lr_schedule, training.lr_halve_epochs) == ("halve", 200)


def test_paper_holds_sections_2_1_and_2_2_of_training():
    training = PAPER.training
    assert training.z_margin_slices == 10
    assert training.validation_fraction == 0.2
    assert training.tumor.weights == 2
    assert training.coarse.weights == training.organ.weights == 1
    assert training.coarse_cases == "full"
    assert not training.mirror
    assert training.elastic_probability > 0
    # "the median voxel spacing of the training dataset": what nnU-Net plans from the data
    assert (
        training.coarse.spacing_mm is training.tumor.spacing_mm is training.organ.spacing_mm is None
    )


def test_paper_holds_sections_2_2_and_2_3_of_inference():
    cascade = PAPER.cascade
    assert cascade.stages == ("coarse", "tumor", "organ")
    assert (cascade.gaussian, cascade.mirror, cascade.decoder_stop) == (False, False, 0)
    assert cascade.region.ignore == ()
    assert cascade.region.centroid_mm is None
    assert cascade.clean.labels == ORGAN_IDS
    assert cascade.clean.rule == "centroid"


GIVEN = {
    "stages", "gaussian", "mirror", "ignore", "labels", "rule", "batch_size", "optimizer",
    "initial_lr", "momentum", "lr_schedule", "lr_halve_epochs", "validation_fraction",
    "coarse_cases", "organ_labels", "z_margin_slices", "epochs", "patch", "weights",
    "keep_every_epochs", "checkpoint", "min_tumor_ml",
}  # fmt: skip


def test_what_the_paper_does_not_give_is_marked():
    own, _, teacher = text("paper").partition("[cascade]")[2].partition("[training.teacher]")
    values = [line for line in own.splitlines() if re.match(r"\w+ = ", line)]
    assert len(values) > 40
    for line in values:
        assert (line.split(" = ")[0] in GIVEN) != ("not in the paper" in line), line
    teachers = [line for line in teacher.splitlines() if re.match(r"\w+ = ", line)]
    assert len(teachers) > 5
    assert all("not in the paper" in line for line in teachers)


def test_paper_says_every_value_that_a_cascade_has():
    def keys(table, prefix=""):
        for key, value in table.items():
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    written = set(keys(tomllib.loads(text("paper"))["cascade"]))
    known = set(keys(PAPER.cascade.model_dump()))
    assert known - written == {"region.centroid_mm"}  # TOML has no null


def test_authors_holds_the_released_codes_cascade():
    cascade = AUTHORS.cascade
    assert (cascade.step.coarse, cascade.step.tumor, cascade.step.organ) == (1.0, 0.5, 0.5)
    assert (cascade.gaussian, cascade.mirror, cascade.decoder_stop) == (False, False, 2)
    assert cascade.region.margin_mm == 20
    assert cascade.region.ignore == (7, 8, 12)
    assert (cascade.merge.tumor, cascade.clean.rule) == ("union", "largest")
    assert cascade.clean.labels == (1, 2, 3, 4, 5, 6, 9, 10, 11, 13)


def test_authors_centroid_is_170_thirds_of_a_coarse_voxel():
    spacing_mm = AUTHORS.v1.networks[0].spacing_mm
    assert AUTHORS.cascade.region.centroid_mm == pytest.approx([170 / 3 * mm for mm in spacing_mm])


def test_authors_tells_what_the_published_files_do_not():
    networks = {n.file: n for n in AUTHORS.v1.networks}
    assert [(n.role, n.patch, len(n.labels)) for n in networks.values()] == [
        ("coarse", (64, 160, 224), 14),
        ("tumor", (96, 160, 192), 15),
        ("tumor", (96, 128, 192), 15),
        ("organ", (64, 160, 224), 14),
    ]
    assert {n.intensity.clamp_hu for n in networks.values()} == {(-325, 325)}
    intensities = {
        f: tuple(n.intensity.model_dump(exclude={"clamp_hu"}).values()) for f, n in networks.items()
    }
    assert intensities == {
        "coarse_model.pth": (-325, 266, 59.284187, 83.43879),
        "tumor_model_1.pth": (-325, 273, 86.59582, 81.018715),
        "tumor_model_2.pth": (-325, 273, 86.59582, 81.018715),
        "organ_model.pth": (-325, 267, 70.34444, 82.539795),
    }
    spacings = [n.spacing_mm for n in networks.values()]
    expected = [
        (2.3009669, 1.26433326, 1.26433326),
        (1.76326792, 1.43954253, 1.43954253),
        (1.76326792, 1.43954253, 1.43954253),
        (2.5, 1.25834116, 1.25834116),
    ]
    for found, mm in zip(spacings, expected, strict=True):
        assert found == pytest.approx(mm, abs=1e-8)


@pytest.mark.parametrize(
    "override",
    [
        "cascade.step.coarse=0",
        "cascade.decoder_stop=3",
        "cascade.merge.tumor=intersection",
        "cascade.clean.labels=[14]",
        "cascade.surprise=1",
        "v1.networks=[]",
        "v1.resampling.order=9",
    ],
)
def test_a_value_out_of_range_is_refused(override):
    with pytest.raises(UsageError, match=override.partition("=")[0].split(".")[-1]):
        load("authors", (override,))


def test_a_recipe_needs_no_more_than_a_name():
    assert Recipe(name="mine").cascade.stages == ("coarse", "tumor", "organ")


@pytest.mark.parametrize("name", ["paper", "paper-small"])
def test_the_papers_tumor_model_has_its_cases_and_nnunets_loss(name):
    training = load(name).training
    assert training.tumor_cases == "tumor"  # group 4
    for stage in (training.coarse, training.tumor, training.organ, training.teacher):
        assert training.of(stage).hard_voxels == 1.0
        assert (stage.tumor_dice_weight, stage.tumor_focus) == (1.0, 0.0)


@pytest.mark.parametrize("stage", ["coarse", "organ", "teacher"])
def test_only_the_tumor_model_can_weigh_tumors(stage):
    weight = "tumor_dice_weight=4"
    assert load("paper", (f"training.tumor.{weight}",)).training.tumor.tumor_dice_weight == 4
    with pytest.raises(UsageError, match=f"training.{stage}.tumor_dice_weight"):
        load("paper", (f"training.{stage}.{weight}",))


@pytest.mark.parametrize(
    ("stage", "start"), [("coarse", "coarse"), ("coarse", "tumor"), ("tumor", "tumor")]
)
def test_a_model_cannot_start_from_one_that_is_trained_later(stage, start):
    assert load("paper", (f"training.organ.start={start}",)).training.organ.start == start
    with pytest.raises(UsageError, match=f"{stage} model cannot start from the {start} model"):
        load("paper", (f"training.{stage}.start={start}",))


SCALED = {"patch", "features", "strides", "spacing_mm", "epochs"}
SCALED_SHARED = {
    "iterations_per_epoch", "validation_cases", "lr_halve_epochs",
    "keep_every_epochs", "cpu_precision",
}  # fmt: skip


def test_paper_small_differs_from_paper_in_size_alone():
    small, paper = load("paper-small"), PAPER
    assert small.cascade == paper.cascade
    stages = {"coarse", "tumor", "organ", "teacher"}
    assert small.training.model_dump(exclude=SCALED_SHARED | stages) == paper.training.model_dump(
        exclude=SCALED_SHARED | stages
    )
    for name in stages:
        ours, theirs = getattr(small.training, name), getattr(paper.training, name)
        assert ours.model_dump(exclude=SCALED) == theirs.model_dump(exclude=SCALED)


def test_paper_small_scales_all_intervals_alike():
    small, paper = load("paper-small").training, PAPER.training
    ratios = {
        getattr(paper, stage).epochs / getattr(small, stage).epochs
        for stage in ("coarse", "tumor", "organ")
    }
    ratios |= {
        paper.lr_halve_epochs / small.lr_halve_epochs,
        paper.keep_every_epochs / small.keep_every_epochs,
    }
    assert ratios == {25}


def test_a_teacher_has_to_be_described():
    with pytest.raises(UsageError, match="needed"):
        load("demo", ("training.organ_labels=teacher",))


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("cascade.region.margin=3", "cascade.region.margin_mm"),
        ("training.organ.epoch=3", "training.organ.epochs"),
    ],
)
def test_a_wrong_key_is_answered_with_the_right_one(override, hint):
    with pytest.raises(UsageError, match=f"there is no key .* did you mean .*{hint}"):
        load("demo", (override,))
