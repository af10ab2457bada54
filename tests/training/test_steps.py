import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cfseg.errors import UsageError
from cfseg.training.steps import Step, changed, is_done, lock, run_steps


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


def test_a_workspace_has_one_process(tmp_path):
    pytest.importorskip("fcntl")
    who = f"process {os.getpid()} on "
    refused = pytest.raises(UsageError, match=f"another cfseg train .*{who}")
    with lock(tmp_path), refused, lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    pytest.importorskip("fcntl")
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom cfseg.training.steps import lock\n"
        "with lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {holder.pid} on"), lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    with lock(tmp_path):
        pass
