"""One mutant, or many in processes that may crash: made, read, timed and weighed."""

import faulthandler
import logging
import random
import resource
import signal
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

from tests.fuzz.kinds import KINDS, attempt

from cfseg.errors import RESOURCE_CODES

MOST_SECONDS = 10.0
MOST_MB = 2000
GRACE_SECONDS = 5.0
"""After a hang that not even a signal ends, the process is ended."""
UNDECLARED = RESOURCE_CODES | {"E_INTERNAL"}
"""What can be wrong with no input: a bug, and a machine that this one is not."""
Mutant = tuple[str, int]
"""Kind and number."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        mutant: that it was.
        codes: of the refusals of what was in it, "" for each thing that was read.
        fault: that cfseg has shown, "" if it has not.
        seconds: that reading took.
        mb: of memory that it took at its peak, beyond what there was before; children count.
    """

    mutant: Mutant
    codes: tuple[str, ...] = ()
    fault: str = ""
    seconds: float = 0.0
    mb: float = 0.0


class HangError(BaseException):
    """Reading takes too long; nothing that cfseg catches."""


def run_one(mutant: Mutant, seed: int, folder: Path) -> Outcome:
    """Make a mutant and read it.

    Args:
        mutant: kind and number.
        seed: of all of them.
        folder: empty; there the mutant lies.
    """
    kind, rng = KINDS[mutant[0]], rng_of(mutant, seed)
    path = kind.make(folder, rng)
    codes: list[str] = []
    fault, before_mb, began = "", _peak_mb(reset=True), perf_counter()
    try:
        with _limited(MOST_SECONDS), _silent():
            codes.append(attempt(lambda: codes.extend(kind.read(path, rng))))
    except (Exception, HangError) as error:
        fault = _told(error)
    seconds, mb = perf_counter() - began, _peak_mb() - before_mb
    if not fault and (undeclared := UNDECLARED.intersection(codes)):
        fault = f"refused with {', '.join(undeclared)}"
    if not fault and mb > MOST_MB:
        fault = f"took {mb:.0f} MB"
    return Outcome(mutant, tuple(codes if any(codes) else codes[:1]), fault, seconds, mb)


def rng_of(mutant: Mutant, seed: int) -> random.Random:
    """Return what decides about a mutant: how it is made, and with which options it is read."""
    return random.Random(f"{seed} {mutant}")  # noqa: S311 - no secret


def run_all(
    mutants: Sequence[Mutant], seed: int, jobs: int, on_outcome: Callable[[Outcome], None]
) -> None:
    """Run mutants in so many processes, started again where one crashes.

    Args:
        mutants: kind and number of each.
        seed: of all of them.
        jobs: how many processes.
        on_outcome: called with each outcome, one at a time.
    """
    lock = threading.Lock()

    def put(outcome: Outcome) -> None:
        with lock:
            on_outcome(outcome)

    shares = [
        threading.Thread(target=_run_share, args=(mutants[first::jobs], seed, put))
        for first in range(jobs)
    ]
    for share in shares:
        share.start()
    for share in shares:
        share.join()


def _run_share(mutants: Sequence[Mutant], seed: int, put: Callable[[Outcome], None]) -> None:
    context = get_context("spawn")
    while mutants:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(mutants, seed, theirs))
        process.start()
        theirs.close()
        done = 0
        with suppress(EOFError):
            while done < len(mutants):
                put(ours.recv())
                done += 1
        process.join()
        if done < len(mutants):
            put(Outcome(mutants[done], fault=f"ended the process, code {process.exitcode}"))
            done += 1
        mutants = mutants[done:]


def _work(mutants: Sequence[Mutant], seed: int, answers: Connection) -> None:
    """Run mutants in this process, which dies of a hang in native code, and never of a flood."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MB * 10**6, hard))
    for mutant in mutants:
        faulthandler.dump_traceback_later(MOST_SECONDS + GRACE_SECONDS, exit=True)
        with tempfile.TemporaryDirectory(prefix="cfseg-fuzz-") as folder:
            answers.send(run_one(mutant, seed, Path(folder)))
    faulthandler.cancel_dump_traceback_later()


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise HangError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Refusing(logging.Handler):
    """Takes what a library logs, which people would see, for a fault."""

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(f"logged: {record.getMessage()}")


@contextmanager
def _silent() -> Iterator[None]:
    handler = _Refusing(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logging.getLogger().removeHandler(handler)


def _peak_mb(*, reset: bool = False) -> float:
    """Return the most memory that this process and its children have held, in MB (Linux).

    Args:
        reset: forget what was before, so that the next peak is a later one.
    """
    own = Path("/proc/self")
    children = (own / "task" / str(threading.get_native_id()) / "children").read_text().split()
    total = 0.0
    for process in (own, *(Path("/proc") / child for child in children)):
        with suppress(OSError):  # a child that has just ended
            if reset:
                (process / "clear_refs").write_text("5")
            lines = (process / "status").read_text().splitlines()
            total += sum(int(it.split()[1]) * 1024 / 1e6 for it in lines if it.startswith("VmHWM"))
    return total


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [it for it in frames if "/src/cfseg/" in it.filename or "/tests/" in it.filename]
    last = (ours or frames)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__}: {str(error)[:200]} ({where})"
