import csv
import json
import sys

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cfseg.cli.benchmark import benchmark as command
from cfseg.errors import InputError, UsageError
from cfseg.evaluation import benchmark as module
from cfseg.evaluation.benchmark import benchmark
from cfseg.evaluation.programs import own_program, program_of

READS = "import sys, time, pathlib; time.sleep(0.4); data = open(sys.argv[1], 'rb').read(); "
WRITES = "pathlib.Path(sys.argv[2], 'a.nii.gz').write_bytes(data); "


@pytest.fixture
def scans(tmp_path):
    for name, slices in (("x", 5), ("y", 7)):
        (tmp_path / "scans").mkdir(exist_ok=True)
        image = nib.Nifti1Image(np.zeros((8, 6, slices), dtype=np.int16), np.eye(4))
        nib.save(image, tmp_path / "scans" / f"{name}_0000.nii.gz")
    return tmp_path / "scans"


def program(tmp_path, name, text):
    script = tmp_path / f"{name}.py"
    script.write_text(text)
    return program_of(f"{name}={sys.executable} {script} {{input}} {{output}}", 1)


def test_programs_of_known_time_and_memory(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_gpu", lambda index: (None, "no GPU was measured: none here"))
    slow = program(tmp_path, "slow", READS + WRITES + "time.sleep(0.9)")
    large = program(
        tmp_path, "large", READS + WRITES + "kept = b'1' * 200_000_000; time.sleep(0.3)"
    )
    seen = []
    made = benchmark(
        [scans],
        [slow, large],
        tmp_path / "out",
        on_run=lambda run, done, of: seen.append((done, of)),
    )
    assert [(r.program, r.case) for r in made.runs] == [
        ("slow", "x"), ("large", "x"), ("large", "y"), ("slow", "y"),
    ]  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert made.exit_code == 0
    figures = {(r.program, r.case): r.figures for r in made.runs}
    for case in "xy":
        one, other = figures["slow", case], figures["large", case]
        assert one.seconds > 1.3
        assert other.process_max_ram_mb > one.process_max_ram_mb + 150
        if one.work_seconds is not None:  # the file system tells when the scan was first read
            assert 0.8 < one.work_seconds < one.seconds - 0.3
    check_files(tmp_path / "out")


def check_files(out):
    rows = list(csv.DictReader((out / "benchmark.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert not [name for name in rows[0] if "gpu" in name]
    assert rows[0]["image_size"] == "(8, 6, 5)"
    header = (out / "slow_Efficiency.csv").read_text().splitlines()[0]
    assert header == "Name,Time,MaxCPU_Utilization,AUC_CPU_Time,MaxRAM,AUC_RAM_Time"
    record = json.loads((out / "large" / "x.json").read_text())
    assert list(record) == ["cpu_list", "RAM_list", "time"]
    assert len(record["RAM_list"]) == len(record["cpu_list"]) >= 3
    assert (out / "slow" / "y_RAM-Time.png").stat().st_size > 1000
    assert not (out / "slow" / "y_GPU-Time.png").exists()
    text = (out / "benchmark.md").read_text()
    assert "| Efficiency index | slow | large |" in text
    assert "| y | (8, 6, 7) |" in text
    assert "GPU (MB" not in text
    assert "no GPU was measured: none here" in text
    assert "error" not in (out / "benchmark.json").read_text()


class FakeGpu:
    def used_mb(self):
        return 1234.0

    def process_mb(self, pids):
        return 1000.0 if pids else 0.0


def test_with_a_gpu_its_columns_are_there(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_gpu", lambda index: (FakeGpu(), ""))
    one = program(tmp_path, "one", READS + WRITES)
    benchmark([scans / "x_0000.nii.gz"], [one], tmp_path / "out", plots=False)
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert "| Max GPU (MB) | 1234.00 |" in text
    assert "| Max GPU, own processes (MB) | 1000.00 |" in text
    header = (tmp_path / "out" / "one_Efficiency.csv").read_text().splitlines()[0]
    assert header == (
        "Name,Time,MaxGPU_Mem,AUC_GPU_Time,MaxCPU_Utilization,AUC_CPU_Time,MaxRAM,AUC_RAM_Time"
    )


FAILURES = {
    "raises": ("raise SystemExit('no licence')", "exit code 1: no licence"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "exit code -9: it said nothing"),
    "silent": ("", "wrote no .nii.gz file"),
    "hangs": ("import time; time.sleep(60)", "took longer than 5 s"),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_failing_program_does_not_stop_the_others(scans, tmp_path, how):
    text, message = FAILURES[how]
    bad, good = program(tmp_path, "bad", text), program(tmp_path, "good", READS + WRITES)
    made = benchmark(
        [scans / "x_0000.nii.gz"], [bad, good], tmp_path / "out", timeout_seconds=5, plots=False
    )
    assert message in made.runs[0].message
    assert made.runs[1].figures is not None
    assert made.exit_code == 3
    assert f"bad, x: failed: {made.runs[0].message}" in (tmp_path / "out/benchmark.md").read_text()
    assert not (tmp_path / "out" / "bad" / "x.json").exists()


def test_a_program_that_is_not_there(scans, tmp_path):
    none = program_of("./nowhere {input} {output}", 1)
    made = benchmark([scans], [none], tmp_path / "out", plots=False)
    assert "cannot be started" in made.runs[0].message
    assert made.exit_code == 4


def test_commands():
    named = program_of("my-peer_2=run --x=1 '{input}' -o {output}", 1)
    assert (named.name, named.words) == ("my-peer_2", ("run", "--x=1", "{input}", "-o", "{output}"))
    assert program_of("run --x=1 {input_folder} {output}", 3).name == "command_3"
    for wrong in ("run {input}", "run {output}", "run '{input} {output}"):
        with pytest.raises(UsageError):
            program_of(wrong, 1)
    assert own_program(None).name == "cfseg"


def test_wrong_calls(scans, tmp_path):
    one = program_of("run {input} {output}", 1)
    with pytest.raises(UsageError, match="names that differ"):
        benchmark([scans], [one, one], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.nii"):
        benchmark([tmp_path / "empty"], [one], tmp_path / "out")


@pytest.mark.slow
def test_command_measures_cfseg_itself(scans, tmp_path, tiny_bundle):
    rng = np.random.default_rng(0)
    hu = rng.integers(-900, 200, (48, 48, 24)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([4.0, 4, 4, 1])), tmp_path / "ct_0000.nii.gz")
    app = typer.Typer()
    app.command()(command)
    script = tmp_path / "copy.py"
    script.write_text(READS + WRITES)
    result = CliRunner().invoke(app, [
        str(tmp_path / "ct_0000.nii.gz"), "-m", str(tiny_bundle), "-o", str(tmp_path / "out"),
        "--device", "cpu", "--command", f"copy={sys.executable} {script} {{input}} {{output}}",
        "--no-plots",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Running Time (s)" in result.output
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [run["program"] for run in record["runs"]] == ["cfseg", "copy"]
