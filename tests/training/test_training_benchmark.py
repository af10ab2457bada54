"""``cfseg train --benchmark``: how long steps take with windows made for them, and without."""

import re
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

import tiny_cohort
from cfseg.cli import app
from cfseg.dataset.cases import read_cases
from cfseg.dataset.digests import Digests
from cfseg.training import benchmark as subject
from cfseg.training.benchmark import Speed, measure
from cfseg.training.curriculum import BENCHMARK_CASES, Curriculum
from cfseg.training.data import prepare
from cfseg.training.label_sources import NoLabels
from cfseg.training.pipeline import Pipeline

CPU = torch.device("cpu")


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort.write(tmp_path / "cohort")


def learner(cohort, work, key="organ"):
    curriculum = Curriculum(read_cases(cohort), work, tiny_cohort.recipe().training, Digests())
    return next(it for it in curriculum.learners if it.key == key)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_two_numbers_in_words():
    speed = Speed("organ", with_data=0.2, without_data=0.15)
    assert speed.feed_share == pytest.approx(0.25)
    assert speed.line == (
        "organ: 250 steps take 50.0 s with data and 37.5 s without; 25% is for windows"
    )
    assert Speed("organ", 0.1, 0.11).feed_share == 0


def test_the_median_is_of_the_steps_that_count(cohort, tmp_path, monkeypatch):
    warm, seen = [9.0] * subject.WARM_UP, []
    seconds = iter([*warm, 1.0, 2.0, 40.0, *warm, 0.5, 0.5, 0.5])

    def train(network, windows, settings, place, *, on_step, report):
        assert settings.steps == subject.WARM_UP + 3
        for step in range(settings.steps):
            seen.append(windows(step))
            on_step(type("Step", (), {"seconds": next(seconds)}))

    monkeypatch.setattr(subject, "train", train)
    alike = learner(cohort, tmp_path / "w").for_benchmark(tmp_path / "b")
    prepare(alike, print)
    assert measure(alike, CPU, steps=3) == Speed("organ", 2.0, 0.5)
    made, one = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len({windows.origin for windows in made}) > 1
    assert len({id(windows) for windows in one}) == 1


def test_steps_are_timed_for_real(cohort, tmp_path):
    alike = learner(cohort, tmp_path / "w").for_benchmark(tmp_path / "b")
    prepare(alike, print)
    before = files(tmp_path)
    found = measure(alike, CPU, steps=2)
    assert 0 < found.without_data < 10
    assert 0 < found.with_data < 10
    assert files(tmp_path) == before


def test_it_takes_a_few_cases_and_those_that_are_annotated_first(cohort, tmp_path):
    whole = learner(cohort, tmp_path / "w")
    whole.cases = (*whole.cases[::-1], *whole.cases, *whole.cases)
    alike = whole.for_benchmark(tmp_path / "b")
    assert len(alike.cases) == BENCHMARK_CASES
    assert all(case.annotated for case in alike.cases)
    assert isinstance(alike.labels, NoLabels)
    assert (alike.work, alike.stage, alike.role) == (tmp_path / "b", whole.stage, "organ")


def test_each_network_has_a_line_and_nothing_is_left(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "WARM_UP", 1)
    monkeypatch.setattr("cfseg.training.pipeline.measure", partial(measure, steps=1))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    before = files(tmp_path)
    words = ["train", cohort, "-o", tmp_path / "w", "--recipe", "tiny", "--benchmark"]
    ended = CliRunner().invoke(app, [*map(str, words), "--device", "cpu", "--threads", "1"])
    assert ended.exit_code == 0, ended.output
    line = r"(\w+): 250 steps take \d+\.\d s with data and \d+\.\d s without; \d+% is for windows"
    assert re.findall(line, ended.stdout) == ["coarse", "tumor", "organ"]
    assert len(ended.stdout.splitlines()) == 3
    assert files(tmp_path) == before
    assert not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "w").exists()


def test_one_stage_alone(cohort, tmp_path, monkeypatch):
    seen = []
    timed = lambda alike, device: seen.append(alike.key) or Speed(alike.key, 1, 1)  # noqa: E731
    monkeypatch.setattr("cfseg.training.pipeline.measure", timed)
    pipeline = Pipeline(cohort, tmp_path / "w", tiny_cohort.recipe(), device=CPU, report=print)
    assert len(list(pipeline.benchmark("tumor"))) == 1
    assert len(list(pipeline.benchmark())) == 3  # no teacher: it is built as the organ model is
    assert seen == ["tumor", "coarse", "tumor", "organ"]
