"""A chain of steps that resumes: what was done with the same inputs is not done again.

Each step leaves a marker with the digest of its inputs. A step whose inputs changed starts from
nothing; one that was stopped half-way, or whose outcome is no longer whole, goes on. In a group of
processes the first one does the steps, and the others join those that all of them share.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

from pydantic import Field, TypeAdapter

from cfseg.batch.claims import claimed
from cfseg.errors import ResourceError, UsageError
from cfseg.foreign import Stored, read_object
from cfseg.io import make_folder, write_json
from cfseg.io.atomic import TEMPORARY_PREFIX, remove_quietly
from cfseg.learning.group import as_first, is_first
from cfseg.plan import ROLES, Role

Report = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Gets the name of what is going on, how much of it is done, and how much there is."""
BEAT_SECONDS = 20.0
"""How often a running step writes down how long it has been at it: a kill loses no more."""


def _always() -> bool:
    return True


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
        is_joint: all processes of a group do it together.
        is_whole: says whether what a finished step made is still there.
    """

    name: str
    about: str
    inputs: Callable[[], dict[str, Any]]
    run: Callable[[], None]
    clear: Callable[[], None]
    serves: tuple[Role, ...] = ROLES
    is_joint: bool = False
    is_whole: Callable[[], bool] = _always

    @cached_property
    def digest(self) -> str:
        """The sha256 of the inputs."""
        return json_digest(self._inputs)

    @cached_property
    def parts(self) -> dict[str, str]:
        """A short digest of each part of the inputs, so that what changed can be named."""
        return {name: json_digest(value)[:12] for name, value in _parts(self._inputs)}

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        return self.inputs()


def json_digest(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return the sha256 of a value, as JSON with sorted keys."""
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
    """Say whether a step was finished with these inputs, and what it made is still there.

    Args:
        folder: of the markers.
        step: in question.
    """
    marker = _read(folder, step)
    return bool(marker.get("done")) and marker.get("digest") == step.digest and step.is_whole()


def run_steps(folder: Path, steps: Sequence[Step], report: Report) -> None:
    """Run the steps one after the other, without those that are done.

    Args:
        folder: of the markers.
        steps: the chain.
        report: gets a line for each step.
    """
    for number, step in enumerate(steps, 1):
        place = f"[{number}/{len(steps)}]"
        if as_first(is_first() and is_done(folder, step)):
            report(f"{place} {step.about}: done before")
        elif is_first():
            _run(folder, step, place, report)
        else:
            as_first(None)  # begun
            if step.is_joint:
                step.run()
            as_first(None)  # done


def _run(folder: Path, step: Step, place: str, report: Report) -> None:
    make_folder(folder)
    marker, others = _read(folder, step), changed(folder, step)
    seconds = float(marker.get("seconds", 0.0))
    if marker.get("digest") != step.digest:
        step.clear()
        seconds = 0.0
    again = f", again because of other {', '.join(others)}" if others else ""
    report(f"{place} {step.about}{again}")
    as_first(None)
    with _timed(folder, step, seconds):
        step.run()
    seconds = seconds_of(folder, [step])[step.name]
    _write(folder, step, done=True, seconds=seconds)
    as_first(None)
    report(f"{place} took {seconds:.0f} s")


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
            with suppress(ResourceError):  # the step itself will meet what refuses
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
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a workspace, and remove what a killed one left half-written.

    Args:
        folder: the workspace.

    Raises:
        UsageError: another run is in it.
        ResourceError: ``E_DISK``, the folder cannot be written.
    """
    make_folder(folder)
    with claimed(folder / ".lock", wait=False) as mine:
        if not mine:
            raise UsageError(
                f"{folder}: another cfseg train works in this folder; wait for it, or choose "
                "another folder"
            )
        for left in list(folder.rglob(f"{TEMPORARY_PREFIX}*")):  # by an attempt that was killed
            remove_quietly(left)
        yield


def remove(folder: Path) -> None:
    """Remove a folder, if it is there: a step's ``clear``."""
    if folder.exists():
        shutil.rmtree(folder)


def nothing() -> None:
    """Clear nothing: what the step writes is replaced."""


def _path(folder: Path, step: Step) -> Path:
    return folder / f"{step.name}.json"


class _Marker(Stored):
    digest: str
    done: bool
    seconds: float
    parts: dict[str, Any] = Field(default_factory=dict)


_MARKER = TypeAdapter(_Marker)


def _read(folder: Path, step: Step) -> dict[str, Any]:
    try:
        return read_object(_path(folder, step), _MARKER)
    except (OSError, ValueError):
        return {}


def _write(folder: Path, step: Step, *, done: bool, seconds: float) -> None:
    marker = {"digest": step.digest, "done": done, "seconds": round(seconds, 1)}
    marker["parts"] = step.parts
    write_json(_path(folder, step), marker)
