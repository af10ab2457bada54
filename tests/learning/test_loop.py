"""The loop against stock nnU-Net's, against itself after a kill, and alone against two."""

import itertools
import json
import math
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import small_training as small
import torch
from small_training import PLAN, run, settings, windows

from cfseg.errors import ModelError, UsageError
from cfseg.feed.windows import Windows
from cfseg.learning import checkpoints
from cfseg.learning.losses import head_weights
from cfseg.learning.run import Settings
from cfseg.learning.stopping import Stop
from cfseg.networks.build import fresh_network


def final(outcome):
    return checkpoints.read(outcome.final)[0]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbed."""
    return run(tmp_path_factory.mktemp("whole"))


# -- stock nnU-Net -----------------------------------------------------------------------------


class _Stock:
    """nnU-Net's loss, network, optimizer, schedule and step; its sums in float64 as ours are."""

    def __init__(self, monkeypatch, batch_dice):
        from nnunetv2.training.loss import dice
        from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
        from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
        from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        double = SimpleNamespace(**vars(torch) | {"float32": torch.float64})
        monkeypatch.setattr(dice, "torch", double)
        torch.manual_seed(5)
        arch = PLAN.architecture
        self.network = get_network_from_plans(
            "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            {
                "n_stages": len(arch.features),
                "features_per_stage": arch.features,
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": arch.kernel_sizes,
                "strides": arch.strides,
                "n_conv_per_stage": arch.n_conv_encoder,
                "n_conv_per_stage_decoder": arch.n_conv_decoder,
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            ["conv_op", "norm_op", "dropout_op", "nonlin"],
            1,
            small.CLASSES,
            deep_supervision=True,
        ).double()
        loss = DC_and_CE_loss(
            {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False},
            {},
            ignore_label=255,
            dice_class=dice.MemoryEfficientSoftDiceLoss,
        )
        self.loss = DeepSupervisionWrapper(loss, (2 / 3, 1 / 3, 0))
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True
        )
        self.schedule = PolyLRScheduler(self.optimizer, 0.01, 5)

    def losses(self, feed):
        from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
            DownsampleSegForDSTransform,
        )

        shrink = DownsampleSegForDSTransform(((1, 1, 1), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
        for step in range(50):
            self.schedule.step(step // 10)
            scan, labels = feed(step)
            each = [shrink(segmentation=window[None])["segmentation"] for window in labels]
            target = [torch.stack(level) for level in zip(*each, strict=True)]
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.network(scan), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
            yield float(loss.detach())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("batch_dice", "ignore"), [(False, 0.0), (True, 0.4)])
def test_fifty_steps_equal_stock_nnunet(monkeypatch, tmp_path, batch_dice, ignore):
    pytest.importorskip("nnunetv2")

    def feed(step):
        return windows(step, torch.float64, ignore)

    found = []
    wanted = settings(lr_schedule="poly", batch_dice=batch_dice, iterations_per_epoch=10)
    run(
        tmp_path, torch.float64, feed, seed=5, wanted=wanted, validate=None,
        on_step=lambda step: found.append(step.loss),
    )  # fmt: skip
    expected = list(_Stock(monkeypatch, batch_dice).losses(feed))
    assert found == pytest.approx(expected, rel=0, abs=1e-12)
    assert found[-1] < found[0] - 0.01


@pytest.mark.filterwarnings("ignore")
def test_first_weights_are_those_that_stock_nnunet_draws(monkeypatch):
    pytest.importorskip("nnunetv2")
    stock = _Stock(monkeypatch, batch_dice=False).network.float()
    before = torch.random.get_rng_state()
    assert equal(dict(fresh_network(PLAN, 5).named_parameters()), dict(stock.named_parameters()))
    assert torch.equal(torch.random.get_rng_state(), before)


# -- going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"optimizer": "adamw", "lr_schedule": "cosine", "head_weights": (1.0,)},
        {"ema": 0.9},
        {"precision": "fp16"},
    ],
)
def test_it_goes_on_from_any_step_bit_for_bit(tmp_path, own):
    wanted, losses, stopped = settings(epochs=3, **own), {}, []
    undisturbed = run(tmp_path / "whole", wanted=wanted, on_step=lambda s: losses.update({s[0]: s}))
    for moment in (1, 4, 7, 12, None):
        stop = Stop()

        def on_step(step, moment=moment, stop=stop):
            assert step.loss == losses[step.done].loss
            stopped.append(step.done)
            stop.signal = signal.SIGTERM if step.done == moment else 0

        if moment is None:
            outcome = run(tmp_path / "stopped", wanted=wanted, on_step=on_step, stop=stop)
            continue
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "stopped", wanted=wanted, on_step=on_step, stop=stop)
        assert end.value.code == 143
    assert stopped == list(range(1, 13))
    assert equal(final(outcome), final(undisturbed))
    assert outcome.history == undisturbed.history
    assert [kept[1:] for kept in outcome.kept] == [kept[1:] for kept in undisturbed.kept]


