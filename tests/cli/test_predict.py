"""``cfseg predict``: what it shows and how it ends. What it does is tested in tests/batch."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cfseg.cli import app
from cfseg.errors import UsageError

SOURCES = Path(__file__).parents[2] / "src" / "cfseg"
OF_OTHERS = {"--flag", "--standalone", "--nproc-per-node", "--label"}  # the last is CSS


def ct(path: Path, codes: int = 1) -> Path:
    hu = np.full((24, 24, 20), -1000, dtype=np.int16)
    hu[4:-4, 4:-4] = np.random.default_rng(0).normal(40, 60, (16, 16, 20)).astype(np.int16)
    image = nib.Nifti1Image(hu, np.diag([-5.0, -5.0, 5.0, 1.0]))
    image.set_qform(image.affine, code=codes)
    image.set_sform(image.affine, code=codes)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def options(command) -> set[str]:
    """Return the options of a command and of those below it."""
    below = getattr(command, "commands", {}).values()
    own = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    return own.union(*(options(c) for c in below))


def test_every_option_that_a_message_names_exists():
    known = options(get_command(app)) | {"--help"}
    for path in SOURCES.rglob("*.py"):
        for text in re.findall(r"--[a-z][a-z-]+", path.read_text(encoding="utf-8")):
            assert text.rstrip("-") in known | OF_OTHERS, f"{path.name}: {text}"


@pytest.fixture
def run(tiny_bundle):
    def call(*arguments):
        words = ["predict", *map(str, arguments), "-m", str(tiny_bundle), "--device", "cpu"]
        return CliRunner().invoke(app, [*words, "--threads", "1"])

    return call


def test_plain_lines_where_there_is_no_terminal(run, tmp_path):
    for name in "ab":
        ct(tmp_path / "in" / f"{name}.nii.gz")
    result = run(tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert re.fullmatch(r"a: (done|empty) in \d+\.\d s", lines[0])
    assert not set(result.stderr) & set("━╸╺\x1b\r")
    assert not [line for line in lines if line.startswith("cases")]


def test_a_share_of_the_scans(run, tmp_path):
    for name in "ab":
        ct(tmp_path / "in" / f"{name}.nii.gz")
    ct(tmp_path / "in" / "c.nii.gz", codes=0)
    result = run(tmp_path / "in", "-o", tmp_path / "out", "--shard", "2/2")
    assert result.exit_code == 0
    assert [p.name for p in (tmp_path / "out").glob("*.nii.gz")] == ["b.nii.gz"]
    assert (tmp_path / "out" / "summary-2-of-2.csv").is_file()


def test_nothing_is_drawn_before_a_wrong_call(run, tmp_path):
    result = run(tmp_path / "none", "-o", tmp_path / "out")
    assert isinstance(result.exception, UsageError)
    assert result.output == ""


def test_the_total_stands_there_from_the_start(capsys):
    from rich.console import Console

    from cfseg.cli.bars import Bars

    console = Console(stderr=True, force_terminal=True, width=80)
    with Bars(console, "cases") as bars:
        bars.start(7)
        bars.below("a: coarse", 1, 2)
        bars.progress.refresh()
        assert [task.total for task in bars.progress.tasks] == [7, 2]
        bars.advance(1)
        assert [task.completed for task in bars.progress.tasks] == [1, 1]
    shown = capsys.readouterr().err
    assert "0/7" in shown
    assert "/?" not in shown


def test_a_case_that_is_done_again_says_why(run, tmp_path):
    scan, out = ct(tmp_path / "x.nii.gz"), tmp_path / "out"
    run(scan, "-o", out)
    assert "unchanged" in run(scan, "-o", out).stderr
    again = run(scan, "-o", out, "--set", "region.margin_mm=31").stderr
    assert re.search(r"done again \(region\.margin_mm: [\d.]+, now 31\.0\)", again)


def test_the_option_that_a_refusal_names_lets_the_scan_in(run, tmp_path):
    scan, out = ct(tmp_path / "x.nii.gz", codes=0), tmp_path / "out"
    refused = run(scan, "-o", out)
    assert refused.exit_code == 4
    assert "--assume-orientation LAS" in refused.stderr
    result = run(scan, "-o", out, "--assume-orientation", "LAS")
    assert result.exit_code == 0
    assert "note: orientation_assumed: LAS" in result.stderr
    record = json.loads((out / "status" / "x.json").read_text())
    assert record["settings"]["reading"] == {"assume_orientation": "LAS"}
    assert record["attempt"] == 1
    wrong = run(scan, "-o", out, "--assume-orientation", "XYZ")
    assert isinstance(wrong.exception, UsageError)


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from cfseg import cli
from cfseg.segmenter import Segmenter

segment = Segmenter.segment

def slow(self, scan, *more, **named):
    if scan.name.startswith("b"):
        print("ready", flush=True)
        time.sleep(60)
    return segment(self, scan, *more, **named)

Segmenter.segment = slow
sys.argv = ["cfseg", "predict", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_finished_results_and_sums_up(tiny_bundle, tmp_path, number, code):
    for name in "abc":
        ct(tmp_path / "in" / f"{name}.nii.gz")
    out = tmp_path / "out"
    command = [sys.executable, "-c", SLOW, tmp_path / "in", "-o", out, "-m", tiny_bundle]
    with subprocess.Popen(
        [*map(str, command), "--device", "cpu", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    found = json.loads((out / "summary.json").read_text())
    assert (found["inputs"], found["failed"]) == (3, 2)
    assert (out / "a.nii.gz").is_file()
    assert not [*out.glob(".tmp*"), *(out / "status").glob(".*")]
