"""Figures of what a run has used: those of FLARE's evaluation, and more exact ones beside them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from cfseg.evaluation.meter import PERIOD_SECONDS, Sample

FLARE_HEADER = (
    "Name", "Time", "MaxGPU_Mem", "AUC_GPU_Time", "MaxCPU_Utilization", "AUC_CPU_Time", "MaxRAM",
    "AUC_RAM_Time",
)  # fmt: skip


@dataclass(frozen=True)
class Efficiency:
    """What one run has used.

    An area is that under the curve over the real time between looks, in MB s or percent s. Figures
    of a GPU are None where there is none; those of the processes, where the driver does not tell.

    Attributes:
        seconds: from the start of the program to its end.
        work_seconds: from the moment it first read the scan: without its start. None where the
            file system does not tell.
        max_gpu_mb: most memory in use on the whole GPU.
        total_gpu_mb_s: area under it.
        process_max_gpu_mb: most memory used by the program's processes.
        process_total_gpu_mb_s: area under it.
        max_ram_mb: most memory in use on the whole machine.
        total_ram_mb_s: area under it.
        process_max_ram_mb: most memory of the program's processes.
        process_total_ram_mb_s: area under it.
        max_cpu_percent: most of the whole machine's processor that was busy.
        total_cpu_percent_s: area under it.
        process_cpu_seconds: processor time of the program's processes.
    """

    seconds: float
    work_seconds: float | None
    max_gpu_mb: float | None
    total_gpu_mb_s: float | None
    process_max_gpu_mb: float | None
    process_total_gpu_mb_s: float | None
    max_ram_mb: float
    total_ram_mb_s: float
    process_max_ram_mb: float
    process_total_ram_mb_s: float
    max_cpu_percent: float
    total_cpu_percent_s: float
    process_cpu_seconds: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures that there are: those of a GPU are absent without one."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def efficiency(
    samples: Sequence[Sample], seconds: float, work_seconds: float | None = None
) -> Efficiency:
    """Sum up what was seen of a run.

    Args:
        samples: in the order of time, at least one.
        seconds: how long it ran.
        work_seconds: how long of it came after it first read the scan.
    """
    gpu = _peak_and_area([s.gpu_mb for s in samples], samples, seconds)
    process_gpu = _peak_and_area([s.process_gpu_mb for s in samples], samples, seconds)
    ram = _area([s.ram_mb for s in samples], samples, seconds)
    process_ram = _area([s.process_ram_mb for s in samples], samples, seconds)
    percent = cpu_percents(samples)
    return Efficiency(
        seconds=seconds,
        work_seconds=work_seconds,
        max_gpu_mb=gpu[0],
        total_gpu_mb_s=gpu[1],
        process_max_gpu_mb=process_gpu[0],
        process_total_gpu_mb_s=process_gpu[1],
        max_ram_mb=max(s.ram_mb for s in samples),
        total_ram_mb_s=ram,
        process_max_ram_mb=max(s.process_ram_mb for s in samples),
        process_total_ram_mb_s=process_ram,
        max_cpu_percent=max(percent, default=0.0),
        total_cpu_percent_s=_area([0.0, *percent], samples, seconds),
        process_cpu_seconds=max(s.process_cpu_seconds for s in samples),
    )


def cpu_percents(samples: Sequence[Sample]) -> list[float]:
    """Return how much of the processor was busy between each look and the one before, in percent.

    As in FLARE: 100 less the share of idle time, with 0.1 s added to the time in all.
    """
    percents = []
    for before, now in pairwise(samples):
        spent = [b - a for a, b in zip(before.cpu_times, now.cpu_times, strict=True)]
        percents.append(100 - 100 * spent[2] / (sum(spent) + 0.1))
    return percents


def flare_record(samples: Sequence[Sample], seconds: float) -> dict[str, object]:
    """Return what FLARE's meter writes to ``CASE.json``; ``gpu_memory`` is absent without a GPU."""
    record: dict[str, object] = {
        "cpu_list": [list(s.cpu_times) for s in samples],
        "RAM_list": [s.ram_mb for s in samples],
        "time": round(seconds, 2),
    }
    gpu = [s.gpu_mb for s in samples if s.gpu_mb is not None]
    return {"gpu_memory": gpu} | record if gpu else record


def flare_row(case: str, samples: Sequence[Sample], seconds: float) -> dict[str, object]:
    """Return a row of FLARE's table, see :data:`FLARE_HEADER`; without a GPU it lacks two fields.

    Areas are sums over looks times 0.1 s, however far apart the looks really were.
    """
    gpu = [s.gpu_mb for s in samples if s.gpu_mb is not None]
    percent, ram = cpu_percents(samples), [s.ram_mb for s in samples]
    row: dict[str, object] = {"Name": case, "Time": round(seconds, 2)}
    if gpu:
        row |= {"MaxGPU_Mem": round(max(gpu)), "AUC_GPU_Time": round(sum(gpu) * PERIOD_SECONDS)}
    return row | {
        "MaxCPU_Utilization": round(max(percent, default=0.0), 2),
        "AUC_CPU_Time": round(sum(percent) * PERIOD_SECONDS),
        "MaxRAM": round(max(ram)),
        "AUC_RAM_Time": round(sum(ram) * PERIOD_SECONDS),
    }


def _peak_and_area(
    values: Sequence[float | None], samples: Sequence[Sample], seconds: float
) -> tuple[float | None, float | None]:
    """Return greatest value and area of what may not be there."""
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return None, None
    return max(found), _area(found, samples, seconds)


def _area(values: Sequence[float], samples: Sequence[Sample], seconds: float) -> float:
    """Return the area under values that each hold until the next look, the last until the end."""
    times = [sample.seconds for sample in samples]
    return float(np.dot(values, np.diff([*times, max(seconds, times[-1])])))
