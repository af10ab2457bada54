"""A chain of steps that resumes: what was done with the same inputs is not done again.

Each step leaves a marker with the digest of its inputs. A step whose inputs changed starts from
nothing; one that was stopped half-way goes on.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

from cfseg.errors import UsageError
from cfseg.io import write_json
from cfseg.plan import ROLES, Role

Report = Callable[[str], None]
BEAT_SECONDS = 20.0
"""How often a running step writes down how long it has been at it: a kill loses no more."""


@dataclass(frozen=True)
class Step:
    """One step of a chain.

    Attributes:
        name: of the step and of its marker.
        about: what it does, with case counts.
        inputs: gives what decides its outcome; JSON. It is asked only where there is a marker to
            compare with, because it may read the label maps of a whole cohort.
        run: does it, going on from what an earlier attempt with the same inputs left.
        clear: removes what an attempt with other inputs left.
        serves: the stages that cannot be had without this step.
    """

    name: str
    about: str
    inputs: Callable[[], dict[str, Any]]
    run: Callable[[], None]
    clear: Callable[[], None]
    serves: tuple[Role, ...] = ROLES

    @cached_property
    def digest(self) -> str:
        """The sha256 of the inputs."""
        return _sha256(self._inputs)

    @cached_property
    def parts(self) -> dict[str, str]:
        """A short digest of each part of the inputs, so that what changed can be named."""
        return {name: _sha256(value)[:12] for name, value in _parts(self._inputs)}

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        return self.inputs()


def _sha256(value: Any) -> str:  # noqa: ANN401 - JSON
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _parts(inputs: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables with their names, two levels deep at most."""
    for key, value in inputs.items():
        if isinstance(value, dict) and not within:
            yield from _parts(value, f"{key}.")
        else:
            yield f"{within}{key}", value


def changed(folder: Path, step: Step) -> list[str]:
    """Return which inputs of a step are not those of its last run, nothing if there was none.

    Args:
        folder: of the markers.
        step: in question.
    """
    before = _read(folder, step).get("parts", {})
    if not before:
        return []
    return sorted(n for n in {*before, *step.parts} if before.get(n) != step.parts.get(n))


def is_done(folder: Path, step: Step) -> bool:
    """Say whether a step was finished with these inputs.

    Args:
        folder: of the markers.
        step: in question.
    """
    marker = _read(folder, step)
    return bool(marker.get("done")) and marker.get("digest") == step.digest


def run_steps(folder: Path, steps: Sequence[Step], report: Report) -> None:
    """Run the steps in order, without those that are done.

    Args:
        folder: of the markers.
        steps: the chain.
        report: gets a line for each step.
    """
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.about}"
        if is_done(folder, step):
            report(f"{head}: done before")
            continue
        marker = _read(folder, step)
        seconds = float(marker.get("seconds", 0.0))
        if marker.get("digest") != step.digest:
            others = changed(folder, step)
            step.clear()
            seconds = 0.0
            if others:
                head = f"{head}, again because of other {', '.join(others)}"
        report(head)
        with _timed(folder, step, seconds):
            step.run()
        seconds = seconds_of(folder, [step])[step.name]
        _write(folder, step, done=True, seconds=seconds)
        report(f"[{number}/{len(steps)}] took {seconds:.0f} s")


def seconds_of(folder: Path, steps: Sequence[Step]) -> dict[str, float]:
    """Return how long each step took, with all attempts that were stopped."""
    return {step.name: float(_read(folder, step).get("seconds", 0.0)) for step in steps}


@contextmanager
def _timed(folder: Path, step: Step, before: float) -> Iterator[None]:
    """Write down now and then how long a step has been running, so that a kill loses little.

    Args:
        folder: of the markers.
        step: that runs inside the block.
        before: seconds of earlier attempts.
    """
    start, ended = perf_counter(), Event()

    def note() -> None:
        _write(folder, step, done=False, seconds=before + perf_counter() - start)

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            note()

    note()
    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        note()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a second process out of a workspace; a lock of a process that ended is free.

    Raises:
        UsageError: another process works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError as error:
            file.seek(0)
            raise UsageError(
                f"{folder}: another cfseg train works in this folder ({file.read().strip()}); wait "
                "for it, or take another folder"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def shelve(made: Path, work: Path, name: str, report: Report) -> None:
    """Put what was made of other inputs aside: it may have cost days.

    Args:
        made: a network's folder; nothing happens if it is not there.
        work: the workspace, which gets a folder ``replaced``.
        name: of the network.
        report: is told where it is now.
    """
    if made.exists():
        shelf = work / "replaced" / f"{name}_{time.strftime('%Y%m%dT%H%M%S')}"
        shelf.parent.mkdir(parents=True, exist_ok=True)
        made.replace(shelf)
        report(f"  inputs changed; the network trained before is now {shelf}")


def _path(folder: Path, step: Step) -> Path:
    return folder / f"{step.name}.json"


def _read(folder: Path, step: Step) -> dict[str, Any]:
    try:
        marker = json.loads(_path(folder, step).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _write(folder: Path, step: Step, *, done: bool, seconds: float) -> None:
    marker = {"digest": step.digest, "done": done, "seconds": round(seconds, 1)}
    marker["parts"] = step.parts
    write_json(_path(folder, step), marker)
