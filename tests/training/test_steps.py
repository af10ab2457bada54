import json
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from cfseg.errors import UsageError
from cfseg.training.steps import Step, alone_in, changed, is_done, nothing, run_steps


class Chain:
    """Two steps that note what happens to them; ``fails`` names the one that breaks off."""

    def __init__(self, folder):
        self.folder, self.events, self.fails = folder, [], ""

    def run(self, **inputs):
        self.events.clear()
        steps = [self._step(name, inputs) for name in ("first", "second")]
        run_steps(self.folder, steps, lambda line: None)
        return self.events

    def _step(self, name, inputs):
        def run():
            if self.fails == name:
                raise KeyboardInterrupt
            self.events.append(f"run {name}")

        clear = lambda: self.events.append(f"clear {name}")  # noqa: E731
        return Step(name, name, lambda: {"x": 1, **inputs.get(name, {})}, run, clear)


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path / "steps")


def test_a_step_is_done_once(chain):
    assert chain.run() == ["clear first", "run first", "clear second", "run second"]
    assert chain.run() == []


def test_a_stopped_step_goes_on_and_nothing_is_cleared(chain):
    chain.fails = "second"
    with pytest.raises(KeyboardInterrupt):
        chain.run()
    chain.fails = ""
    assert chain.run() == ["run second"]


def test_other_inputs_start_from_nothing(chain):
    chain.run()
    assert chain.run(second={"x": 2}) == ["clear second", "run second"]


def test_what_changed_is_named(tmp_path):
    lines = []

    def run(inputs):
        step = Step("name", "about", lambda: inputs, lambda: None, lambda: None)
        found = changed(tmp_path, step)
        run_steps(tmp_path, [step], lines.append)
        return found

    first = {"data": {"cases": [1, 2], "seed": 1}, "stage": {"epochs": 3}}
    assert run(first) == []
    assert lines[0] == "[1/1] about"
    other = {"data": {"cases": [1, 2], "seed": 2}, "stage": {"epochs": 4}}
    assert run(other) == ["data.seed", "stage.epochs"]
    assert "[1/1] about, again because of other data.seed, stage.epochs" in lines
    assert run(other) == []


def test_a_damaged_marker_counts_as_none(chain):
    chain.run()
    (chain.folder / "first.json").write_text("{")
    assert chain.run() == ["clear first", "run first"]


def test_a_marker_says_how_long_all_attempts_took(chain):
    chain.fails = "second"
    with pytest.raises(KeyboardInterrupt):
        chain.run()
    assert marker(chain, "first")["done"] is True
    edited = marker(chain, "second") | {"seconds": 100.0}
    (chain.folder / "second.json").write_text(json.dumps(edited))
    chain.fails = ""
    chain.run()
    assert 100.0 <= marker(chain, "second")["seconds"] < 110.0
    chain.run(second={"x": 2})
    assert marker(chain, "second")["seconds"] < 10.0


def test_a_running_step_writes_down_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr("cfseg.training.steps.BEAT_SECONDS", 0.01)
    seconds = []

    def run():
        time.sleep(0.3)
        seconds.append(json.loads((tmp_path / "long.json").read_text())["seconds"])

    run_steps(tmp_path, [Step("long", "long", dict, run, lambda: None)], lambda line: None)
    assert seconds[0] > 0


def marker(chain, name):
    return json.loads((chain.folder / f"{name}.json").read_text())


def test_nothing_is_done_at_the_start(tmp_path):
    def inputs():
        raise AssertionError("inputs may cost much and are not asked for without need")

    assert not is_done(tmp_path, Step("name", "about", inputs, lambda: None, lambda: None))


def test_another_run_is_kept_out_of_a_workspace(tmp_path):
    pytest.importorskip("fcntl")
    with (
        alone_in(tmp_path / "w"),
        pytest.raises(UsageError, match=r"w: another cfseg train works in this folder"),
        alone_in(tmp_path / "w"),
    ):
        pass
    with alone_in(tmp_path / "w"):
        pass


def test_a_run_that_died_holds_no_workspace(tmp_path):
    pytest.importorskip("fcntl")
    code = """
import os, signal, sys
from pathlib import Path
from cfseg.training.steps import alone_in
with alone_in(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    with alone_in(tmp_path):
        pass


def test_a_step_whose_outcome_is_gone_goes_on(tmp_path):
    events, is_there = [], []

    def run():
        events.append("run")
        is_there.append(True)

    def step():
        clear = lambda: events.append("clear")  # noqa: E731
        return Step("a", "a", dict, run, clear, is_whole=lambda: bool(is_there))

    for _ in range(2):
        run_steps(tmp_path, [step()], lambda line: None)
    assert events == ["clear", "run"]
    is_there.clear()
    assert not is_done(tmp_path, step())
    run_steps(tmp_path, [step()], lambda line: None)
    assert events == ["clear", "run", "run"]


def test_others_of_a_group_join_the_joint_steps_alone_and_write_nothing(tmp_path, monkeypatch):
    done_before = iter([True, False, None, None, False, None, None])
    monkeypatch.setattr("cfseg.training.steps.is_first", lambda: False)
    monkeypatch.setattr("cfseg.training.steps.as_first", lambda value: next(done_before))
    ran, lines = [], []
    steps = [
        Step(name, name, dict, partial(ran.append, name), nothing, is_joint=is_joint)
        for name, is_joint in (("old", True), ("data", False), ("network", True))
    ]
    run_steps(tmp_path, steps, lines.append)
    assert ran == ["network"]
    assert next(done_before, "nothing is left to hear") == "nothing is left to hear"
    assert lines == ["[1/3] old: done before"]
    assert not list(tmp_path.iterdir())
