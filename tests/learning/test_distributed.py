"""Several processes share each batch: they learn as one, one writes and tells, all end together."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import tiny_cohort
import warm_start
from cfseg.errors import ResourceError, UsageError
from cfseg.learning import checkpoints, group, launch

pytestmark = pytest.mark.slow
OPTIONS = ["--recipe", "tiny", "--stage", "coarse", "--device", "cpu", "--threads", "1"]
OPTIONS += ["--set", "training.cpu_precision=fp32", "--set", "training.optimizer=sgd"]
OPTIONS += ["--set", "training.save_every_minutes=1e-9"]  # so that there is a lot to write
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return tiny_cohort.write(tmp_path_factory.mktemp("cohort"))


def started(words):
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def log(work):
    file = work / "train.log"
    return file.read_text() if file.exists() else ""


def final_weights(work):
    return checkpoints.read(checkpoints.listed(work / "networks" / "coarse_1", "final")[0])[0]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_processes_stop_together_go_on_and_end_with_the_weights_of_one(cohort, tmp_path):
    work, alone = tmp_path / "two", tmp_path / "one"
    one = warm_start.start(["train", cohort, "-o", alone, *OPTIONS])
    with started(["-m", "cfseg", "train", cohort, "-o", work, *OPTIONS, "--gpus", 2]) as parent:
        while "epoch 1 of 4" not in log(work) and parent.poll() is None:
            time.sleep(0.01)
        children = children_of(parent.pid)
        parent.send_signal(signal.SIGTERM)
        _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 143
    assert len(children) == 2
    assert not any(is_running(pid) for pid in children)
    (stop,) = re.findall(r"coarse_1: stopped after step (\d+) of 20", errors)
    assert errors.count("cfseg: ") == errors.count("cfseg: stopped; what is finished is kept") == 1
    assert "Traceback" not in errors

    with started([*TORCHRUN, "-m", "cfseg", "train", cohort, "-o", work, *OPTIONS]) as torchrun:
        out, errors = torchrun.communicate(timeout=120)
    assert torchrun.returncode == 0, errors
    assert out.count("| Batch size | 2 |") == 1
    assert f"coarse_1: going on after step {stop}\n" in log(work)
    for epoch in range(1, 5):
        assert log(work).count(f"coarse_1: epoch {epoch} of 4") == 1

    one.join()
    assert one.exitcode == 0
    ours, theirs = final_weights(work), final_weights(alone)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-5)


def children_of(parent):
    lines = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    pairs = [tuple(map(int, line.split())) for line in lines]
    return [pid for pid, of in pairs if of == parent]


# -- how it goes wrong -------------------------------------------------------------------------


def join(number, port):
    """Make this process one of two, as torchrun does."""
    variables = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in variables.items()}


def started_group(words, logs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        warm_start.start(words, file, partial(join, number, port))
        for number, file in enumerate(logs)
    ]


def broken(cohort):
    (cohort / "labelsTr" / "full_a.nii.gz").write_bytes(b"no label map")
    return "E_BAD_CASES", 4  # the first process looks at the cases


def unlisted(cohort):
    (cohort / "manifest.json").write_text("{")
    return "manifest.json", 2  # all of them read it


@pytest.mark.parametrize("damage", [broken, unlisted])
def test_a_bad_cohort_is_told_of_once(tmp_path, damage):
    cohort, logs = tiny_cohort.write(tmp_path / "cohort"), [tmp_path / "0", tmp_path / "1"]
    said, code = damage(cohort)
    group = started_group(["train", cohort, "-o", tmp_path / "w", *OPTIONS], logs)
    while all(process.is_alive() for process in group):
        time.sleep(0.01)
    ends = []
    for process in group:
        if process.is_alive():
            process.terminate()  # as torchrun does when one has ended
        process.join(60)
        ends.append(process.exitcode)
    assert sorted(ends) == [code, 143]
    told = [file.read_text() for file in logs]
    assert told[ends.index(143)] == ""
    assert told[ends.index(code)].count("cfseg: ") == 1
    assert said in told[ends.index(code)]


def test_a_process_ends_once_its_parent_is_gone(monkeypatch):
    parents, sent = iter([7, 7, 1]), []
    monkeypatch.setattr(group, "os", SimpleNamespace(
        getppid=lambda: next(parents), getpid=lambda: 5, kill=lambda *how: sent.append(how)
    ))  # fmt: skip
    monkeypatch.setattr(group.time, "sleep", lambda seconds: None)
    group._end_with(7)
    assert sent == [(5, signal.SIGTERM)]
    assert next(parents, None) is None


def failed(exitcode, timestamp, local_rank):
    failure = ProcessFailure(local_rank, 1, exitcode, "")
    failure.timestamp = timestamp
    return failure


def ends_by(monkeypatch, failures):
    def run(*words):
        raise ChildFailedError("cfseg", failures)

    monkeypatch.setattr(launch, "elastic_launch", lambda config, entrypoint: run)
    launch.launch(2, ["train"])


def test_the_exit_code_is_that_of_the_process_that_failed_first(monkeypatch):
    failures = {0: failed(143, 3, 0), 1: failed(4, 2, 1)}
    with pytest.raises(SystemExit) as caught:
        ends_by(monkeypatch, failures)
    assert caught.value.code == 4


def test_a_process_that_was_killed_is_named(monkeypatch):
    failures = {0: failed(143, 2, 0), 1: failed(-signal.SIGKILL, 1, 1)}
    with pytest.raises(ResourceError, match="process 1 of 2 was ended by signal 9"):
        ends_by(monkeypatch, failures)


def test_what_cannot_be_shared_is_refused():
    launch.check_processes(4, 2, torch.device("cpu"))
    with pytest.raises(UsageError, match="batch of 2 cannot be shared evenly"):
        launch.check_processes(2, 3, torch.device("cpu"))
    here = torch.cuda.device_count()
    with pytest.raises(UsageError, match=f"{here} CUDA devices are here"):
        launch.check_processes(here + 1, here + 1, torch.device("cuda"))
