"""What decides a step: each key of a recipe has its place, and a new one cannot be forgotten."""

import json

import pytest

import tiny_cohort
from cfseg.dataset.cases import read_cases
from cfseg.plan import ROLES
from cfseg.recipes.recipe import load
from cfseg.recipes.training import StageTraining, Teacher, Training
from cfseg.training.inputs import CHAIN_KEYS, DATA_KEYS, LATER_KEYS, PLAN_KEYS, stage_inputs

LOOP_KEYS = {
    "optimizer", "initial_lr", "momentum", "weight_decay", "lr_schedule", "lr_halve_epochs",
    "warmup_epochs", "batch_dice", "hard_voxels", "batch_size", "iterations_per_epoch",
    "validation_cases", "mirror", "elastic_probability", "rare_label_exponent",
    "oversample_foreground", "phantom_share", "map_share", "empty_share", "ema",
    "cpu_precision", "keep_every_epochs",
}  # fmt: skip
"""Of what the stages share, that which decides how a network learns from its data, and for how
long."""
STAGE_LOOP_KEYS = {
    "epochs", "tumor_focus", "batch_dice", "oversample_foreground", "tumor_dice_weight",
    "rare_label_exponent", "hard_voxels",
}  # fmt: skip
"""The same of what is a stage's own."""
TRAINING = load("paper").training
TABLES = {*ROLES, "teacher"}


def other(value):
    if isinstance(value, tuple):
        return (*value[:-1], other(value[-1]))
    return "another" if value is None or isinstance(value, str) else value + 1


def inputs(shared=(), own=()):
    """Return data and network of the teacher, which has all keys, with some changed."""
    stage = TRAINING.teacher
    stage = stage.model_copy(update={k: other(getattr(stage, k)) for k in own})
    changed = {k: other(getattr(TRAINING, k)) for k in shared}
    found = stage_inputs(TRAINING.model_copy(update=changed), stage, [])
    return found["data"], found["network"]


def test_every_key_of_a_recipe_has_one_place():
    shared = [*DATA_KEYS, *LATER_KEYS, *LOOP_KEYS, *TABLES]
    assert sorted(shared) == sorted(Training.model_fields)
    own = [*PLAN_KEYS, *CHAIN_KEYS, *STAGE_LOOP_KEYS]
    assert sorted(own) == sorted({*StageTraining.model_fields, *Teacher.model_fields})


pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # see other()


@pytest.mark.parametrize("key", DATA_KEYS)
def test_what_decides_the_data_decides_the_network(key):
    before, after = inputs(), inputs(shared=[key])
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("key", PLAN_KEYS)
def test_what_decides_the_plan_decides_data_and_network(key):
    before, after = inputs(), inputs(own=[key])
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("key", sorted(LOOP_KEYS))
def test_how_networks_learn_leaves_their_data_as_they_are(key):
    before, after = inputs(), inputs(shared=[key])
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("key", [*sorted(STAGE_LOOP_KEYS), "initial_lr"])
def test_how_a_stage_learns_leaves_its_data_as_they_are(key):
    before, after = inputs(), inputs(own=[key])
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_what_comes_later_leaves_a_network_as_it_is():
    assert inputs(shared=LATER_KEYS) == inputs()
    assert inputs(own=set(CHAIN_KEYS) - {"initial_lr"}) == inputs()


def test_a_rate_of_a_stages_own_that_is_the_shared_one_changes_nothing():
    stage = TRAINING.organ.model_copy(update={"initial_lr": TRAINING.initial_lr})
    assert stage_inputs(TRAINING, stage, []) == stage_inputs(TRAINING, TRAINING.organ, [])


def test_cases_and_their_labels_decide_the_data(tmp_path):
    cases = read_cases(tiny_cohort.write(tmp_path))
    some = stage_inputs(TRAINING, TRAINING.organ, cases[:3])
    assert some != stage_inputs(TRAINING, TRAINING.organ, cases[:4])
    labelled = stage_inputs(TRAINING, TRAINING.organ, cases[:3], {"teacher": "x"})
    assert labelled["data"] != some["data"]
    assert labelled["network"] != some["network"]


def test_the_value_of_unknown_voxels_decides_the_data(tmp_path):
    dataset = tiny_cohort.write(tmp_path)
    before = stage_inputs(TRAINING, TRAINING.organ, read_cases(dataset))
    manifest = dataset / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"ignore": 200}))
    after = stage_inputs(TRAINING, TRAINING.organ, read_cases(dataset))
    assert before["data"] != after["data"]
    assert before["network"] != after["network"]
