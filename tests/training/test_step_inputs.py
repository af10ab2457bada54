"""What decides a step: a key that came later leaves what was trained before it as it is."""

import pytest

from cfseg.recipes.recipe import load
from cfseg.training.inputs import NEW_STAGE_KEYS, stage_inputs


def names(value):
    for key, inner in value.items():
        yield key
        if isinstance(inner, dict):
            yield from names(inner)


@pytest.mark.parametrize("recipe", ["paper", "paper-small"])
def test_new_keys_count_only_where_they_differ(recipe):
    training = load(recipe).training
    before = stage_inputs(training, training.tumor, [])
    new = {*NEW_STAGE_KEYS, "tumor_cases"} - {"batch_dice"}
    assert not {*names(before)} & new
    assert "batch_dice" not in before["network"]["stage"]
    assert {"rare_label_exponent", "tumor_focus", "epochs"} <= {*names(before)}
    for update in ({"tumor_dice_weight": 2.0}, {"hard_voxels": 0.5}):
        stage = training.tumor.model_copy(update=update)
        after = stage_inputs(training, stage, [])
        assert after["data"] == before["data"]
        assert after["network"]["stage"] == before["network"]["stage"] | update
    shared = training.model_copy(update={"hard_voxels": 0.5})
    assert stage_inputs(shared, training.tumor, [])["network"]["shared"]["hard_voxels"] == 0.5


def test_a_stage_with_a_batch_dice_of_its_own_is_other_data():
    training = load("paper-small").training
    own = stage_inputs(training, training.tumor.model_copy(update={"batch_dice": True}), [])
    assert own["data"]["batch_dice"] is True
    assert stage_inputs(training, training.tumor, [])["data"]["batch_dice"] is False
