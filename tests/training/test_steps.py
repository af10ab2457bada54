import json

import pytest

from cfseg.errors import UsageError
from cfseg.training.steps import Step, is_done, lock, run_steps


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
        return Step(name, name, {"x": 1, **inputs.get(name, {})}, run, clear)


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


def test_a_damaged_marker_counts_as_none(chain):
    chain.run()
    (chain.folder / "first.json").write_text("{")
    assert chain.run() == ["clear first", "run first"]


def test_a_marker_says_how_long_it_took(chain):
    chain.run()
    marker = json.loads((chain.folder / "first.json").read_text())
    assert marker["done"] is True
    assert marker["seconds"] >= 0


def test_nothing_is_done_at_the_start(tmp_path):
    step = Step("name", "about", {}, lambda: None, lambda: None)
    assert not is_done(tmp_path, step)


def test_a_workspace_has_one_process(tmp_path):
    pytest.importorskip("fcntl")
    with lock(tmp_path), pytest.raises(UsageError, match="another cfseg train"), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass
