import os
import signal
import time

import pytest

from cfseg.evaluation.workers import Lost, results


def double(task):
    return 2 * task


def dangerous(task):
    """Kills its process, raises, ends or is slow where told so."""
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(7)
    if task == "raise":
        raise ValueError("on purpose")
    if task == "sleep":
        time.sleep(60)
    return task


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_task_has_its_result(jobs):
    assert dict(results(double, [3, 4, 5], jobs)) == {0: 6, 1: 8, 2: 10}


def test_no_tasks():
    assert list(results(double, [], 1)) == list(results(double, [], 3)) == []


def test_a_killed_process_costs_its_own_task_alone():
    tasks = ["kill", "a", "exit", "b", "kill", "c"]
    found = dict(results(dangerous, tasks, 2))
    assert found == {0: Lost(-signal.SIGKILL), 1: "a", 2: Lost(7), 3: "b", 4: Lost(-9), 5: "c"}


def test_what_is_raised_is_lost_with_its_process(capfd):
    assert dict(results(dangerous, ["raise", "a"], 2)) == {0: Lost(1), 1: "a"}
    assert "on purpose" in capfd.readouterr().err


def test_closing_ends_the_processes():
    start = time.monotonic()
    found = results(dangerous, ["a", "sleep", "sleep"], 2)
    assert next(found) == (0, "a")
    found.close()
    assert time.monotonic() - start < 40
