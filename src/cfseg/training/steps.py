"""A chain of steps that resumes: what was done with the same inputs is not done again.

Each step leaves a marker with the digest of its inputs. A step whose inputs changed starts from
nothing; one that was stopped half-way goes on. Several processes may run one chain: each takes the
next step that nobody is at and that waits for nothing.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import IO, Any

from pydantic import Field, TypeAdapter

from cfseg.batch.claims import NO_LOCKS, claimed
from cfseg.errors import UsageError
from cfseg.foreign import Stored, read_object
from cfseg.io import make_folder, write_json, writing
from cfseg.plan import ROLES, Role

Report = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Gets the name of what is going on, how much of it is done, and how much there is."""
BEAT_SECONDS = 20.0
"""How often a running step writes down how long it has been at it: a kill loses no more."""
WAIT_SECONDS = 2.0
"""How often a process that has nothing to do looks whether another one finished a step."""


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
        needs: names of the steps of the chain that have to be done before.
    """

    name: str
    about: str
    inputs: Callable[[], dict[str, Any]]
    run: Callable[[], None]
    clear: Callable[[], None]
    serves: tuple[Role, ...] = ROLES
    needs: tuple[str, ...] = ()

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
    """Run the steps, without those that are done, until all are.

    Where another process is at a step, this one takes another that waits for nothing, the one
    with the most steps behind it first; where there is none, it waits.

    Args:
        folder: of the markers.
        steps: the chain.
        report: gets a line for each step.
    """
    heads = {s.name: f"[{number}/{len(steps)}] {s.about}" for number, s in enumerate(steps, 1)}
    left = list(steps)
    waiting = False
    while left := _without_done(folder, left, heads, report):
        for step in _ready(left):
            if _run_if_free(folder, step, heads, report):
                waiting = False
                break
        else:
            if not waiting:
                report("waiting for another process that works in this folder")
            waiting = True
            sleep(WAIT_SECONDS)


def _ready(left: Sequence[Step]) -> list[Step]:
    """Return what waits for nothing: the next of the chain, then what most steps wait for.

    Args:
        left: the steps that are not done, in the order of the chain.
    """
    names = {step.name for step in left}
    behind: dict[str, int] = {}  # length of the longest chain that a step holds up
    for step in reversed(left):
        held = (behind[other.name] for other in left if step.name in other.needs)
        behind[step.name] = 1 + max(held, default=0)
    ready = [step for step in left if names.isdisjoint(step.needs)]
    return ready[:1] + sorted(ready[1:], key=lambda step: -behind[step.name])


def _without_done(
    folder: Path, steps: list[Step], heads: dict[str, str], report: Report
) -> list[Step]:
    """Return the steps that are not done; report those that are, unless this process did them."""
    left = [step for step in steps if not is_done(folder, step)]
    for step in steps:
        if step not in left and step.name in heads:
            report(f"{heads.pop(step.name)}: done before")
    return left


def _run_if_free(folder: Path, step: Step, heads: dict[str, str], report: Report) -> bool:
    """Run a step unless another process is at it or did it just now; say whether it was run."""
    make_folder(folder)
    with claimed(folder / f".{step.name}.lock", wait=False) as mine:
        if not mine or is_done(folder, step):
            return False
        head = heads.pop(step.name)
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
        report(f"{head.partition(' ')[0]} took {seconds:.0f} s")
        return True


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
def shared(folder: Path, task: Mapping[str, Any]) -> Iterator[None]:
    """Let in only processes with the same task: they share the steps.

    Args:
        folder: the workspace.
        task: what is to be done there; JSON.

    Raises:
        UsageError: another process does something else there.
        ResourceError: ``E_DISK``, the folder cannot be written.
    """
    make_folder(folder)
    with writing(folder / ".lock"):
        file = (folder / ".lock").open("a+", encoding="utf-8")
    with file:
        if _lock(file, exclusive=True):
            file.truncate(0)
            file.write(json.dumps(task))
            file.flush()
        _lock(file, exclusive=False)
        file.seek(0)
        if json.loads(file.read()) != json.loads(json.dumps(task)):
            raise UsageError(
                f"{folder}: another cfseg train works in this folder with another recipe or "
                "cohort; wait for it, or choose another folder"
            )
        yield


def _lock(file: IO[str], *, exclusive: bool) -> bool:
    """Lock a file for as long as it is open; say whether it is.

    Args:
        file: in question.
        exclusive: for this process alone, if nobody has it; else beside others, once a process
            that has it alone is through.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except ImportError:  # not on this system: a workspace is for one process there
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


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
