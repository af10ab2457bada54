import contextlib
import io
import json
import os
import signal

import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2", reason="training needs cfseg[train]")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@pytest.fixture
def trainer(trained, tmp_path, monkeypatch):
    """A trainer of the tiny tumor model that writes elsewhere."""
    from cfseg.training.trainer import StageTrainer
    from cfseg.training.workspace import CONFIGURATION, PLANS, StageFolder, enter

    pipeline = trained.pipeline
    folder = StageFolder(pipeline.work, "tumor")
    enter(pipeline.work)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    plans = json.loads((folder.preprocessed / f"{PLANS}.json").read_text())
    plans["continue_training"] = False
    dataset = json.loads((folder.raw / "dataset.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        made = StageTrainer(plans, CONFIGURATION, 0, dataset, torch.device("cpu"))
    made.configure(pipeline.training, "tumor", pipeline.training.tumor, 3, print)
    made.initialize()
    return made


class Run:
    """The tiny organ model, trained in a workspace of its own with the prepared data."""

    def __init__(self, pipeline, work):
        from cfseg.training.workspace import StageFolder

        for name in ("nnUNet_raw", "nnUNet_preprocessed"):
            (work / name).symlink_to(pipeline.work / name)
        self.folder = StageFolder(work, "organ")
        self.model, self.bundle = self.folder.model(1), pipeline.bundle
        self.fold = self.model / "fold_0"
        self.recipe = pipeline.training
        self.lines, self.done = [], []

    def __call__(self, *, epochs=2, iterations=3, stop_at=None, number=signal.SIGTERM, **others):
        from cfseg.training.train_network import train_network

        init = others.pop("init", None)
        values = {"iterations_per_epoch": iterations, "rare_label_exponent": 0.0}
        training = self.recipe.model_copy(update=values | others)
        stage = training.organ.model_copy(update={"epochs": epochs})
        self.lines.clear()
        self.done.clear()

        def progress(name, done, total):
            self.done.append(done)
            if len(self.done) == stop_at:
                os.kill(os.getpid(), number)

        train_network(
            self.folder, 1, training, stage, torch.device("cpu"), self.lines.append,
            init=init, progress=progress,
        )  # fmt: skip

    def read(self, name):
        return torch.load(self.fold / name, weights_only=False)


@pytest.fixture
def run(trained, tmp_path):
    return Run(trained.pipeline, tmp_path)


def test_the_folder_is_named_so_that_stock_nnunet_opens_it(trainer):
    assert "nnUNetTrainer__nnUNetPlans__3d_fullres" in trainer.output_folder


def test_label_weights_have_a_mean_of_one_over_the_voxels(trainer):
    weights = trainer._label_weights().numpy()
    names, _ = trainer.do_split()
    cases = trainer.dataset_class(trainer.preprocessed_dataset_folder, names)
    seen = np.concatenate([np.maximum(cases.load_case(n)[1][:], 0).ravel() for n in names])
    assert weights[seen.astype(int)].mean() == pytest.approx(1, rel=1e-4)
    assert weights[0] == weights.min()


def test_the_loss_weighs_tumors_and_hard_voxels_at_every_resolution(trainer):
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss

    from cfseg.training.loss import HardVoxels, TumorDice

    training = trainer.training.model_copy(update={"rare_label_exponent": 0.0})
    trainer.configure(training, "tumor", training.tumor, 3, print)
    inner = trainer._build_loss().loss
    assert type(inner.dc) is MemoryEfficientSoftDiceLoss
    assert type(inner.ce) is RobustCrossEntropyLoss
    stage = training.tumor.model_copy(update={"tumor_dice_weight": 4.0, "hard_voxels": 0.1})
    trainer.configure(training, "tumor", stage, 3, print)
    loss = trainer._build_loss()
    assert (type(loss.loss.dc), type(loss.loss.ce)) == (TumorDice, HardVoxels)
    assert loss.loss.dc.dice.batch_dice == trainer.training.batch_dice
    targets = [torch.randint(0, 15, (2, 1, n, n, n)).float() for n in (8, 4)]
    outputs = [torch.zeros(2, 15, *t.shape[2:], requires_grad=True) for t in targets]
    loss(outputs, targets).backward()
    assert float(outputs[0].grad.abs().sum()) > 0


@pytest.mark.parametrize("key", ["oversample_foreground", "rare_label_exponent", "initial_lr"])
def test_a_stages_own_value_goes_before_the_shared_one(trainer, key):
    field = {"oversample_foreground": "oversample_foreground_percent"}.get(key, key)
    training = trainer.training.model_copy(update={key: 0.25})
    for own, expected in ((None, 0.25), (0.125, 0.125), (0.75, 0.75)):
        stage = training.tumor.model_copy(update={key: own})
        trainer.configure(training, "tumor", stage, 3, print)
        assert getattr(trainer, field) == expected


def test_a_stages_own_share_of_hard_voxels_goes_before_the_shared_one(trainer):
    training = trainer.training.model_copy(update={"hard_voxels": 0.25})
    for own, expected in ((None, 0.25), (0.5, 0.5), (1.0, 1.0)):
        stage = training.tumor.model_copy(update={"hard_voxels": own})
        trainer.configure(training, "tumor", stage, 3, print)
        assert trainer.training.hard_voxels == expected


def test_elastic_deformation_is_on_and_mirroring_off(trainer):
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    train, _ = trainer.get_dataloaders()
    found = train.data_loader.transforms.transforms
    spatial = [t for t in found if isinstance(t, SpatialTransform)]
    assert [t.p_elastic_deform for t in spatial] == [trainer.training.elastic_probability]
    assert not [t for t in found if isinstance(t, MirrorTransform)]


def test_windows_around_tumors_are_as_frequent_as_the_recipe_says():
    from cfseg.training.windows import focused_box

    chosen: list[object] = []

    def get_bbox(shape, force_fg, class_locations, overwrite_class):
        chosen.append(overwrite_class)

    np.random.seed(0)  # noqa: NPY002 - nnU-Net's generator
    for _ in range(500):
        focused_box(get_bbox, 0.4, (8, 8, 8), True, {1: [0], 14: [0]})
    assert 160 < chosen.count(14) < 240
    assert chosen.count(14) + chosen.count(None) == 500
    chosen.clear()
    for force_fg, locations in ((False, {14: [0]}), (True, {1: [0], 14: []}), (True, {1: [0]})):
        focused_box(get_bbox, 1.0, (8, 8, 8), force_fg, locations)
    assert chosen == [None, None, None]


def test_the_tumor_model_is_judged_by_tumor_and_the_others_by_organs(trainer):
    dice = [0.5] * 12 + [float("nan"), 0.9]
    assert trainer._score(dice) == 0.9
    trainer.role = "organ"
    assert trainer._score(dice) == 0.5


def test_schedules():
    from cfseg.recipes.recipe import load
    from cfseg.training.schedule import Schedule

    paper = load("paper").training
    halved = Schedule(None, paper, 1500)
    assert [halved.rate(e) for e in (0, 199, 200, 400)] == [0.01, 0.01, 0.005, 0.0025]
    demo = paper.model_copy(update={"lr_schedule": "poly", "warmup_epochs": 1})
    poly = Schedule(None, demo, 10)
    assert poly.rate(0) == 0.005
    assert poly.rate(5) == pytest.approx(0.01 * 0.5**0.9)


# -- stopping and going on -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_ends_it_after_the_iteration_with_a_checkpoint(run, number, error):
    with pytest.raises(error) as caught:
        run(stop_at=2, number=number)
    if error is SystemExit:
        assert caught.value.code == 143
    left = run.read("checkpoint_latest.pth")
    assert (left["current_epoch"], len(left["cfseg"]["losses"])) == (0, 2)
    assert "stopped in epoch 1; run it again to go on" in run.lines


def poison(monkeypatch, wanted):
    """Let the losses of some iterations be no numbers; ``wanted`` gets how many came before."""
    from cfseg.training.stage_network import StageNetwork

    build, seen = StageNetwork._build_loss, []

    def poisoned(self):
        loss = build(self)

        def made(*values):
            found = loss(*values)
            if not torch.is_grad_enabled():
                return found
            seen.append(found)
            return found * float("nan") if wanted(len(seen) - 1) else found

        return made

    monkeypatch.setattr(StageNetwork, "_build_loss", poisoned)


def test_t05_a_loss_that_is_no_number_costs_its_step_alone(run, monkeypatch):
    poison(monkeypatch, lambda number: number == 1)
    run()
    assert any("epoch 1, iteration 2: the loss is not finite" in line for line in run.lines)
    final = run.read("checkpoint_final.pth")
    assert all(torch.isfinite(w).all() for w in final["network_weights"].values())
    assert np.isfinite(final["logging"]["train_losses"]).all()


def test_t05_twenty_in_a_row_end_it_and_the_last_checkpoint_is_good(run, monkeypatch):
    from cfseg.errors import ModelError

    poison(monkeypatch, lambda number: number >= 3)
    with pytest.raises(ModelError, match="20 steps in a row"):
        run(epochs=9)
    left = run.read("checkpoint_latest.pth")
    assert all(torch.isfinite(w).all() for w in left["network_weights"].values())


def test_it_goes_on_in_the_middle_of_an_epoch_with_the_remaining_iterations(run):
    with pytest.raises(SystemExit):
        run(stop_at=2)
    losses = run.read("checkpoint_latest.pth")["cfseg"]["losses"]
    run()
    # One iteration of three was left, one validation batch, and another epoch of both.
    assert run.done == [3, 3, 4, 5, 6, 6]
    assert run.lines[0] == "going on after epoch 0 and 2 iterations"
    final = run.read("checkpoint_final.pth")
    assert {len(values) for values in final["logging"].values()} == {2}
    first = final["logging"]["train_losses"][0]
    assert min(losses) - 1 < first < max(losses) + 1
    assert not list(run.fold.glob("checkpoint_[lp]*"))
    run()
    assert (run.done, run.lines) == ([], ["trained before"])


def test_a_stop_while_validating_trains_nothing_twice(run):
    with pytest.raises(SystemExit):
        run(stop_at=4)
    run(epochs=1)
    assert run.done == [3]  # the validation batch alone


def test_going_on_has_the_same_weights_rate_and_momentum(run):
    with pytest.raises(SystemExit):
        run(stop_at=2)
    left = run.read("checkpoint_latest.pth")
    with pytest.raises(SystemExit):
        run(stop_at=1)
    gone_on = run.read("checkpoint_previous.pth")
    for name, weight in left["network_weights"].items():
        assert torch.equal(weight, gone_on["network_weights"][name])
    groups = [c["optimizer_state"]["param_groups"][0]["lr"] for c in (left, gone_on)]
    assert groups[0] == groups[1] == run.recipe.initial_lr


def test_a_torn_checkpoint_falls_back_to_the_one_before_it(run):
    for _ in range(2):
        with pytest.raises(SystemExit):
            run(stop_at=1)
    whole = (run.fold / "checkpoint_latest.pth").read_bytes()
    (run.fold / "checkpoint_latest.pth").write_bytes(whole[: len(whole) // 2])
    run(epochs=1)
    assert run.done == [2, 3, 3]
    assert run.lines[0].startswith("checkpoint_latest.pth cannot be read, going on from the one")


def test_without_any_good_checkpoint_it_says_what_to_do(run):
    from cfseg.errors import ModelError

    run.fold.mkdir(parents=True)
    (run.fold / "checkpoint_latest.pth").write_bytes(b"half")
    with pytest.raises(ModelError, match="remove this folder"):
        run()


def test_it_saves_in_the_middle_of_an_epoch_when_it_is_time(run):
    with pytest.raises(SystemExit):
        run(stop_at=3, save_every_minutes=1e-9)
    previous = run.read("checkpoint_previous.pth")
    assert len(previous["cfseg"]["losses"]) == 2  # of the clock; the latest is the signal's


# -- what stays ------------------------------------------------------------------------------


def test_a_trained_network_keeps_its_best_weights_and_its_logs(run):
    from cfseg.bundle.nnunet_v2 import read_model_folder
    from cfseg.training.cost import read_effort
    from cfseg.training.keep import kept_checkpoints

    run(epochs=3, keep_every_epochs=1, keep_at_most=2)
    kept = kept_checkpoints(run.model)
    assert 1 <= len(kept) <= 2
    _, weights = read_model_folder(run.model, "organ", checkpoint=kept[0].checkpoint)
    best = run.read("checkpoint_best.pth")
    assert best["current_epoch"] == kept[0].epoch
    assert all(torch.equal(t, best["network_weights"][name]) for name, t in weights.items())
    contents = torch.load(kept[0].path, weights_only=False)
    assert contents["trainer_name"] == "nnUNetTrainer"
    assert contents["init_args"]["configuration"] == "3d_fullres"
    assert "optimizer_state" not in contents
    effort = read_effort(run.model)
    assert (effort.epochs, effort.network, effort.iterations) == (3, "organ_1", 3)
    assert 0 < effort.epoch_seconds < effort.seconds


def test_tensorboard_gets_the_scalars_of_each_epoch(run):
    pytest.importorskip("tensorboard", reason="logs need TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run()
    events = EventAccumulator(str(run.folder.work / "tensorboard" / "organ_1")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/train", "loss/validation", "lr", "seconds", "pseudo_dice/liver"} <= tags
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2]


# -- fine-tuning -----------------------------------------------------------------------------


def test_fine_tuning_starts_from_the_weights_of_the_same_role(run):
    from cfseg.bundle.bundle import read_manifest, read_weights

    with pytest.raises(SystemExit):
        run(stop_at=1, init=run.bundle, initial_lr=1e-30)
    assert run.lines[0].startswith("starting from organ of bundle ")
    entry = next(e for e in read_manifest(run.bundle).stages if e.role == "organ")
    wanted = read_weights(run.bundle / entry.weights, entry.sha256)
    found = run.read("checkpoint_latest.pth")["network_weights"]
    for name, weight in wanted.items():
        assert torch.allclose(found[name], weight, atol=1e-12)


def test_a_second_weight_starts_from_the_second_network(run):
    from cfseg.training.finetune import find_start

    names = [find_start(run.bundle, "tumor", weight).name for weight in (1, 2)]
    assert names == ["tumor_1", "tumor_2"]
    assert find_start(run.bundle, "organ", 2).name == "organ"


def test_a_network_built_differently_is_refused_with_the_keys(run):
    from cfseg.errors import UsageError
    from cfseg.networks.build import build_network
    from cfseg.training.finetune import find_start, start_from

    entry = find_start(run.bundle, "organ", 1)
    other = entry.plan.architecture.model_copy(update={"features": (4, 6, 10)})
    plan = entry.plan.model_copy(update={"architecture": other})
    with pytest.raises(UsageError, match=r"features.*\(4, 6, 8\), here \(4, 6, 10\)") as caught:
        start_from(build_network(plan), plan, run.bundle, entry)
    assert "training.organ.features" in caught.value.message


def test_a_network_starts_from_the_coarse_model(run, trained):
    coarse = trained.pipeline.curriculum.coarse.folder.model(1) / "fold_0" / "checkpoint_final.pth"
    with pytest.raises(SystemExit):
        run(stop_at=1, init=coarse, initial_lr=1e-30)
    assert run.lines[0] == "starting from the weights of Dataset001_Coarse"
    wanted = torch.load(coarse, weights_only=False)["network_weights"]
    found = run.read("checkpoint_latest.pth")["network_weights"]
    for name, weight in wanted.items():
        assert torch.allclose(found[name], weight, atol=1e-12)


def test_only_the_head_of_tumors_stays_random_beside_the_coarse_weights(trainer, trained):
    from cfseg.training.finetune import start_from_checkpoint
    from cfseg.training.network_size import read_plan

    coarse = trained.pipeline.curriculum.coarse.folder.model(1) / "fold_0" / "checkpoint_final.pth"
    wanted = torch.load(coarse, weights_only=False)["network_weights"]
    before = trainer.network.state_dict()["decoder.seg_layers.0.weight"].clone()
    plan = read_plan(trainer.plans_manager.plans, trainer.dataset_json)
    start_from_checkpoint(trainer.network, plan, coarse)
    found = trainer.network.state_dict()
    assert torch.equal(
        found["decoder.seg_layers.0.weight"][:14], wanted["decoder.seg_layers.0.weight"]
    )
    assert torch.equal(found["decoder.seg_layers.0.weight"][14], before[14])
    assert all(torch.equal(found[n][: len(w)], w) for n, w in wanted.items())


def test_an_organ_network_takes_all_but_the_tumor_from_the_tumor_model(trained):
    from cfseg.networks.build import build_network
    from cfseg.training.finetune import start_from_checkpoint
    from cfseg.training.network_size import read_plan

    folders = trained.pipeline.curriculum
    tumor = folders.tumor.folder.model(1) / "fold_0" / "checkpoint_final.pth"
    organ = folders.organ.folder
    plans = json.loads((organ.preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    dataset = json.loads((organ.raw / "dataset.json").read_text(encoding="utf-8"))
    plan = read_plan(plans, dataset)
    network = build_network(plan)
    start_from_checkpoint(network, plan, tumor)
    wanted = torch.load(tumor, weights_only=False)["network_weights"]
    found = network.state_dict()
    assert wanted["decoder.seg_layers.0.weight"].shape[0] == 15
    assert all(torch.equal(w, wanted[n][: len(w)]) for n, w in found.items() if n in wanted)
    assert found["decoder.seg_layers.0.weight"].shape[0] == 14


def test_a_coarse_model_of_another_architecture_is_no_start(trainer, trained):
    from cfseg.errors import UsageError
    from cfseg.networks.build import build_network
    from cfseg.training.finetune import start_from_checkpoint
    from cfseg.training.network_size import read_plan

    coarse = trained.pipeline.curriculum.coarse.folder.model(1) / "fold_0" / "checkpoint_final.pth"
    plan = read_plan(trainer.plans_manager.plans, trainer.dataset_json)
    other = plan.architecture.model_copy(update={"features": (4, 6, 10)})
    plan = plan.model_copy(update={"architecture": other})
    with pytest.raises(UsageError, match=r"features: \(4, 6, 8\), here \(4, 6, 10\)"):
        start_from_checkpoint(build_network(plan), plan, coarse)