def test_killed_twice_at_random_moments_it_ends_with_the_same_weights(tmp_path, whole):
    draw, steps = np.random.default_rng(8), tmp_path / "steps"
    moments = sorted(draw.choice(np.arange(2, 18), 2, replace=False))
    for moment in [*moments, None]:
        process = small.start(small.train_slowly, tmp_path / "run", settings(), steps)
        if moment is not None:
            while process.is_alive() and last_step(steps) < moment:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.02))  # in a step, or while a checkpoint is written
            process.kill()
        process.join(60)
        assert process.exitcode == (0 if moment is None else -signal.SIGKILL)
    outcome = run(tmp_path / "run")
    assert equal(final(outcome), final(whole))
    assert outcome.history == whole.history
    assert {path.name.split("_")[0] for path in (tmp_path / "run").iterdir()} == {"final", "kept"}


def last_step(steps):
    lines = steps.read_text().split() if steps.exists() else []
    return int(lines[-1]) if lines else 0


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, whole):
    stop, lines = Stop(), []
    stop.signal = signal.SIGTERM
    for _ in range(3):
        with pytest.raises(SystemExit):
            run(tmp_path, stop=stop)
    first, last = checkpoints.listed(tmp_path, "state")
    assert (first.name, last.name) == ("state_00000002.json", "state_00000003.json")
    contents = bytearray(last.with_suffix(".safetensors").read_bytes())
    contents[-1] ^= 1
    last.with_suffix(".safetensors").write_bytes(contents)
    outcome = run(tmp_path, report=lines.append)
    assert "state_00000003.safetensors: damaged" in lines[0]
    assert lines[1] == "network: going on after step 2"
    assert equal(final(outcome), final(whole))


def test_other_settings_are_refused_with_what_differs(tmp_path):
    stop = Stop()
    stop.signal = signal.SIGTERM
    with pytest.raises(SystemExit):
        run(tmp_path, stop=stop)
    with pytest.raises(UsageError, match=r"initial_lr: 0.01, now 0.02, source: , now b\)"):
        run(tmp_path, wanted=settings(initial_lr=0.02, source="b"))


def test_a_training_that_is_over_is_not_done_again(tmp_path, whole):
    seen = []
    again = run(whole.final.parent, on_step=seen.append)
    assert (seen, again) == ([], whole)
    with pytest.raises(UsageError, match="epochs: 5, now 6"):
        run(whole.final.parent, wanted=settings(epochs=6))


def test_another_network_does_not_take_over_a_checkpoint(tmp_path):
    stop = Stop()
    stop.signal = signal.SIGTERM
    with pytest.raises(SystemExit):
        run(tmp_path, stop=stop)
    wider = PLAN.architecture.model_copy(update={"features": (4, 8, 8, 12)})
    network = fresh_network(PLAN.model_copy(update={"architecture": wider}), 0)
    with pytest.raises(ModelError, match="of another network: weights/encoder"):
        small.train(network, windows, settings(), small.place(tmp_path))


# -- what it keeps and tells -------------------------------------------------------------------


