"""A chain of steps that resumes: what was done with the same inputs is not done again.

Each step leaves a marker with the digest of its inputs. A step whose inputs changed starts from
nothing; one that was stopped half-way goes on.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from cfseg.errors import UsageError
from cfseg.plan import ROLES, Role

Report = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One step of a chain.

    Attributes:
        name: of the step and of its marker.
        about: what it does, with case counts.
        inputs: what decides its outcome; JSON.
        run: does it, going on from what an earlier attempt with the same inputs left.
        clear: removes what an attempt with other inputs left.
        serves: the stages that cannot be had without this step.
    """

    name: str
    about: str
    inputs: dict[str, Any]
    run: Callable[[], None]
    clear: Callable[[], None]
    serves: tuple[Role, ...] = ROLES

    @property
    def digest(self) -> str:
        """The sha256 of the inputs."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()


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
        if _read(folder, step).get("digest") != step.digest:
            step.clear()
        _write(folder, step, done=False, seconds=0.0)
        report(head)
        start = perf_counter()
        step.run()
        seconds = perf_counter() - start
        _write(folder, step, done=True, seconds=seconds)
        report(f"[{number}/{len(steps)}] took {seconds:.0f} s")


def seconds_of(folder: Path, steps: Sequence[Step]) -> dict[str, float]:
    """Return how long each finished step took; only the last attempt of a stopped one counts."""
    return {step.name: float(_read(folder, step).get("seconds", 0.0)) for step in steps}


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a second process out of a workspace.

    Raises:
        UsageError: another process works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError as error:
            raise UsageError(f"{folder}: another cfseg train works in this folder") from error
        yield


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
    folder.mkdir(parents=True, exist_ok=True)
    temporary = _path(folder, step).with_suffix(".tmp")
    temporary.write_text(json.dumps(marker) + "\n", encoding="utf-8")
    temporary.replace(_path(folder, step))
