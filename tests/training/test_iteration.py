"""T05: a step whose loss is no number is left out, and not for ever."""

import copy

import pytest
import torch

from cfseg.errors import ModelError
from cfseg.training.iteration import MOST_IN_A_ROW, Skipped, learn

CPU = torch.device("cpu")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


def step(network, optimizer, batch, loss_of=torch.nn.functional.mse_loss):
    return learn(network, loss_of, optimizer, None, batch, CPU)


def test_a_step_is_the_plain_one_with_clipped_gradients(network):
    other = copy.deepcopy(network)
    batch = {"data": torch.full((2, 3), 40.0), "target": torch.zeros(2, 1)}
    ours = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    theirs = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        loss, finite = step(network, ours, batch)
        theirs.zero_grad()
        expected = torch.nn.functional.mse_loss(other(batch["data"]), batch["target"])
        expected.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in other.parameters()))
        for parameter in other.parameters():
            parameter.grad *= min(1.0, 12.0 / float(norm))
        theirs.step()
        assert finite
        assert loss == pytest.approx(float(expected.detach()))
        for a, b in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_and_momentum_outlive_a_step_that_is_none(network, value):
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    good = {"data": torch.ones(2, 3), "target": torch.zeros(2, 1)}
    step(network, optimizer, good)
    before = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    _, finite = step(network, optimizer, good | {"data": torch.full((2, 3), value)})
    assert not finite
    after = (network.state_dict(), optimizer.state_dict())
    for a, b in zip(before[0].values(), after[0].values(), strict=True):
        assert torch.equal(a, b)
    for key, state in before[1]["state"].items():
        assert torch.equal(state["momentum_buffer"], after[1]["state"][key]["momentum_buffer"])
    assert step(network, optimizer, good)[1]


def test_a_finite_loss_with_endless_gradients_is_no_step(network):
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    batch = {"data": torch.ones(2, 3), "target": torch.zeros(2, 1)}
    loss, finite = step(network, optimizer, batch, lambda a, _: torch.sqrt((a * 0).abs()).sum())
    assert loss == 0
    assert not finite
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_targets_of_several_resolutions(network):
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    batch = {"data": torch.ones(2, 3), "target": [torch.zeros(2, 1), torch.ones(2, 1)]}
    loss, finite = step(
        network, optimizer, batch, lambda out, levels: ((out - levels[1]) ** 2).sum()
    )
    assert finite
    assert loss > 0


def test_twenty_in_a_row_end_it_with_advice_and_fewer_do_not():
    skipped = Skipped()
    assert skipped.note(False, "organ_1")
    for _ in range(MOST_IN_A_ROW - 2):
        assert not skipped.note(False, "organ_1")
    assert not skipped.note(True, "organ_1")
    for _ in range(MOST_IN_A_ROW - 1):
        skipped.note(False, "organ_1")
    with pytest.raises(ModelError, match=r"organ_1: .*20 steps.*initial_lr") as caught:
        skipped.note(False, "organ_1")
    assert (caught.value.code, caught.value.exit_code) == ("E_NONFINITE_LOSS", 5)