def test_the_best_weights_are_kept_and_scored_as_those_who_predict_have_them(tmp_path):
    scores = iter([0.5, None, 0.7, 0.1, 0.6])
    seen, weights = [], {}

    def validate(network, epoch):
        assert not network.training
        assert not torch.is_grad_enabled()
        assert torch.is_tensor(network(windows(0).scan))
        weights[epoch] = {n: w.detach().clone() for n, w in network.named_parameters()}
        return next(scores)

    outcome = run(
        tmp_path, wanted=settings(keep_every_epochs=1), validate=validate, on_epoch=seen.append
    )
    assert [(kept.epoch, kept.score) for kept in outcome.kept] == [(3, 0.7), (5, 0.6)]
    for kept in outcome.kept:
        assert equal(checkpoints.read(kept.path)[0], weights[kept.epoch])
    assert equal(final(outcome), weights[5])
    assert [epoch.score for epoch in outcome.history] == [0.5, None, 0.7, 0.1, 0.6]
    assert tuple(seen) == outcome.history


def test_the_average_of_the_weights_is_what_is_validated_and_kept(tmp_path):
    network, averaged, seen = fresh_network(PLAN, 0), None, []
    names, sizes = zip(*((n, w.numel()) for n, w in network.named_parameters()), strict=True)

    def flat(module):
        return torch.cat([w.detach().flatten() for w in module.parameters()])

    def on_step(step):
        nonlocal averaged
        now = flat(network)
        averaged = now.clone() if averaged is None else torch.lerp(averaged, now, 0.1)

    def validate(average, epoch):
        seen.append(flat(average))
        torch.testing.assert_close(seen[-1], averaged)
        return 1.0

    outcome = small.train(
        network, windows, settings(ema=0.9), small.place(tmp_path),
        report=lambda line: None, on_step=on_step, validate=validate,
    )  # fmt: skip
    assert len(seen) == 3
    last = dict(zip(names, seen[-1].split(sizes), strict=True))
    assert all(torch.equal(w.flatten(), last[name]) for name, w in final(outcome).items())


def test_a_step_that_is_not_finite_is_left_out(tmp_path):
    def feed(step):
        scan, labels = windows(step if step < 3 else step - 1)
        return Windows(scan * math.nan if step == 3 else scan, labels)

    lines, losses, without = [], [], []
    wanted = settings(epochs=1, iterations_per_epoch=6)
    outcome = run(tmp_path / "with", feed=feed, wanted=wanted, report=lines.append,
                  on_step=lambda step: losses.append(step.loss))  # fmt: skip
    run(tmp_path / "without", wanted=wanted, on_step=lambda step: without.append(step.loss))
    assert math.isnan(losses.pop(3))
    assert losses == without[:5]
    assert [line.partition(";")[0] for line in lines] == [
        "network: step 4: the loss or its gradients are not finite"
    ]
    assert outcome.history[0].loss == pytest.approx(sum(losses) / 5)


def test_after_twenty_such_steps_it_ends_and_the_checkpoint_stays(tmp_path):
    def feed(step):
        scan, labels = windows(step)
        return Windows(scan / 0 if step >= 5 else scan, labels)

    with pytest.raises(ModelError, match="20 steps in a row") as end:
        run(tmp_path, feed=feed, wanted=settings(epochs=9))
    assert end.value.code == "E_NONFINITE_LOSS"
    newest = checkpoints.listed(tmp_path, "state")[-1]
    assert checkpoints.values_of(newest)["state"]["step"] == 5
    tensors, _ = checkpoints.read(newest)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_it_measures_what_waiting_for_windows_costs(tmp_path):
    steps = []

    def feed(step):
        time.sleep(0.05)
        return windows(step)

    cost = run(tmp_path, feed=feed, wanted=settings(epochs=1), on_step=steps.append).cost
    assert (cost.steps, cost.samples, cost.device, cost.processes) == (4, 8, "cpu", 1)
    assert cost.feed_seconds == pytest.approx(sum(step.feed_seconds for step in steps))
    assert cost.feed_seconds >= 0.2
    assert 0 < cost.feed_share < 1
    assert cost.seconds_per_step == pytest.approx(cost.step_seconds / 4)
    assert cost.seconds > cost.step_seconds
    assert cost.peak_mb > 100


