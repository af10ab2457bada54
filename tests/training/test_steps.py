import json
import subprocess
import sys
import time
from threading import Event, Thread

import pytest

from cfseg.errors import UsageError
from cfseg.training.steps import Step, changed, is_done, run_steps, shared


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


def test_another_task_is_kept_out_of_a_workspace(tmp_path):
    pytest.importorskip("fcntl")
    with shared(tmp_path, {"recipe": 1}):
        with shared(tmp_path, {"recipe": 1}):
            pass
        with (
            pytest.raises(UsageError, match="another cfseg train"),
            shared(tmp_path, {"recipe": 2}),
        ):
            pass
    with shared(tmp_path, {"recipe": 2}):
        pass


class Team:
    """Two processes, as two threads, at a chain: ``slow`` and ``other`` may go side by side."""

    def __init__(self, folder):
        self.folder, self.events, self.lines = folder, [], []
        self.slow_runs, self.slow_may_end = Event(), Event()

    def steps(self, who):
        def slow():
            self.slow_runs.set()
            assert self.slow_may_end.wait(20)
            self.events.append((who, "slow"))

        def note(name):
            return lambda: self.events.append((who, name))

        nothing = lambda: None  # noqa: E731
        return [
            Step("slow", "slow", dict, slow, nothing),
            Step("other", "other", dict, note("other"), nothing),
            Step("last", "last", dict, note("last"), nothing, needs=("slow", "other")),
        ]

    def run(self, who):
        run_steps(self.folder, self.steps(who), self.lines.append)


def test_a_second_process_takes_what_waits_for_nothing_and_no_step_is_done_twice(
    tmp_path, monkeypatch
):
    pytest.importorskip("fcntl")
    monkeypatch.setattr("cfseg.training.steps.WAIT_SECONDS", 0.01)
    team = Team(tmp_path)
    first = Thread(target=team.run, args=("first",))
    first.start()
    assert team.slow_runs.wait(20)
    second = Thread(target=team.run, args=("second",))
    second.start()
    while "waiting for another process that works in this folder" not in team.lines:
        time.sleep(0.01)
    assert team.events == [("second", "other")]
    team.slow_may_end.set()
    first.join()
    second.join()
    assert team.events[:2] == [("second", "other"), ("first", "slow")]
    assert [name for _, name in team.events] == ["other", "slow", "last"]


def test_a_process_that_died_holds_no_step(tmp_path):
    pytest.importorskip("fcntl")
    code = """
import sys, time
from pathlib import Path
from cfseg.training.steps import Step, run_steps
def run():
    print("at it", flush=True)
    time.sleep(60)
run_steps(Path(sys.argv[1]), [Step("a", "a", dict, run, lambda: None)], lambda line: None)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "at it\n"
        process.kill()
    done = []
    run_steps(
        tmp_path, [Step("a", "a", dict, lambda: done.append(1), lambda: None)], lambda line: None
    )
    assert done == [1]


def test_a_second_process_takes_first_what_most_steps_wait_for(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    monkeypatch.setattr("cfseg.training.steps.WAIT_SECONDS", 0.01)
    events, held, may_end = [], Event(), Event()

    def hold():
        held.set()
        assert may_end.wait(20)

    def run(name):
        return lambda: events.append(name) if name != "end" else may_end.set()

    needs = {"short": (), "long": (), "longer": ("long",), "end": ("short", "longer")}
    chain = [Step(n, n, dict, run(n), lambda: None, needs=waits) for n, waits in needs.items()]
    chain.insert(0, Step("held", "held", dict, hold, lambda: None))
    first = Thread(target=run_steps, args=(tmp_path, chain, lambda line: None))
    first.start()
    assert held.wait(20)
    run_steps(tmp_path, chain, lambda line: None)
    first.join()
    assert events == ["long", "short", "longer"]
