import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2", reason="training needs cfseg[train]")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

SCRIPT = Path(__file__).parent / "two_ranks.py"
WAIT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("ready", flush=True)
time.sleep(60)
"""


SKIP = """
import torch
from torch.nn.parallel import DistributedDataParallel
from torch import distributed
from cfseg.training.distributed import group_of
from cfseg.training.iteration import learn

with group_of("cpu") as device:
    torch.manual_seed(0)
    network = DistributedDataParallel(torch.nn.Linear(2, 1), find_unused_parameters=True)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    rank, steps = distributed.get_rank(), []
    for value in (1.0, float("nan") if rank == 0 else 1.0, 1.0):
        batch = {"data": torch.full((1, 2), value + rank), "target": torch.zeros(1, 1)}
        loss = torch.nn.functional.mse_loss
        steps.append(learn(network, loss, optimizer, None, batch, device)[1])
    total = torch.stack([p.detach().sum() for p in network.parameters()]).sum()
    both = [torch.zeros(()) for _ in range(2)]
    distributed.all_gather(both, total)
    if rank == 0:
        print(steps, bool(both[0] == both[1]), bool(torch.isfinite(total)))
"""


def run_group(code, processes, hear=lambda line: None):
    from cfseg.training.process_group import run_group

    run_group([sys.executable, "-c", code], processes, hear)


def test_two_processes_learn_as_one_does_and_only_the_first_writes(trained, tmp_path):
    """Acceptance 4: the same batches, no augmentation, equal loss weights, 20 iterations."""
    from cfseg.training.process_group import run_group

    pipeline = trained.pipeline
    values = {"iterations_per_epoch": 20, "rare_label_exponent": 0.0, "cpu_precision": "fp32"}
    values |= {"save_every_minutes": 1e-9}  # so that there is a lot to write
    training = pipeline.training.model_copy(update=values)
    (tmp_path / "training.json").write_text(training.model_dump_json())
    command = [sys.executable, str(SCRIPT), str(pipeline.work), str(tmp_path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    run_group(command, 2, lambda line: None)

    one, first, second = (
        json.loads((tmp_path / f"losses_{name}.json").read_text()) for name in ("1_0", "2_0", "2_1")
    )
    assert len(one) == 20
    assert first == second
    assert np.abs(np.subtract(one, first)).max() < 1e-4
    assert one[0] - one[-1] > 0.01  # it learned, so its steps were compared, not its start

    def written(rank):
        return [p for p in (tmp_path / "world_2" / f"rank_{rank}").rglob("*") if p.is_file()]

    assert {"checkpoint_final.pth", "checkpoint_best.pth"} <= {p.name for p in written(0)}
    assert written(1) == []
    weights = [
        torch.load(next((tmp_path / world).rglob("checkpoint_final.pth")), weights_only=False)
        for world in ("world_1", "world_2")
    ]
    for name, tensor in weights[0]["network_weights"].items():
        assert torch.allclose(tensor, weights[1]["network_weights"][name], atol=1e-4)


def test_a_network_is_trained_by_two_processes_and_stops_for_both(trained, tmp_path):
    from cfseg.training.keep import FOLD
    from cfseg.training.train_network import train_network
    from cfseg.training.workspace import StageFolder

    pipeline = trained.pipeline
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / name).symlink_to(pipeline.work / name)
    training = pipeline.training.model_copy(update={"iterations_per_epoch": 4})
    folder, lines, seen = StageFolder(tmp_path, "organ"), [], []

    def train(stop_at):
        def progress(name, done, total):
            seen.append((name, done, total))
            if done == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        train_network(
            folder, 1, training, training.organ, torch.device("cpu"), lines.append,
            processes=2, progress=progress,
        )  # fmt: skip

    fold = folder.model(1) / FOLD
    with pytest.raises(SystemExit) as caught:
        train(stop_at=1)
    assert caught.value.code == 143
    done = len(torch.load(fold / "checkpoint_latest.pth", weights_only=False)["cfseg"]["losses"])
    assert 1 <= done <= 4
    train(stop_at=None)
    assert f"going on after epoch 0 and {done} iterations" in lines
    assert seen[-1] == ("organ_1", 4, 4)
    assert (fold / "checkpoint_final.pth").is_file()
    assert json.loads((fold / "effort.json").read_text())["processes"] == 2


def test_sigterm_reaches_all_processes_and_ends_with_143():
    def on_ready(line):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    start = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        run_group(WAIT, 2, on_ready)
    assert caught.value.code == 143
    assert time.monotonic() - start < 30


def test_where_one_process_dies_the_others_end_too():
    from cfseg.errors import ResourceError

    code = f"import os\nif os.environ['RANK'] == '1': raise SystemExit(9)\n{WAIT}"
    start = time.monotonic()
    with pytest.raises(ResourceError, match="ended with 9"):
        run_group(code, 2)
    assert time.monotonic() - start < 30


def test_a_process_ends_when_its_parent_was_killed():
    code = "from cfseg.training import distributed; distributed._end_with_parent()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.stdin.close()
        assert process.wait(timeout=60) == -signal.SIGTERM


def test_what_cannot_be_shared_is_refused():
    from cfseg.training.distributed import check_processes

    from cfseg.errors import UsageError

    check_processes(4, 2, torch.device("cpu"))
    with pytest.raises(UsageError, match="batch of 2 cannot be shared evenly"):
        check_processes(2, 3, torch.device("cpu"))
    here = torch.cuda.device_count()
    with pytest.raises(UsageError, match=f"{here} CUDA devices are here"):
        check_processes(here + 1, here + 1, torch.device("cuda"))


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("lambda: None", 0),
        ("lambda: sys.exit(143)", 143),
        ("lambda: sys.exit('no')", 1),
        ("lambda: 1 / 0", 1),
        ("lambda: signal.raise_signal(signal.SIGINT)", 130),
    ],
)
def test_a_process_of_a_group_ends_as_its_part_does(part, code):
    program = (
        "import signal, sys\n"
        "from cfseg.training.distributed import run_and_end\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"run_and_end({part})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == code
    assert (b"ZeroDivisionError" in done.stderr) == ("1 / 0" in part)


def test_t05_processes_find_each_other_and_agree_on_a_step_that_is_left_out():
    lines = []
    run_group(SKIP, 2, lambda line: lines.append(line.strip()))
    assert "[True, False, True] True True" in lines
