"""The loop that trains a network: windows in, weights out.

It knows no cohort. Windows come from a function of the step, and nothing here is drawn at random,
so a run that was killed goes on as if nothing had happened: on a CPU in fp32 with as many threads
the weights are the same bit for bit. Under torchrun each process gives its share of every batch,
and the first one writes.
"""

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import nn

from cfseg.errors import ModelError
from cfseg.feed.windows import Windows
from cfseg.learning.group import mean_of_all, processes
from cfseg.learning.keeper import Keeper, finished
from cfseg.learning.run import Epoch, Outcome, Place, Settings, State, Step, Validate
from cfseg.learning.schedule import learning_rate
from cfseg.learning.stopping import Stop, leave
from cfseg.learning.trainee import Trainee, all_heads

MAX_NORM = 12.0
"""nnU-Net's, of all gradients together."""
TOLD = {"fp32": 1, "bf16": 1, "fp16": 5}
"""After how many steps in a row that were left out it is told; in fp16 the scale of the losses is
found by leaving out some."""
MOST_SKIPPED = 20
"""Steps in a row whose loss or gradients are not finite."""


def train(
    network: nn.Module,
    windows: Callable[[int], Windows],
    settings: Settings,
    place: Place,
    *,
    name: str = "network",
    report: Callable[[str], None] = print,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    validate: Validate | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Train a network to its last epoch, from wherever it was.

    Args:
        network: of :func:`cfseg.networks.build.build_network`, with its first weights, on its
            device.
        windows: gives this process's share of the batch of a step, counted from 0.
        settings: what decides the weights.
        place: of the checkpoints.
        name: of the network, in messages.
        report: gets what there is to tell, a line at a time.
        on_step: is told about each step.
        on_epoch: is told about each epoch.
        validate: scores the network, ready to predict, after an epoch; more is better. All
            processes call it, and what the first one says holds.
        stop: whether a signal came; looked at after each step.

    Raises:
        UsageError: the checkpoints are of other settings.
        ModelError: ``E_NONFINITE_LOSS``, too many steps were left out; or no checkpoint is whole.
        ResourceError: ``E_DISK``, a checkpoint cannot be written; those before it are as they were.
        SystemExit: with 143, SIGTERM came; the state is saved.
        KeyboardInterrupt: the same for SIGINT.
    """
    over = finished(place, settings)
    if over is not None:
        return over
    trainee, stop = Trainee(network, settings), stop or Stop()
    keeper = Keeper(place, trainee, settings)
    state = keeper.resume(name, report)
    with all_heads(network, settings):
        while True:
            epoch = state.step // settings.iterations_per_epoch
            if epoch > len(state.history):
                keeper.end_epoch(state, validate)
                if on_epoch:
                    on_epoch(state.history[-1])
            if state.step == settings.steps:
                break
            began, start = _now(trainee.device), perf_counter()
            batch = windows(state.step)
            fed, lr = _now(trainee.device), learning_rate(settings, epoch, settings.epochs)
            loss = learn(trainee, batch, lr)
            step = Step(
                state.step + 1, settings.steps, len(batch.labels) * processes(),
                loss, lr, perf_counter() - start, _seconds(began, fed),
            )  # fmt: skip
            _count(state, step, name, report, TOLD[settings.precision])
            if on_step:
                on_step(step)
            asked = stop.agreed(trainee.device)
            if asked or keeper.is_late():
                keeper.save(state)
            if asked:
                report(f"{name}: stopped after step {step.done} of {step.total}; run it again")
                leave(asked)
    return keeper.finish(state)


def learn(trainee: Trainee, windows: Windows, lr: float) -> float:
    """Take a step of the optimizer, unless the loss or its gradients are not finite.

    Such a step would end the training: every later one would meet weights that are no numbers.

    Args:
        trainee: the network.
        windows: this process's share of the batch.
        lr: learning rate.

    Returns:
        The loss of the joined batch, the same in all processes; NaN if it was not a step.
    """
    optimizer, scaler = trainee.optimizer, trainee.scaler
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    with trainee.autocast():
        heads = trainee.shared(windows.scan)
    loss = trainee.loss(heads, windows.labels)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(trainee.network.parameters(), MAX_NORM)
    value, size = mean_of_all(torch.stack([loss.detach(), norm.to(loss)])).tolist()
    is_finite = math.isfinite(value) and math.isfinite(size)
    if is_finite:
        scaler.step(optimizer)
        trainee.follow()
    scaler.update()
    return value if is_finite else math.nan


def _count(state: State, step: Step, name: str, report: Callable[[str], None], told: int) -> None:
    """Take note of a step.

    Raises:
        ModelError: ``E_NONFINITE_LOSS``, too many in a row were left out.
    """
    state.step = step.done
    state.cost = state.cost.after(step)
    if not math.isnan(step.loss):
        state.losses.append(step.loss)
        state.skipped = 0
        return
    state.skipped += 1
    if state.skipped == told:
        report(
            f"{name}: step {step.done}: the loss or its gradients are not finite; steps are left "
            "out until they are"
        )
    if state.skipped == MOST_SKIPPED:
        raise ModelError(
            f"{name}: the loss or its gradients were not finite in {MOST_SKIPPED} steps in a row; "
            "the last checkpoint is untouched. Look for damaged cases with cfseg dataset check, "
            "lower training.initial_lr, or train in fp32, and run it again",
            code="E_NONFINITE_LOSS",
        )


def _now(device: torch.device) -> Any:  # noqa: ANN401 - a time, or an event of a GPU
    """Return this moment in the device's work, without waiting for it."""
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(began: Any, ended: Any) -> float:  # noqa: ANN401 - see _now
    """Return the seconds between two moments that the device has reached."""
    if isinstance(began, float):
        return float(ended - began)
    return float(began.elapsed_time(ended)) / 1000
