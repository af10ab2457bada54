"""``python -m benchmarks``: measure, write ``docs/performance.md`` and the numbers beside it.

Needs a quiet machine: nothing else should run. It takes about three hours on two cores; ``--only``
measures a part, and what was measured before stays in the page.
"""

import argparse
import json
import platform
from pathlib import Path

from benchmarks import page
from benchmarks.accuracy import VARIANTS
from benchmarks.augmentation import AUGMENTED, QUICK, write_crops
from benchmarks.cases import DEFAULT_STEP, PAPER_SIZES, synthetic_scan
from benchmarks.plot import draw_cascade
from benchmarks.run import ROOT, Values, rounds, run
from benchmarks.training_steps import (
    CASES,
    QUICK_STEPS,
    WARM_UP,
    measured,
    write_training_cases,
)
from cfseg.geometry import Triple

SECTIONS = (
    "machine",
    "steps",
    "rest",
    "equal",
    "labels",
    "defaults",
    "cascade",
    "memory",
    "start",
    "accuracy",
    "training",
)

SMALL_REGION_MM = 240.0
"""Of the region on which all windows of the fine networks run."""
TOO_LITTLE = {False: "2GB", True: "300MB"}
"""Limits within which it cannot be done; the second with ``--quick``."""


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
        numbers.setdefault("cpu", {})[section] = cpu_name()
        numbers_file.parent.mkdir(parents=True, exist_ok=True)
        numbers_file.write_text(json.dumps(numbers, indent=1) + "\n")
        if section == "cascade":
            draw_cascade(numbers[section], asked.out.with_name(page.plot_name(asked.out)))
        asked.out.write_text(page.text(numbers, page.plot_name(asked.out)))
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
        about = {"python": platform.python_version(), "quick": self.asked.quick}
        return {"cpu": cpu_name()} | about | run("sgemm")

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
        cropped = self._file_to_file(self.scan(), "ours", most=1, crop=True, step=DEFAULT_STEP)
        found["cfseg 120 cropped"] = run("ours", **cropped)
        return found

    def equal(self) -> Values:
        """Equal settings: mirroring and Gaussian in both, on a scan of one window."""
        scan = self.scan(64, 2.5, 168)
        more = {"gaussian": True, "mirror": True}
        return self._turns(scan, more, more)

    def labels(self) -> Values:
        """Equal settings: the bundled networks' labels beside nnU-Net's, on a phantom."""
        scans = self._phantoms(1 if self.asked.quick else 10, 4242) / "imagesTr"
        scan = min(scans.glob("*.nii.gz"))
        return run("labels", backend=self.asked.backend, scan=scan)

    def defaults(self) -> Values:
        """Each with its defaults, on a scan of two windows."""
        scan = self.scan(64, 2.5, 200)
        ours = {"crop": True, "step": DEFAULT_STEP}
        graph = self.scratch / "int8.xml"
        made = run("small", **self.common | {"plan": "whole", "scan": scan, "graph": graph})
        small = None if "refused" in made else ours | {"graph": graph}
        return self._turns(scan, ours, {"gaussian": True, "mirror": True}, small)

    def _turns(
        self, scan: Path, ours: Values, theirs: Values, small: Values | None = None
    ) -> Values:
        """Run cfseg and nnU-Net in turn, and cfseg in int8 if there is a graph."""
        tasks = {"cfseg": ("ours", ours), "nnunet": ("stock", theirs)}
        if small is not None:
            tasks["int8"] = ("ours", small)
        sides = [(task, self._file_to_file(scan, task, **more)) for task, more in tasks.values()]
        return dict(zip(tasks, rounds(self.asked.pairs, *sides), strict=True))

    def cascade(self) -> list[Values]:
        """Four paper-size networks on the sizes of the paper's Table 8."""
        sizes = list(PAPER_SIZES.items())[: 2 if self.asked.quick else None]
        return [self._one_cascade(n, mm) for n, mm in sizes]

    def memory(self) -> list[Values]:
        """512x512x600 with limits: the true region, then a small one with all fine windows run."""
        limits = (None, "8GB", "4GB", TOO_LITTLE[self.asked.quick])
        whole = [self._one_cascade(600, 1.0, limit) for limit in limits]
        more = {"region_mm": SMALL_REGION_MM, "most": None}
        return whole + [self._one_cascade(600, 1.0, limit, **more) for limit in limits[1:3]]

    def _one_cascade(
        self, slices: int, spacing: float, limit: str | None = None, **more: object
    ) -> Values:
        shape, spacing_mm = (slices, 512, 512), (spacing, 0.75, 0.75)
        if self.asked.quick:
            shape, spacing_mm = (slices // 4, 128, 128), (4 * spacing, 3.0, 3.0)
        # Made here, so that the task's memory is its own.
        synthetic_scan(shape, spacing_mm, self.scratch)
        values: Values = {
            "shape": shape,
            "spacing_mm": spacing_mm,
            "folder": self.scratch,
            "out": self.scratch / "cascade.nii.gz",
            "step": 0.5,
            "most": 2,
            "max_memory": limit,
        }
        found = run("cascade", **self.common | values | more)
        what = found.get("refused") or f"rest {found['rest']:.1f} s"
        print(f"  {slices} slices: {what}, {found['peak_mb']:.0f} MB", flush=True)
        about = {"slices": slices, "spacing_mm": spacing, "max_memory": limit}
        return found | about | {"region_mm": more.get("region_mm"), "most": more.get("most", 2)}

    def start(self) -> Values:
        """The bundled model: to its first window, and everything but the network per case."""
        scans = self._phantoms(10, 4242) / "imagesTr"
        first = sorted(scans.glob("*.nii.gz"))[0]
        starts = [run("start", backend=self.asked.backend, scan=first) for _ in range(3)]
        values = {"folder": scans, "out": self.scratch / "x.nii.gz"}
        return {"starts": starts, "batch": run("batch", **self.common, **values)}

    def accuracy(self) -> Values:
        """The bundled model on phantoms that no training saw, in settings fast and slow."""
        few = self.asked.quick
        cohort = self._phantoms(1 if few else 10, 4242)
        bundle = self.scratch / "int8-bundle"
        cohorts = {
            "calibration": self._phantoms(1 if few else 6, 4343),
            "check": self._phantoms(1 if few else 6, 4444),
        }
        int8 = run("quantized", bundle=bundle, **cohorts)
        rows = []
        for networks, settings, overrides, precision in VARIANTS:
            if precision == "int8" and "refused" in int8:
                continue
            print(f"  {networks}, {settings}, {precision}", flush=True)
            small = precision == "int8"
            found = run(
                "accuracy",
                cohort=cohort,
                bundle=bundle if small else None,
                set=overrides,
                precision=precision,
                backend="openvino" if small else self.asked.backend,
            )
            about = {"networks": networks, "settings": settings, "precision": precision}
            rows.append(about | found)
        return {"variants": rows, "int8": int8}

    def training(self) -> Values:
        """Augmentation and whole steps of training: cfseg and stock nnU-Net in turn."""
        return {
            "augmentation": [self._augmentation(**a) for a in self._augmented()],
            "steps": self.training_steps(),
        }

    def training_steps(self) -> list[Values]:
        """Seconds per step: cfseg with windows of a cohort and with one batch, stock nnU-Net."""
        few = self.asked.quick
        cohort = write_training_cases(self.scratch, 1 if few else CASES)
        common = {"folder": self.scratch / f"{cohort.name}-stored", "cohort": cohort, "threads": 2}
        return [self._training_steps(common | v) for v in ([QUICK_STEPS] if few else measured())]

    def _training_steps(self, values: Values) -> Values:
        print(f"  {values['stage']}, {values['patch']}", flush=True)
        sides = {"cfseg": ("training_steps", values), "nnunet": ("stock_training_steps", values)}
        found = rounds(self.asked.pairs, *sides.values())
        about = {key: values[key] for key in ("stage", "patch", "steps")} | {"warm_up": WARM_UP}
        return about | dict(zip(sides, found, strict=True))

    def _augmented(self) -> tuple[Values, ...]:
        return QUICK if self.asked.quick else AUGMENTED

    def _augmentation(self, patch: Triple, elastic: float, samples: int) -> Values:
        about = {"patch": patch, "elastic": elastic, "samples": samples}
        values = about | {"crops": write_crops(patch, self.scratch), "seed": 0}
        sides = {
            "cfseg": ("augmentation", values),
            "one worker": ("stock_augmentation", values | {"processes": 1}),
            "two workers": ("stock_augmentation", values | {"processes": 2}),
            "library": ("library_augmentation", values),
        }
        found = rounds(self.asked.pairs, *sides.values())
        return about | {"rounds": dict(zip(sides, found, strict=True))}

    def _phantoms(self, cases: int, seed: int) -> Path:
        from cfseg.phantoms.cohort import write_cohort

        return write_cohort(self.scratch / f"phantoms-{seed}-{cases}", cases=cases, seed=seed)


def cpu_name() -> str:
    """Return the processor's name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = (line.split(":")[1].strip() for line in lines if "model name" in line)
    return next(names, platform.processor())


if __name__ == "__main__":
    main()