def test_a_network_learns_in_bf16(tmp_path):
    losses = []
    run(tmp_path, wanted=settings(precision="bf16"), on_step=lambda s: losses.append(s.loss))
    exact = []
    run(tmp_path / "exact", on_step=lambda s: exact.append(s.loss))
    assert losses != exact
    assert losses == pytest.approx(exact, abs=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_trains_and_goes_on_on_a_gpu(tmp_path, precision):
    def feed(step):
        return Windows(*(tensor.to("cuda") for tensor in windows(step)))

    def validate(network, epoch):
        return float(network(feed(0).scan).float().std())

    def train(folder, **how):
        wanted = settings(precision=precision, epochs=3)
        network = fresh_network(PLAN, 0).to("cuda")
        return small.train(
            network, feed, wanted, small.place(folder), report=print, validate=validate, **how
        )

    stop = Stop()
    with pytest.raises(SystemExit):
        train(tmp_path / "a", stop=stop, on_step=lambda s: setattr(stop, "signal", 15))
    stopped, undisturbed = train(tmp_path / "a"), train(tmp_path / "b")
    found = [epoch.loss for epoch in stopped.history]
    assert found == pytest.approx([epoch.loss for epoch in undisturbed.history], abs=0.05)
    assert 0 < stopped.cost.feed_share < 1
    assert (stopped.cost.device, stopped.cost.steps) == ("cuda", 12)


def test_settings_are_the_recipes():
    from cfseg.recipes.recipe import load

    training = load("demo").training
    found = Settings.of(training, training.tumor, head_weights=head_weights(4), source="x")
    assert (found.epochs, found.iterations_per_epoch, found.initial_lr) == (64, 50, 4e-3)
    assert (found.optimizer, found.lr_schedule, found.warmup_epochs) == ("adamw", "poly", 1)
    assert (found.batch_dice, found.tumor_dice_weight, found.hard_voxels) == (True, 4.0, 1.0)
    assert (found.keep_every_epochs, found.source) == (50, "x")


# -- several processes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "ignore"),
    [
        ({"batch_dice": False}, 0.0),
        ({"batch_dice": True}, 0.0),
        ({"batch_dice": True, "label_weights": tuple(1 + i / 9 for i in range(15))}, 0.4),
        ({"batch_dice": False, "hard_voxels": 0.2, "tumor_dice_weight": 3.0}, 0.4),
    ],
)
def test_two_processes_learn_as_one_does(tmp_path, own, ignore):
    wanted = settings(**own)
    groups = [
        small.start_group(small.train_in_group, tmp_path / f"of_{n}", wanted, ignore, world=n)
        for n in (1, 2)
    ]
    for process in itertools.chain(*groups):
        process.join(60)
        assert process.exitcode == 0
    losses, weights = torch.load(tmp_path / "of_1_0.pt")
    assert len(losses) == 20
    for rank in (0, 1):
        others, shared = torch.load(tmp_path / f"of_2_{rank}.pt")
        assert others == pytest.approx(losses, rel=0, abs=1e-9)
        torch.testing.assert_close(shared, weights, rtol=0, atol=1e-9)
    states = [checkpoints.values_of(*checkpoints.listed(tmp_path / f"of_{n}", "final"))["state"]
              for n in (1, 2)]  # fmt: skip
    assert [state["cost"]["processes"] for state in states] == [1, 2]
    assert [state["cost"]["samples"] for state in states] == [40, 40]


def test_sigterm_to_one_process_ends_the_group_and_it_goes_on(tmp_path):
    steps = tmp_path / "steps"
    for interrupted in (True, False):
        group = small.start_group(small.train_slowly, tmp_path / "run", settings(), steps)
        while interrupted and last_step(steps) < 3:
            time.sleep(0.001)
        if interrupted:
            os.kill(group[1].pid, signal.SIGTERM)
        for process in group:
            process.join(60)
        assert [p.exitcode for p in group] == [143 if interrupted else 0] * 2
    assert sorted(map(int, steps.read_text().split())) == sorted([*range(1, 21)] * 2)
    names = {path.name for path in (tmp_path / "run").glob("final*")}
    assert names == {"final_00000020.json", "final_00000020.safetensors"}
    assert json.loads((tmp_path / "run" / "final_00000020.json").read_text())["schema_version"] == 1
