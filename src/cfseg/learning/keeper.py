"""What is kept of a training: a state to go on from, the best weights, the last ones."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from cfseg.errors import UsageError
from cfseg.inference.process_memory import peak_bytes
from cfseg.learning import checkpoints
from cfseg.learning.group import as_first, is_first, processes
from cfseg.learning.run import Epoch, Kept, Outcome, Place, Settings, State, Validate
from cfseg.learning.schedule import learning_rate
from cfseg.learning.trainee import Trainee, ready_to_predict


class Keeper:
    """Ends epochs and writes checkpoints; in a group of processes only the first one writes.

    Args:
        place: of the checkpoints.
        trainee: of the network.
        settings: of the training.
    """

    def __init__(self, place: Place, trainee: Trainee, settings: Settings) -> None:
        self.place, self.trainee, self.settings = place, trainee, settings
        self.saved_at = perf_counter()

    def resume(self, name: str, report: Callable[[str], None]) -> State:
        """Go on from the newest checkpoint that is whole; without one, begin.

        Args:
            name: of the network.
            report: is told what it goes on from.

        Raises:
            UsageError: it is of other settings.
            ModelError: none is whole, or it is of another network.
        """
        found = None
        if is_first():
            found = checkpoints.newest(self.place.folder, "state", report)
        found = as_first(found)
        state = State()
        if found is not None:
            tensors, values = found
            _check_same(values["settings"], self.settings, self.place.folder)
            state = State.model_validate(values["state"])
            self.trainee.restore(tensors)
            if state.scaler:
                self.trainee.scaler.load_state_dict(state.scaler)
            report(f"{name}: going on after step {state.step}")
        self.trainee.share()
        update = {"device": self.trainee.device.type, "processes": processes()}
        state.cost = state.cost.model_copy(update=update)
        return state

    def end_epoch(self, state: State, validate: Validate | None) -> None:
        """Validate if it is time to, keep the best weights and add a row to the history."""
        settings, epoch = self.settings, len(state.history) + 1
        score = None
        is_due = epoch % settings.keep_every_epochs == 0 or epoch == settings.epochs
        if is_due and validate is not None:
            self.save(state)  # a validation may take long
            began = perf_counter()
            with ready_to_predict(self.trainee.best_network()) as network:
                score = as_first(_number(validate(network, epoch)))
            self._keep(state.step, epoch, score)
            state.cost = state.cost.plus(validation_seconds=perf_counter() - began)
        loss = fmean(state.losses) if state.losses else None
        lr = learning_rate(settings, epoch - 1, settings.epochs)
        state.history.append(Epoch(epoch=epoch, loss=loss, lr=lr, score=score))
        state.losses = []
        if is_due or epoch % self.place.save_every_epochs == 0:
            self.save(state)

    def is_late(self) -> bool:
        """Say whether a checkpoint is due by time."""
        return perf_counter() - self.saved_at > 60 * self.place.save_every_minutes

    def save(self, state: State) -> None:
        """Write a checkpoint to go on from; the one before it stays.

        While steps are left out there is none: the weights may be why.
        """
        if not is_first() or state.skipped:
            return
        began, folder = perf_counter(), self.place.folder
        state.scaler = dict(self.trainee.scaler.state_dict())
        self._measure(state)
        new = checkpoints.write(
            folder, "state", state.step, self.trainee.tensors(), self._values(state)
        )
        earlier = [sheet for sheet in checkpoints.listed(folder, "state") if sheet < new]
        checkpoints.keep_only(folder, "state", [new, *earlier[-1:]])
        self.saved_at = perf_counter()
        state.cost = state.cost.plus(saving_seconds=self.saved_at - began)

    def finish(self, state: State) -> Outcome:
        """Write the last weights; from then on there is nothing to go on from."""
        if is_first():
            self._measure(state)
            checkpoints.write(
                self.place.folder, "final", state.step, self.trainee.weights(), self._values(state)
            )
            checkpoints.keep_only(self.place.folder, "state", [])
        # Others may not see the folder.
        return as_first(_outcome_of(self.place.folder, state))

    def _keep(self, step: int, epoch: int, score: float | None) -> None:
        """Keep weights if they are among the best."""
        folder, at_most = self.place.folder, self.place.keep_at_most
        if not is_first():
            return
        others = [kept for kept in kept_weights(folder) if kept.epoch != epoch]
        if len(others) < at_most or _rank(epoch, score) < _rank(*others[at_most - 1][1:]):
            values = {"epoch": epoch, "score": score}
            checkpoints.write(folder, "kept", step, self.trainee.weights(), values)
        best = kept_weights(folder)[:at_most]
        checkpoints.keep_only(folder, "kept", [kept.path for kept in best])

    def _measure(self, state: State) -> None:
        peak = max(state.cost.peak_mb, peak_bytes(self.trainee.device) / 2**20)
        state.cost = state.cost.model_copy(update={"peak_mb": round(peak, 1)})

    def _values(self, state: State) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "state": state.model_dump(mode="json"),
        }


def kept_weights(folder: Path) -> tuple[Kept, ...]:
    """Return the weights that were kept, best first.

    Args:
        folder: of the checkpoints.

    Raises:
        ModelError: a file of them is damaged.
    """
    values = {path: checkpoints.values_of(path) for path in checkpoints.listed(folder, "kept")}
    found = [Kept(path, value["epoch"], value["score"]) for path, value in values.items()]
    return tuple(sorted(found, key=lambda kept: _rank(kept.epoch, kept.score)))


def _rank(epoch: int, score: float | None) -> tuple[float, int]:
    """Return what sorts the best first; of equals the earlier."""
    return (math.inf if score is None else -score), epoch


def _number(score: float | None) -> float | None:
    return None if score is None or math.isnan(score) else float(score)


def finished(place: Place, settings: Settings) -> Outcome | None:
    """Return the outcome of a training that is over already; None if it is not."""
    found = None
    if is_first() and (finals := checkpoints.listed(place.folder, "final")):
        _, values = checkpoints.read(finals[-1])
        _check_same(values["settings"], settings, place.folder)
        checkpoints.keep_only(place.folder, "state", [])  # a kill may have come before that
        found = _outcome_of(place.folder, State.model_validate(values["state"]))
    return as_first(found)


def _outcome_of(folder: Path, state: State) -> Outcome:
    final = folder / f"final_{state.step:08d}.json"
    return Outcome(final, kept_weights(folder), tuple(state.history), state.cost)


def _check_same(known: Mapping[str, Any], settings: Settings, folder: Path) -> None:
    now = settings.model_dump(mode="json")
    # Another machine may compute in another precision; the run goes on.
    known = {**known, "precision": now["precision"]}
    changed = [key for key in known.keys() | now.keys() if known.get(key) != now.get(key)]
    if changed:
        listed = ", ".join(f"{k}: {known.get(k)}, now {now.get(k)}" for k in sorted(changed))
        raise UsageError(
            f"{folder}: this training began with other settings ({listed}); give the same, or "
            "another folder"
        )
