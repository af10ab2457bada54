"""What a program uses while it runs: memory, processor and GPU, looked at every 0.1 s.

FLARE's meter looks at the whole machine: used RAM, processor times, and the memory in use on the
whole GPU. Beside it stands what the program's own processes use.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

import psutil

PERIOD_SECONDS = 0.1
MB = 1024 * 1024


class GpuMeter(Protocol):
    """What tells how much memory of a GPU is in use."""

    def used_mb(self) -> float:
        """Return what is in use on the whole device: its total memory less what is free."""

    def process_mb(self, pids: set[int]) -> float | None:
        """Return what these processes use; None where the driver does not tell."""


@dataclass(frozen=True)
class Sample:
    """One look at the machine.

    Attributes:
        seconds: since the program was started.
        cpu_times: user, system and idle seconds of the whole machine since it was booted.
        ram_mb: in use on the whole machine.
        process_ram_mb: resident memory of the program's processes; what they share counts for each.
        process_cpu_seconds: spent by the processes that are there, since each began.
        gpu_mb: in use on the whole GPU; None without one.
        process_gpu_mb: in use by the program's processes; None where this is not told.
    """

    seconds: float
    cpu_times: tuple[float, float, float]
    ram_mb: float
    process_ram_mb: float
    process_cpu_seconds: float
    gpu_mb: float | None = None
    process_gpu_mb: float | None = None


@dataclass
class Meter:
    """Looks at a process and its children until it is told to stop.

    Attributes:
        pid: of the program.
        gpu: None without a GPU.
        samples: what was seen so far.
        error: what ended the looking, if anything did.
    """

    pid: int
    gpu: GpuMeter | None = None
    samples: list[Sample] = field(default_factory=list)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self._start = time.perf_counter()
        self._stop = threading.Event()
        self._spent: dict[int, float] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking.

        Raises:
            Exception: what ended the looking before.
        """
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _look(self) -> None:
        """Keep to the grid of time: a look that takes long does not move those after it."""
        try:
            number = 0
            while not self._stop.is_set():
                self.samples.append(self._sample())
                elapsed = time.perf_counter() - self._start
                number = max(number + 1, int(elapsed / PERIOD_SECONDS))
                self._stop.wait(max(0.0, number * PERIOD_SECONDS - elapsed))
        except Exception as error:
            self.error = error

    def _sample(self) -> Sample:
        seconds = time.perf_counter() - self._start
        times, ram = psutil.cpu_times(), psutil.virtual_memory()
        pids, own_mb = self._tree()
        gpu = self.gpu
        return Sample(
            seconds=seconds,
            cpu_times=(times.user, times.system, times.idle),
            ram_mb=ram.used / MB,
            process_ram_mb=own_mb,
            process_cpu_seconds=sum(self._spent.values()),
            gpu_mb=None if gpu is None else gpu.used_mb(),
            process_gpu_mb=None if gpu is None else gpu.process_mb(pids),
        )

    def _tree(self) -> tuple[set[int], float]:
        """Return the processes of the program and their memory; note what time each has spent."""
        pids, mb = set(), 0.0
        for process in processes(self.pid):
            try:
                with process.oneshot():
                    mb += process.memory_info().rss / MB
                    times = process.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            pids.add(process.pid)
            self._spent[process.pid] = times.user + times.system
        return pids, mb


def processes(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it; those that have ended are not there."""
    try:
        program = psutil.Process(pid)
        return [program, *program.children(recursive=True)]
    except psutil.Error:
        return []


class NvmlGpu:
    """A GPU as NVIDIA's management library sees it."""

    def __init__(self, nvml: "Nvml", index: int) -> None:
        self.nvml, self.handle = nvml, nvml.nvmlDeviceGetHandleByIndex(index)

    def used_mb(self) -> float:
        """Return total less free memory, as FLARE does: what the driver keeps counts."""
        memory = self.nvml.nvmlDeviceGetMemoryInfo(self.handle)
        return float(memory.total - memory.free) / MB

    def process_mb(self, pids: set[int]) -> float | None:
        """Return what the processes use; in a container the driver may not tell."""
        running = self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        used = [one.usedGpuMemory for one in running if one.pid in pids]
        known = [one for one in used if one is not None]
        return sum(known) / MB if len(known) == len(used) else None


class Nvml(Protocol):
    """The part of ``pynvml`` that is used."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802, D102
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802, D102
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> "_Memory": ...  # noqa: N802, D102
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> "list[_Running]": ...  # noqa: N802, D102


class _Memory(Protocol):
    total: int
    free: int


class _Running(Protocol):
    pid: int
    usedGpuMemory: int | None  # noqa: N815


def find_gpu(index: int, nvml: Nvml | None = None) -> tuple[GpuMeter | None, str]:
    """Return a meter of a GPU, or None and why there is none.

    Args:
        index: of the device.
        nvml: ``pynvml`` by default.
    """
    try:
        nvml = nvml or _pynvml()
    except ImportError:
        return None, "no GPU was measured: that needs the extra cfseg[gpu]"
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
        if index >= count:
            return None, f"no GPU was measured: there are {count}, none has the index {index}"
        return NvmlGpu(nvml, index), ""
    except nvml.NVMLError as error:
        return None, f"no GPU was measured: {error}"


def _pynvml() -> Nvml:
    import pynvml

    found: Nvml = pynvml
    return found


def cores() -> int:
    """Return how many processor cores there are."""
    return os.cpu_count() or 1
