"""``cfseg evaluate`` against a straightforward script, in turns, on the cases of a folder.

Prints the seconds of each turn, those of the processor (which say more where other programs run),
the most memory of all processes of each, and whether the numbers are the same. Both get two cores:
cfseg by ``--jobs 2``, the script by working on half of the cases in each of two processes.

Example: python benchmarks/judging_speed.py cases
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cfseg.evaluation.meter import Meter

SCRIPT = Path(__file__).with_name("straightforward_scores.py")
CFSEG = (sys.executable, "-c", "from cfseg.cli import main; main()", "evaluate")
IDS = ("liver", "right_kidney", "spleen", "pancreas", "aorta", "inferior_vena_cava",
       "right_adrenal_gland", "left_adrenal_gland", "gallbladder", "esophagus", "stomach",
       "duodenum", "left_kidney", "tumor")  # fmt: skip


def measured(*commands):
    """Return seconds, processor seconds and MB at most of commands that run side by side."""
    start, peaks, spent = time.perf_counter(), [], []
    running = [subprocess.Popen(command) for command in commands]
    meters = [Meter(process.pid) for process in running]
    for process in running:
        if process.wait() != 0:
            raise SystemExit(f"{process.args} failed")
    seconds = time.perf_counter() - start
    for meter in meters:
        meter.stop()
        peaks.append(max(sample.process_ram_mb for sample in meter.samples))
        spent.append(meter.samples[-1].process_cpu_seconds)
    return seconds, sum(spent), sum(peaks)


def halves(folder: Path, made: Path):
    """Return two folders with links to half of the references each."""
    refs = sorted((folder / "ref").glob("*.nii.gz"))
    for number in (0, 1):
        (made / str(number)).mkdir()
        for ref in refs[number::2]:
            (made / str(number) / ref.name).symlink_to(ref.resolve())
    return [made / "0", made / "1"]


def differences(plain, ours):
    """Return how far the numbers are apart at most: DSC, NSD, HD95."""
    apart = [0.0, 0.0, 0.0]
    for case in ours["cases"]:
        for label, name in enumerate(IDS, start=1):
            for place, metric in enumerate(("dsc", "nsd", "hd95_mm")):
                one, other = plain[case["case"]][str(label)][place], case[metric][name]
                if (one is None) != (other is None):
                    raise SystemExit(f"{case['case']}, {name}, {metric}: {one} and {other}")
                apart[place] = max(apart[place], abs((one or 0.0) - (other or 0.0)))
    return apart


def main(folder: Path, turns: int) -> None:
    """Measure both in turns."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        parts = halves(folder, made)
        for _ in range(turns):
            ours = measured(
                (*CFSEG, str(folder / "pred"), str(folder / "ref"), "-o", str(made), "--jobs", "2",
                 "-q"),
            )  # fmt: skip
            script = [
                (sys.executable, str(SCRIPT), str(folder / "pred"), str(part), f"{part}.json")
                for part in parts
            ]
            plain = measured(*script)
            print(
                "cfseg {:.1f} s, processor {:.1f} s, {:.0f} MB; ".format(*ours)
                + "script {:.1f} s, processor {:.1f} s, {:.0f} MB; ".format(*plain)
                + f"ratio {plain[0] / ours[0]:.2f}, of the processor {plain[1] / ours[1]:.2f}",
                flush=True,
            )
        found = {}
        for part in parts:
            found |= json.loads(Path(f"{part}.json").read_text())
        dsc, nsd, hd95 = differences(found, json.loads((made / "scores.json").read_text()))
        print(f"greatest differences: DSC {dsc:.1e}, NSD {nsd:.1e}, HD95 {hd95:.1e} mm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
