"""What compares cfseg's training with stock nnU-Net's: accuracy and seconds per step."""

import json
from argparse import Namespace
from types import SimpleNamespace

import pytest
from benchmarks import __main__ as main
from benchmarks import page, stock_trainer, tasks, training_accuracy, training_steps

from cfseg.dataset.splits import split


def result(engine: str, seed: int, *cases: list[float | None]) -> dict:
    return {"engine": engine, "seed": seed, "dsc": list(cases)}


def test_means_are_of_the_organs_that_a_case_has_and_seeds_count_alike() -> None:
    found = [
        result("stock", 1, [0.9, 0.7], [0.6, None]),
        result("stock", 2, [0.8, 0.8], [0.8, None]),
        result("cfseg", 1, [0.8, 0.6], [0.7, None]),
        result("cfseg", 2, [0.9, 0.9], [0.9, None]),
    ]
    numbers = training_accuracy.compared(found)
    assert numbers["means"]["stock"] == pytest.approx({1: 0.7, 2: 0.8})
    assert numbers["difference"] == pytest.approx(0.8 - 0.75)
    # Variances over two seeds: .02 and .005, each of them of a mean of two.
    assert numbers["standard_error"] == pytest.approx((0.02 / 2 + 0.005 / 2) ** 0.5)
    text = training_accuracy.report(numbers)
    assert "| 1 | 0.7000 | 0.7000 |" in text
    assert "Difference +0.0500, standard error 0.1118: good enough." in text


def test_one_engine_alone_is_not_compared() -> None:
    numbers = training_accuracy.compared([result("stock", 3, [0.5])])
    assert "difference" not in numbers
    assert "| 3 | 0.5000 | - |" in training_accuracy.report(numbers)


@pytest.mark.parametrize(
    ("difference", "error", "enough"),
    [
        (-0.02, None, True),
        (-0.021, None, False),
        (-0.03, 0.014, False),
        (-0.03, 0.015, True),
        (-0.041, 0.1, False),
    ],
)
def test_what_is_good_enough(difference, error, enough) -> None:
    assert training_accuracy.good_enough(difference, error) is enough


def test_both_engines_get_the_numbers_of_the_recipe(tmp_path) -> None:
    training = training_accuracy.training_of(seed=5)
    assert (training.seed, training.coarse.patch) == (5, (48, 64, 64))
    assert training.coarse.epochs * training.iterations_per_epoch == 2000
    names = [f"case{i:02}" for i in range(training_accuracy.CASES)]
    parts = split(names, training.validation_fraction, training.seed)
    assert [len(part) for part in parts] == [78, 2]
    folders = stock_trainer.Folders(tmp_path)
    stock_trainer.write_split(folders, *parts)
    written = json.loads((folders.preprocessed / "splits_final.json").read_text())
    assert written == [{"train": parts[0], "val": parts[1]}]
    configuration = {"architecture": {"arch_kwargs": {"conv_bias": True}}, "batch_dice": True}
    stock_trainer._edit(configuration, training, training.coarse)
    assert configuration["patch_size"] == [48, 64, 64]
    assert not configuration["batch_dice"]
    network = configuration["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == [8, 16, 32, 56, 64]
    assert network["n_conv_per_stage"] == [1, 2, 2, 2, 2]
    assert network["n_conv_per_stage_decoder"] == [1, 1, 1, 1]
    assert network["conv_bias"]


def test_steps_are_measured_with_windows_and_with_one_batch(phantom, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training_steps, "learned_from", lambda _: [SimpleNamespace(name="a")])
    monkeypatch.setattr(
        training_steps, "_read", lambda _: (phantom.volume, phantom.label_map)
    )  # fmt: skip
    values = training_steps.QUICK_STEPS | {"stage": "tumor", "folder": tmp_path, "cohort": "c"}
    found = tasks.training_steps(values)
    assert min(found["seconds"].values()) > 0
    assert found["gflops"] > 0


@pytest.mark.parametrize("quick", [False, True])
def test_the_section_compares_augmentation_and_steps(quick, tmp_path, monkeypatch) -> None:
    asked: list[list[str]] = []
    answer = {"samples_per_s": 9.0, "gflops": 90.0, "load": 0.5, "flags": "AVX2"}
    answer["seconds"] = {"step": 0.5, "one_batch": 0.4}

    def rounds(count: int, *sides: tuple[str, dict]) -> list[list[dict]]:
        json.dumps([values for _, values in sides], default=str)
        asked.append([task for task, _ in sides])
        return [[answer] * count for _ in sides]

    monkeypatch.setattr(main, "rounds", rounds)
    monkeypatch.setattr(main, "write_crops", lambda *_: tmp_path)
    monkeypatch.setattr(main, "write_training_cases", lambda *_: tmp_path)
    bench = main.Bench(Namespace(backend="torch", quick=quick, scratch=tmp_path, pairs=2))
    text = page.text({"training": bench.training()}, "x.png")
    steps = [tasks for tasks in asked if "training_steps" in tasks]
    assert steps == [["training_steps", "stock_training_steps"]] * (1 if quick else 4)
    assert text.count("feed 20.0 %, a step takes 1.00 of nnU-Net's.") == len(steps)
    assert text.count("times one worker") == len(asked) - len(steps)


def test_every_network_of_the_recipe_is_measured_and_the_large_patch() -> None:
    found = [(values["stage"], values["patch"]) for values in training_steps.measured()]
    assert [stage for stage, _ in found] == ["coarse", "tumor", "organ", "coarse"]
    assert found[-1][1] == (64, 160, 224)
    assert {"training_steps", "stock_training_steps", "stock_training"} <= set(tasks.TASKS)


def test_steps_are_compared_round_by_round() -> None:
    machine = {"load": 0.5, "gflops": 90.0, "flags": "AVX512"}
    ours = [(0.5, 0.45), (0.4, 0.38), (0.5, 0.4)]
    found = {"stage": "organ", "patch": [48, 64, 64], "steps": 20, "warm_up": 5}
    found["cfseg"] = [{"seconds": {"step": s, "one_batch": o}} | machine for s, o in ours]
    found["nnunet"] = [{"seconds": {"step": step}} for step in (1.0, 0.5, 0.5)]
    text = page.text({"training": {"steps": [found]}}, "x.png")
    assert "The organ network, 48x64x64, 20 steps after 5" in text
    assert "| 1 | 0.5 | 90 | AVX512 | 0.5 | 0.45 | 10.0 | 1 | 0.50 |" in text
    assert "feed 10.0 %, a step takes 0.80 of nnU-Net's." in text
