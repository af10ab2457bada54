"""A training of seconds: a small network, random windows, and processes that train it."""

import multiprocessing
import os
import socket
from contextlib import nullcontext
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from cfseg.feed.windows import Windows
from cfseg.learning.group import group_of, own_samples
from cfseg.learning.loop import train
from cfseg.learning.losses import head_weights
from cfseg.learning.run import Place, Settings
from cfseg.learning.stopping import noting_signals
from cfseg.networks.build import fresh_network
from cfseg.plan import Architecture, Intensity, StagePlan

BATCH, EDGE, CLASSES, STEPS_PER_EPOCH = 2, 16, 15, 4
PLAN = StagePlan(
    spacing_mm=(6.0, 6.0, 6.0),
    patch=(EDGE, EDGE, EDGE),
    labels=tuple(range(CLASSES)),
    architecture=Architecture(
        features=(4, 8, 8, 8),
        kernel_sizes=((3, 3, 3),) * 4,
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
        n_conv_encoder=(1, 1, 1, 1),
        n_conv_decoder=(1, 1, 1),
    ),
    intensity=Intensity(lower=-200, upper=300, mean=60, std=100),
)


def settings(**others):
    values = {"epochs": 5, "iterations_per_epoch": STEPS_PER_EPOCH, "keep_every_epochs": 2}
    values |= {"head_weights": head_weights(3)}
    return Settings(**values | others)


def windows(step, dtype=torch.float32, ignore=0.0):
    """Return this process's share of a batch: noise that tells a little of its labels."""
    draw = torch.Generator().manual_seed(1000 + step)
    labels = torch.randint(0, CLASSES, (BATCH, EDGE // 4, EDGE // 4, EDGE // 4), generator=draw)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    noise = torch.randn(labels.shape, generator=draw, dtype=torch.float64)
    unknown = (
        torch.rand(labels.shape, generator=draw)
        < ignore * torch.tensor([1.0, 0.3])[:, None, None, None]
    )
    own = slice(own_samples(BATCH).start, own_samples(BATCH).stop)
    scan = (noise + labels / 7 - 1)[own, None].to(dtype)
    return Windows(scan, labels.masked_fill(unknown, 255).to(torch.uint8)[own])


def place(folder):
    # A checkpoint after each step, so that a kill finds something at any moment.
    return Place(folder, save_every_epochs=1, save_every_minutes=1e-9, keep_at_most=2)


def score(network, epoch):
    """Score a network as a validation might: it depends on the weights alone."""
    with torch.no_grad():
        logits = network(windows(0, next(network.parameters()).dtype).scan)
    assert logits.shape[1:] == (CLASSES, EDGE, EDGE, EDGE)
    return float(logits.float().std())


def run(folder, dtype=torch.float32, feed=None, seed=0, wanted=None, **how):
    network = fresh_network(PLAN, seed).to(dtype)
    how = {"report": lambda line: None, "validate": score} | how
    return train(
        network,
        feed or (lambda step: windows(step, dtype)),
        wanted or settings(),
        place(folder),
        **how,
    )


# -- in processes of their own -----------------------------------------------------------------

_CONTEXT = multiprocessing.get_context("forkserver")
# The server of processes finds no modules beside the tests; optimizers load the last one.
_CONTEXT.set_forkserver_preload(["cfseg.networks.build", "cfseg.learning.loop", "torch._dynamo"])


def start(target, *arguments, rank=0, world=1, port=0) -> ForkServerProcess:
    """Start a function of this module in a process, forked from one that has loaded torch."""
    variables = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1"}
    variables |= {"MASTER_PORT": port}
    process = _CONTEXT.Process(target=_enter, args=(variables, target, arguments))
    process.start()
    return process


def start_group(target, *arguments, world=2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(target, *arguments, rank=r, world=world, port=port) for r in range(world)]


def _enter(variables, target, arguments):
    os.environ |= {name: str(value) for name, value in variables.items()}
    torch.set_num_threads(1)
    world = variables["WORLD_SIZE"]
    with group_of("cpu") if world > 1 else nullcontext():
        target(*arguments)


def train_slowly(folder: Path, wanted: Settings, steps_file: Path):
    """Train, and append the number of each step to a file."""

    def on_step(step):
        with steps_file.open("a") as lines:
            lines.write(f"{step.done}\n")

    with noting_signals() as stop:
        run(folder, wanted=wanted, on_step=on_step, stop=stop)


def train_in_group(folder: Path, wanted: Settings, ignore: float):
    """Train in float64 and write the losses and the weights beside the folder."""
    rank, losses = os.environ["RANK"], []
    network = fresh_network(PLAN, int(rank)).double()  # the group takes the first one's weights
    train(
        network,
        lambda step: windows(step, torch.float64, ignore),
        wanted,
        place(folder),
        report=lambda line: None,
        on_step=lambda step: losses.append(step.loss),
    )
    weights = torch.cat([w.detach().flatten() for w in network.parameters()])
    torch.save((losses, weights), folder.with_name(f"{folder.name}_{rank}.pt"))
