"""Programs that segment a scan, run one after the other under the same meter.

Each run gets a folder of its own with one scan in it, as in FLARE. Programs take turns case by
case, so that what slows the machine down for a while slows all of them down.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import nibabel as nib
import psutil

from cfseg.errors import (
    EXIT_NONE_DONE,
    EXIT_OK,
    EXIT_PARTIAL,
    InputError,
    ResourceError,
    UsageError,
)
from cfseg.evaluation.efficiency import Efficiency, efficiency
from cfseg.evaluation.meter import GpuMeter, Meter, Sample, processes
from cfseg.io import case_id, files_in
from cfseg.parallel import without_spins

OWN = "cfseg"
_PLACES = ("{input}", "{input_folder}", "{output}")
_LONG_AGO = 946684800  # 2000-01-01: older than any change of a file, so that a reading is noted

OnRun = Callable[["Run", int, int], None]
"""Called after each run, with the number of runs done and of all."""


@dataclass(frozen=True)
class Program:
    """A program that segments a scan.

    Attributes:
        name: safe as a file name.
        words: of its command, with ``{input}`` (the scan), ``{input_folder}`` (a folder with it
            alone) and ``{output}`` (an empty folder for the label map) in them.
    """

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One program on one scan.

    Attributes:
        program: its name.
        case: of the scan.
        image_size: voxels along the stored axes.
        samples: what the meter saw.
        figures: None if the run failed.
        message: why it failed, else empty.
    """

    program: str
    case: str
    image_size: tuple[int, ...]
    samples: tuple[Sample, ...] = ()
    figures: Efficiency | None = None
    message: str = ""


