"""What training cost. No network is trained here."""

import json

from cfseg.learning import checkpoints
from cfseg.learning.run import Cost, State
from cfseg.learning.run import Epoch as Row
from cfseg.networks.operations import parameters, window_operations
from cfseg.plan import Architecture, Intensity, StagePlan
from cfseg.recipes.recipe import load
from cfseg.training.cost import last_state, network_cost, write_cost
from cfseg.training.trained import write_plan

PAPER = load("paper").training
COST = Cost(
    steps=1750, samples=3500, step_seconds=7000, feed_seconds=700, validation_seconds=150,
    saving_seconds=50, peak_mb=512.4, device="cuda", processes=2,
)  # fmt: skip


def plan(patch=(4, 8, 8)):
    return StagePlan(
        spacing_mm=(4, 2, 2),
        patch=patch,
        labels=(0, 1),
        intensity=Intensity(lower=-100, upper=200, mean=50, std=40),
        architecture=Architecture(
            features=(2, 3),
            kernel_sizes=((1, 3, 3), (3, 3, 3)),
            strides=((1, 1, 1), (1, 2, 2)),
            n_conv_encoder=(1, 1),
            n_conv_decoder=(1,),
        ),
    )


# By hand, for a patch of 4 x 8 x 8 = 256 voxels and 4 x 4 x 4 = 64 after the stride:
BY_HAND = (
    256 * 9 * 1 * 2  # encoder 1
    + 64 * 27 * 2 * 3  # encoder 2, strided
    + 64 * 4 * 3 * 2  # transposed 1 x 2 x 2, from 64 voxels
    + 256 * 9 * 4 * 2  # decoder, on both skip and upsampled
    + 256 * 2 * 2  # head
)


def write_network(folder, cost=COST, kind="final"):
    history = [Row(epoch=epoch, loss=1.0, lr=0.01, score=None) for epoch in range(1, 8)]
    state = State(step=cost.steps, history=history, cost=cost).model_dump(mode="json")
    values = {"settings": {"initial_lr": 0.01}, "state": state}
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.write(folder, kind, cost.steps, {}, values)
    write_plan(folder, plan())


def test_multiply_adds_as_counted_by_hand():
    assert window_operations(plan()) == 2 * BY_HAND
    assert window_operations(plan((8, 16, 16))) == 8 * 2 * BY_HAND


def test_parameters_as_counted_by_hand():
    convolutions = 9 * 2 + 27 * 2 * 3 + 4 * 3 * 2 + 9 * 4 * 2 + 2 * 2
    biases, norms = 2 + 3 + 2 + 2 + 2, 2 * (2 + 3 + 2)
    assert parameters(plan()) == convolutions + biases + norms


def test_nothing_is_known_of_a_network_whose_training_was_not_begun(tmp_path):
    assert last_state(tmp_path / "coarse_1") is None
    assert network_cost(tmp_path / "coarse_1", PAPER) is None


def test_the_newest_checkpoint_tells_what_a_network_cost_so_far(tmp_path):
    write_network(tmp_path / "n", COST.model_copy(update={"steps": 250}), "state")
    write_network(tmp_path / "n", COST.model_copy(update={"steps": 500}), "state")
    state, initial_lr = last_state(tmp_path / "n")
    assert (state.step, initial_lr) == (500, 0.01)
    write_network(tmp_path / "n")
    found = network_cost(tmp_path / "n", PAPER)
    assert (found.network, found.epochs, found.hours) == ("n", 7, 2.0)
    assert (found.batch, found.device, found.processes) == (2, "cuda", 2)
    assert (found.seconds_per_step, found.samples_per_second) == (4.0, 0.5)
    assert (found.feed_share, found.peak_mb) == (0.1, 512.4)


def test_the_table_has_a_column_for_each_network_that_was_begun(tmp_path):
    training = PAPER.model_copy(update={"power_watts": 300.0, "co2_g_per_kwh": 500.0})
    folders = [tmp_path / "networks" / name for name in ("coarse_1", "tumor_2", "organ_1")]
    for folder in folders[:2]:
        write_network(folder)
    text = write_cost(tmp_path, folders, training)
    found = json.loads((tmp_path / "cost.json").read_text())
    assert [network["network"] for network in found["networks"]] == ["coarse_1", "tumor_2"]
    first = found["networks"][0]
    assert first["multiply_adds"] == BY_HAND
    assert (first["hours"], first["energy_kwh"], first["co2_g"]) == (2.0, 0.6, 300.0)
    for row in (
        "| Learning rate schedule | halved every 200 epochs | halved every 200 epochs |",
        "| Initial learning rate | 0.01 | 0.01 |",
        "| Patch size | 4x8x8 | 4x8x8 |",
        "| Seconds per step | 4 | 4 |",
        "| Waiting for windows | 10% | 10% |",
        "| Peak memory, MB | 512 (cuda) | 512 (cuda) |",
        "| CO2, g | 300 | 300 |",
    ):
        assert row in text
    assert (tmp_path / "cost.md").read_text() == text
    assert "CUDA version" in found["environment"]


def test_a_workspace_without_networks_has_an_empty_table(tmp_path):
    write_cost(tmp_path, [tmp_path / "networks" / "coarse_1"], PAPER)
    assert json.loads((tmp_path / "cost.json").read_text())["networks"] == []
