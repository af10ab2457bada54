"""Figures by hand, the meter on processes of known memory and time, and a GPU that is not there."""

import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from cfseg.evaluation.efficiency import cpu_percents, efficiency, flare_record, flare_row
from cfseg.evaluation.meter import MB, Meter, NvmlGpu, Sample, find_gpu


def sample(seconds, gpu=None, own_gpu=None, ram=1000.0, own=10.0, cpu=(0.0, 0.0, 0.0), spent=0.0):
    return Sample(seconds, cpu, ram, own, spent, gpu, own_gpu)


SAMPLES = (
    sample(0.0, 300.0, 0.0, cpu=(10.0, 1.0, 5.0)),
    sample(0.1, 900.0, 500.0, ram=1200.0, own=110.0, cpu=(10.1, 1.0, 5.2), spent=0.1),
    sample(0.3, 700.0, 400.0, ram=1100.0, own=90.0, cpu=(10.1, 1.1, 5.2), spent=0.2),
)


def test_figures_by_hand():
    found = efficiency(SAMPLES, 0.4, 0.25)
    assert (found.seconds, found.work_seconds) == (0.4, 0.25)
    assert found.max_gpu_mb == 900
    assert found.total_gpu_mb_s == pytest.approx(300 * 0.1 + 900 * 0.2 + 700 * 0.1)
    assert found.process_max_gpu_mb == 500
    assert found.process_total_gpu_mb_s == pytest.approx(500 * 0.2 + 400 * 0.1)
    assert found.max_ram_mb == 1200
    assert found.total_ram_mb_s == pytest.approx(100 + 240 + 110)
    assert found.process_max_ram_mb == 110
    assert found.process_total_ram_mb_s == pytest.approx(1 + 22 + 9)
    assert found.process_cpu_seconds == 0.2


def test_processor_by_hand():
    # Of 0.3 s (and 0.1 more) 0.2 were idle; then of 0.1 none.
    assert cpu_percents(SAMPLES) == pytest.approx([50, 100])
    found = efficiency(SAMPLES, 0.4)
    assert found.max_cpu_percent == pytest.approx(100)
    assert found.total_cpu_percent_s == pytest.approx(50 * 0.2 + 100 * 0.1)


def test_the_fields_of_flare():
    row = flare_row("a", SAMPLES, 0.4)
    assert row | {"MaxCPU_Utilization": round(row["MaxCPU_Utilization"], 6)} == {
        "Name": "a",
        "Time": 0.4,
        "MaxGPU_Mem": 900,
        "AUC_GPU_Time": 190,  # (300 + 900 + 700) x 0.1, whatever the time between
        "MaxCPU_Utilization": 100,
        "AUC_CPU_Time": 15,
        "MaxRAM": 1200,
        "AUC_RAM_Time": 330,
    }
    record = flare_record(SAMPLES, 0.4)
    assert list(record) == ["gpu_memory", "cpu_list", "RAM_list", "time"]
    assert record["cpu_list"][0] == [10.0, 1.0, 5.0]


def test_without_a_gpu_its_figures_are_absent():
    samples = [sample(0.0), sample(0.1)]
    assert not [name for name in efficiency(samples, 0.2).as_dict() if "gpu" in name]
    assert "work_seconds" not in efficiency(samples, 0.2).as_dict()
    assert not [name for name in flare_row("a", samples, 0.2) if "GPU" in name]
    assert "gpu_memory" not in flare_record(samples, 0.2)


def test_a_driver_that_does_not_tell_of_processes():
    found = efficiency([sample(0.0, 300.0), sample(0.1, 310.0)], 0.2).as_dict()
    assert found["max_gpu_mb"] == 310
    assert "process_max_gpu_mb" not in found


def metered(program, gpu=None):
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    meter = Meter(process.pid, gpu)
    process.wait()
    meter.stop()
    return meter.samples


def test_memory_of_a_process_and_its_child():
    child = "import time; kept = b'1' * 60_000_000; time.sleep(1.5)"
    program = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "kept = b'1' * 100_000_000\n"
        "child.wait()"
    )
    idle = max(s.process_ram_mb for s in metered("import time; time.sleep(0.6)"))
    own = max(s.process_ram_mb for s in metered(program))
    # 160 million bytes are 152.6 MB of 1024 x 1024 bytes, and there are two Pythons.
    assert idle + 140 < own < 2 * idle + 220


def test_samples_keep_to_the_grid_of_time():
    samples = metered("import time; time.sleep(1.2)")
    assert samples[-1].seconds > 1.0
    assert len(samples) <= samples[-1].seconds / 0.1 + 2
    assert all(b.seconds > a.seconds for a, b in pairwise(samples))


def test_processor_time_of_a_process_that_works():
    found = metered(
        "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: 0"
    )
    assert 0.3 < max(s.process_cpu_seconds for s in found) < 3


def test_what_ends_the_meter_is_raised():
    class Broken:
        def used_mb(self):
            raise RuntimeError("fell off the bus")

        def process_mb(self, pids):
            return None

    with pytest.raises(RuntimeError, match="fell off the bus"):
        metered("import time; time.sleep(0.3)", Broken())


class FakeNvml:
    """Two GPUs of 8 GB: the first is used by the processes 11 and 12, the second by none."""

    NVMLError = OSError

    def __init__(self, told=True, driver=True):
        self.told, self.driver = told, driver

    def nvmlInit(self):  # noqa: N802
        if not self.driver:
            raise OSError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        used = 3000 if handle == 0 else 400
        # `used` leaves out what the driver keeps: FLARE takes total - free.
        return SimpleNamespace(total=8000 * MB, free=(8000 - used) * MB, used=1)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802
        if handle == 1:
            return []
        return [
            SimpleNamespace(pid=11, usedGpuMemory=1500 * MB if self.told else None),
            SimpleNamespace(pid=12, usedGpuMemory=1000 * MB),
        ]


def test_a_gpu_by_nvml():
    gpu, note = find_gpu(0, FakeNvml())
    assert (gpu.used_mb(), note) == (3000, "")
    assert gpu.process_mb({11, 12, 99}) == 2500
    assert gpu.process_mb({11}) == 1500
    assert gpu.process_mb({99}) == 0
    assert NvmlGpu(FakeNvml(), 1).process_mb({11}) == 0
    assert NvmlGpu(FakeNvml(told=False), 0).process_mb({11}) is None


def test_a_gpu_that_is_not_there():
    assert find_gpu(2, FakeNvml()) == (
        None,
        "no GPU was measured: there are 2, none has the index 2",
    )
    gpu, note = find_gpu(0, FakeNvml(driver=False))
    assert gpu is None
    assert "Driver Not Loaded" in note


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpu(0) == (None, "no GPU was measured: that needs the extra cfseg[gpu]")


def test_the_meter_looks_at_the_gpu():
    gpu, _ = find_gpu(0, FakeNvml())
    found = efficiency(metered("import time; time.sleep(0.4)", gpu), 0.5)
    assert found.max_gpu_mb == 3000
    assert found.process_max_gpu_mb == 0
    assert found.total_gpu_mb_s == pytest.approx(3000 * 0.5, rel=0.2)
