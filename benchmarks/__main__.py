"""``python -m benchmarks``: measure, write ``docs/performance.md`` and the numbers beside it.

Needs a quiet machine: nothing else should run. It takes about two hours on two cores; ``--only``
measures a part, and what was measured before stays in the page.
"""

import argparse
import json
import platform
from pathlib import Path

from benchmarks import page
from benchmarks.cases import PAPER_SIZES, synthetic_scan
from benchmarks.run import ROOT, Values, pairs, run

SECTIONS = ("machine", "steps", "rest", "equal", "defaults", "cascade", "memory", "start")


def main() -> None:
    """Measure what is asked for and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--quick", action="store_true", help="small networks: to see that it runs")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "bench")
    asked = parser.parse_args()
    numbers_file = asked.out.with_suffix(".json")
    numbers: Values = json.loads(numbers_file.read_text()) if numbers_file.is_file() else {}
    bench = Bench(asked)
    for section in asked.only:
        print(section, flush=True)
        numbers[section] = getattr(bench, section)()
        numbers_file.parent.mkdir(parents=True, exist_ok=True)
        numbers_file.write_text(json.dumps(numbers, indent=1) + "\n")
        asked.out.write_text(page.text(numbers))
    print(f"{asked.out}")


class Bench:
    """The sections; each returns its numbers."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.common: Values = {"backend": asked.backend, "quick": asked.quick}
        self.scratch: Path = asked.scratch

    def scan(self, slices: int = 120, spacing: float = 2.5, size: int = 512) -> Path:
        """Return a synthetic scan; ``size`` below 512 gives one of few windows."""
        return synthetic_scan((slices, size, size), (spacing, 0.75, 0.75), self.scratch)[0]

    def machine(self) -> Values:
        """What is measured on."""
        cpu = next(
            (
                line.split(":")[1].strip()
                for line in _lines("/proc/cpuinfo")
                if "model name" in line
            ),
            platform.processor(),
        )
        return {"cpu": cpu, "python": platform.python_version(), "quick": self.asked.quick} | run(
            "sgemm"
        )

    def steps(self) -> list[Values]:
        """One stage over the whole field, step by step, on both backends."""
        values = self.common | {"plan": "whole", "scan": self.scan(), "step": 0.5, "most": 3}
        return [run("steps", **values | {"backend": b}) for b in self._backends()]

    def _backends(self) -> tuple[str, ...]:
        return ("openvino", "torch") if self.asked.backend == "openvino" else ("torch",)

    def _file_to_file(self, scan: Path, task: str, **more: object) -> Values:
        values = {"plan": "whole", "scan": scan, "out": self.scratch / f"{task}.nii.gz"}
        settings = {"step": 0.5, "gaussian": False, "mirror": False, "crop": False}
        return self.common | values | settings | more

    def rest(self) -> Values:
        """Everything but the network over the whole field: one window is run and repeated."""
        found: Values = {}
        for slices, spacing in ((120, 2.5), (400, 1.0)):
            scan = self.scan(slices, spacing)
            found[f"cfseg {slices}"] = run("ours", **self._file_to_file(scan, "ours", most=1))
        for name, more in (("plain", {}), ("equal", {"gaussian": True, "mirror": True})):
            values = self._file_to_file(self.scan(), "stock", most=1, **more)
            found[f"nnU-Net 120 {name}"] = run("stock", **values)
            values = self._file_to_file(self.scan(), "ours", most=1, **more)
            found[f"cfseg 120 {name}"] = run("ours", **values)
        cropped = self._file_to_file(self.scan(), "ours", most=1, crop=True, step=1.0)
        found["cfseg 120 cropped"] = run("ours", **cropped)
        return found

    def equal(self) -> Values:
        """Equal settings: mirroring and Gaussian in both, on a scan of one window."""
        scan = self.scan(64, 2.5, 200)
        more = {"gaussian": True, "mirror": True}
        return self._pair(scan, more, more)

    def defaults(self) -> Values:
        """Each with its defaults, on a scan of two windows."""
        scan = self.scan(64, 2.5, 240)
        return self._pair(scan, {"crop": True, "step": 1.0}, {"gaussian": True, "mirror": True})

    def _pair(self, scan: Path, ours: Values, theirs: Values) -> Values:
        one = ("ours", self._file_to_file(scan, "ours", **ours))
        other = ("stock", self._file_to_file(scan, "stock", **theirs))
        found = pairs(self.asked.pairs, one, other)
        return {"cfseg": found[0], "nnunet": found[1]}

    def cascade(self) -> list[Values]:
        """Four paper-size networks on the sizes of the paper's Table 8."""
        return [self._one_cascade(n, mm, None) for n, mm in PAPER_SIZES.items()]

    def memory(self) -> list[Values]:
        """512x512x600 with limits."""
        return [self._one_cascade(600, 1.0, limit) for limit in (None, "8GB", "4GB")]

    def _one_cascade(self, slices: int, spacing: float, limit: str | None) -> Values:
        self.scan(slices, spacing)  # made here, so that the task's memory is its own
        found = run(
            "cascade",
            **self.common,
            shape=(slices, 512, 512),
            spacing_mm=(spacing, 0.75, 0.75),
            folder=self.scratch,
            out=self.scratch / "cascade.nii.gz",
            step=0.5,
            max_memory=limit,
        )
        print(
            f"  {slices} slices: rest {found['rest']:.1f} s, {found['peak_mb']:.0f} MB", flush=True
        )
        return found | {"slices": slices, "spacing_mm": spacing, "max_memory": limit}

    def start(self) -> Values:
        """The bundled model: to its first window, and everything but the network per case."""
        from cfseg.phantoms.cohort import write_cohort

        folder = self.scratch / "phantoms"
        if not folder.is_dir():
            write_cohort(folder, cases=10, seed=4242)
        scans = folder / "imagesTr"
        first = sorted(scans.glob("*.nii.gz"))[0]
        starts = [run("start", backend=self.asked.backend, scan=first) for _ in range(3)]
        values = {"folder": scans, "out": self.scratch / "x.nii.gz"}
        return {"starts": starts, "batch": run("batch", **self.common, **values)}


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []


if __name__ == "__main__":
    main()