@dataclass(frozen=True)
class Benchmark:
    """All runs.

    Attributes:
        programs: in the order given.
        runs: in the order in which they ran.
        notes: what a reader of the figures should know.
    """

    programs: tuple[Program, ...]
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all runs were measured, 3 some failed, 4 all did."""
        measured = sum(run.figures is not None for run in self.runs)
        if measured == 0:
            return EXIT_NONE_DONE
        return EXIT_OK if measured == len(self.runs) else EXIT_PARTIAL

    def of(self, program: Program) -> list[Run]:
        """Return the runs of a program that were measured."""
        return [r for r in self.runs if r.program == program.name and r.figures is not None]


def own_program(bundle: Path | None, device: str = "auto") -> Program:
    """Return ``cfseg predict`` with a bundle, in a Python of its own."""
    start = (sys.executable, "-c", "from cfseg.cli import main; main()", "predict")
    model = () if bundle is None else ("-m", str(Path(bundle).resolve()))
    return Program(OWN, (*start, "{input}", "-o", "{output}", "--device", device, "-q", *model))


def program_of(command: str, number: int) -> Program:
    """Return the program of a command line, which is split as a shell does but not run by one.

    Args:
        command: ``NAME=COMMAND`` or ``COMMAND``, with ``{input}`` or ``{input_folder}`` and
            ``{output}`` in it.
        number: makes a name where none is given.

    Raises:
        UsageError: it does not say where input and output go, or its name cannot name a file.
    """
    name, equals, rest = command.partition("=")
    named = bool(equals) and name.replace("-", "").replace("_", "").isalnum()
    words = _words(rest if named else command)
    if "{output}" not in " ".join(words) or "{input" not in " ".join(words):
        raise UsageError(
            f"the command {command!r} does not say where its input and output go; put {{input}} "
            "(the scan) or {input_folder} (a folder with it alone) and {output} (a folder) in it"
        )
    return Program(name if named else f"command_{number}", words)


def run_all(
    inputs: Sequence[Path],
    programs: Sequence[Program],
    gpu: GpuMeter | None = None,
    timeout_seconds: float | None = None,
    on_run: OnRun | None = None,
) -> tuple[Run, ...]:
    """Run all programs on all scans; a run that fails is recorded and does not stop the others.

    Args:
        inputs: NIfTI files or folders of them.
        programs: with names that differ.
        gpu: its meter, None without one.
        timeout_seconds: after which a run is ended and has failed.
        on_run: see :data:`OnRun`.

    Raises:
        UsageError: an input is not there, or two programs have the same name.
        InputError: ``E_NO_CASES``, there are no scans.
        ResourceError: there is no room for a copy of a scan.
    """
    scans = _nifti(inputs)
    names = [program.name for program in programs]
    if len(set(names)) < len(names):
        raise UsageError(f"programs need names that differ, not {', '.join(names)}; NAME=COMMAND")
    runs: list[Run] = []
    for number, scan in enumerate(scans):
        turn = number % len(programs)
        for program in (*programs[turn:], *programs[:turn]):
            runs.append(_run(program, scan, gpu, timeout_seconds))
            if on_run is not None:
                on_run(runs[-1], len(runs), len(scans) * len(programs))
    return tuple(runs)


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"the command {command!r} cannot be split: {error}") from error


def _nifti(inputs: Sequence[Path]) -> list[Path]:
    found = dict.fromkeys(scan for path in inputs for scan in files_in(path))
    scans = [scan for scan in found if ".nii" in scan.name.lower()]
    if not scans:
        raise InputError(
            "there is no .nii or .nii.gz file to measure with; FLARE takes no others",
            code="E_NO_CASES",
        )
    ids = [case_id(scan) for scan in scans]
    twins = {case for case in ids if ids.count(case) > 1}
    if twins:
        raise UsageError(f"several scans are called {', '.join(sorted(twins))}; rename them")
    return scans


def _run(program: Program, scan: Path, gpu: GpuMeter | None, timeout: float | None) -> Run:
    case, size = case_id(scan), _image_size(scan)
    with tempfile.TemporaryDirectory(prefix="cfseg-benchmark-") as made:
        try:
            places = _folders(Path(made), scan, case)
        except OSError as error:
            reason = error.strerror or error
            raise ResourceError(f"{scan} cannot be copied: {reason}", code="E_DISK") from error
        return _measured(program, case, size, places, gpu, timeout)


def _folders(made: Path, scan: Path, case: str) -> tuple[Path, Path]:
    """Copy the scan to ``inputs/CASE_0000.nii.gz``, as FLARE names it; make ``outputs``."""
    suffix = ".nii.gz" if scan.name.lower().endswith(".gz") else ".nii"
    copy, out = made / "inputs" / f"{case}_0000{suffix}", made / "outputs"
    copy.parent.mkdir()
    out.mkdir()
    shutil.copyfile(scan, copy)
    os.utime(copy, (_LONG_AGO, time.time()))
    return copy, out


def _measured(
    program: Program,
    case: str,
    size: tuple[int, ...],
    places: tuple[Path, Path],
    gpu: GpuMeter | None,
    timeout: float | None,
) -> Run:
    copy, out = places
    values = dict(zip(_PLACES, (str(copy), str(copy.parent), str(out)), strict=True))
    words = [_filled(word, values) for word in program.words]
    with tempfile.TemporaryFile() as said:
        started, start = time.time(), time.perf_counter()
        try:
            process = subprocess.Popen(  # noqa: S603 - what the user asked for
                words,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env=without_spins(),
            )
        except OSError as error:
            message = f"it cannot be started: {error.strerror or error}"
            return Run(program.name, case, size, message=message)
        meter = Meter(process.pid, gpu)
        try:
            code = process.wait(timeout)
            seconds = time.perf_counter() - start
            message = "" if code == 0 else f"it ended with exit code {code}: {_last_line(said)}"
        except subprocess.TimeoutExpired:
            seconds, message = time.perf_counter() - start, f"it took longer than {timeout:g} s"
        finally:
            _end(process)
            meter.stop()
    if not message and not any(out.rglob("*.nii*")):
        message = "it ended without an error but wrote no .nii.gz file"
    if message:
        return Run(program.name, case, size, tuple(meter.samples), message=message)
    first_read = copy.stat().st_atime
    work = None if first_read < started else seconds - (first_read - started)
    figures = efficiency(meter.samples, seconds, work)
    return Run(program.name, case, size, tuple(meter.samples), figures)


def _filled(word: str, values: dict[str, str]) -> str:
    for place, value in values.items():
        word = word.replace(place, value)
    return word


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the program with all it has started, also what outlived it."""
    left = processes(process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _image_size(scan: Path) -> tuple[int, ...]:
    """Return what the header says; a scan that is damaged is for the programs to refuse."""
    try:
        image = nib.load(scan)
        shape = image.shape if isinstance(image, nib.spatialimages.SpatialImage) else ()
        return tuple(int(n) for n in shape)
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError):
        return ()
