"""What a case costs on this machine, stage by stage and step by step.

The cascade runs as ever, but each network is measured when it is first asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from cfseg.evaluation.cells import plain, quantity_cell
from cfseg.evaluation.tables import versions
from cfseg.geometry import Triple, TripleMm
from cfseg.inference.cascade import Asked, Progress, Stages, segment_volume
from cfseg.inference.predictor import Stage, windows_of
from cfseg.inference.process_memory import peak_bytes, reset_peak
from cfseg.inference.steps import StageCost, measure
from cfseg.io import Input, make_folder, read_scan, write_json, write_label_map, write_text
from cfseg.networks.backends import OnDemand
from cfseg.parallel import cores
from cfseg.recipes.recipe import Cascade, Merge
from cfseg.segmenter import Segmenter
from cfseg.tables import Table, csv_text
from cfseg.volume import LabelMap, Volume

STEPS: dict[str, str] = {
    "load": "loading networks",
    "read": "reading",
    "body": "body crop",
    "prepare": "resampling",
    "network": "network",
    "add": "adding windows up",
    "restore": "upsampling and argmax",
    "clean": "components and merging",
    "write": "writing",
}
"""Of a case, in their order, with their titles."""
_OF_A_STAGE = ("prepare", "network", "add", "restore")
"""Those of each network."""
DERIVED = "Network seconds are derived: passes times the median of those that ran."


@dataclass(frozen=True)
class CaseCost:
    """What one scan cost.

    Attributes:
        case: its id.
        shape: (z, y, x).
        spacing_mm: (z, y, x).
        stages: the networks that ran, in their order; one that ran on a grown region comes twice.
        seconds: by step, see :data:`STEPS`; those of the stages are sums.
        peak_mb: the most that the process held, or torch on a GPU.
        notes: what a reader of the figures should know.
    """

    case: str
    shape: Triple
    spacing_mm: TripleMm
    stages: tuple[StageCost, ...]
    seconds: dict[str, float]
    peak_mb: float
    notes: tuple[str, ...] = ()

    @property
    def derived(self) -> bool:
        """Whether the seconds of a network are partly computed."""
        return any(stage.derived for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, as JSON can hold it."""
        return {
            "case": self.case,
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "seconds": self.seconds | {"total": sum(self.seconds.values())},
            "derived": self.derived,
            "peak_mb": self.peak_mb,
            "stages": [stage.as_dict() for stage in self.stages],
            "notes": list(self.notes),
        }


def measure_case(
    scan: Path | Input,
    segmenter: Segmenter,
    most: int | None = None,
    on_window: Progress | None = None,
) -> CaseCost:
    """Segment a scan and say what each step cost; the label map is not kept.

    Args:
        scan: a file, or a folder or archive with one CT; or what a listing found.
        segmenter: the loaded bundle.
        most: windows that each fine network really runs; its seconds are derived from them, and
            the coarse mask stands in for what it would have found. None runs all of them.
        on_window: called with a stage's name, windows done and windows in all.

    Raises:
        InputError: the scan is refused.
        ResourceError: the temporary folder cannot be written.
    """
    device = segmenter.device
    reset_peak(device)
    start = perf_counter()
    found = read_scan(scan, options=segmenter.options)
    seconds = {"read": perf_counter() - start}
    cascade, notes = _without_means(segmenter.cascade)
    networks = _Measured(found.volume, segmenter.stages, cascade, most, on_window)
    result = segment_volume(found.volume, segmenter.stages, cascade, memory=networks)
    seconds |= {"load": networks.loading, "body": result.seconds.get("body", 0.0)}
    seconds["clean"] = sum(result.seconds.get(name, 0.0) for name in ("region", "merge"))
    for step in _OF_A_STAGE:
        seconds[step] = sum(cost.seconds[step] for cost in networks.costs)
    with TemporaryDirectory() as folder:
        start = perf_counter()
        write_label_map(Path(folder) / "labels.nii.gz", result.label_map, found.source)
        seconds["write"] = perf_counter() - start
    return CaseCost(
        case=found.case,
        shape=found.volume.geometry.shape,
        spacing_mm=found.volume.geometry.spacing_mm,
        stages=tuple(networks.costs),
        seconds={step: seconds[step] for step in STEPS},
        peak_mb=max(peak_bytes(device) / 1e6, *networks.peaks_mb),
        notes=(*found.notes, *notes, *result.notes),
    )


def _without_means(cascade: Cascade) -> tuple[Cascade, list[str]]:
    """Return the cascade with networks that can be measured one by one."""
    if "mean" not in (cascade.merge.tumor, cascade.merge.organ):
        return cascade, []
    note = "mean: measured as if the tumor networks were merged as labels, not as probabilities"
    return cascade.model_copy(update={"merge": Merge()}), [note]


class _Measured(dict[Asked, LabelMap]):
    """What networks say about a scan: each is measured when the cascade first asks.

    Args:
        volume: the scan.
        stages: the networks.
        cascade: how their windows lie.
        most: see :func:`measure_case`.
        on_window: see :func:`measure_case`.
    """

    def __init__(
        self,
        volume: Volume,
        stages: Stages,
        cascade: Cascade,
        most: int | None,
        on_window: Progress | None,
    ) -> None:
        super().__init__()
        self.volume, self.cascade, self.most, self.on_window = volume, cascade, most, on_window
        self.stages = {s.name: s for s in (stages.coarse, *stages.tumor, stages.organ) if s}
        self.costs: list[StageCost] = []
        self.peaks_mb: list[float] = []
        self.loading = 0.0
        self.coarse: LabelMap | None = None

    def __contains__(self, asked: object) -> bool:
        """Say that a network need not be run: it will be, here."""
        return True

    def __missing__(self, asked: Asked) -> LabelMap:
        (name,), box = asked
        stage = self.stages[name]
        self.peaks_mb.append(peak_bytes(stage.device) / 1e6)
        self.loading += _load(stage)
        is_coarse = stage.role == "coarse"
        cost, found = measure(
            stage,
            self.volume.crop(box),
            windows_of(self.cascade, stage.role),
            self.cascade.decoder_stop if is_coarse else 0,
            # Without its mask nothing is known of the region: the coarse network runs as a whole.
            None if is_coarse else self.most,
            None if self.on_window is None else partial(self.on_window, name),
        )
        stage.rest()
        self.costs.append(cost)
        self.peaks_mb.append(cost.peak_mb)
        if is_coarse:
            self.coarse = LabelMap.empty(self.volume.geometry)
            self.coarse.ids[box.slices] = found.ids
        elif cost.derived:
            stand_in = self.coarse or LabelMap.empty(self.volume.geometry)
            found = stand_in.crop(box)
        self[asked] = found
        return found


def _load(stage: Stage) -> float:
    """Load a network and return the seconds that this took."""
    start = perf_counter()
    if isinstance(stage.network, OnDemand):
        stage.network.ready()
    return perf_counter() - start


def stage_tables(costs: Sequence[StageCost], title: str = "Networks") -> list[Table]:
    """Return what networks did, and how long the steps around them took.

    Args:
        costs: a row each.
        title: of the first table.
    """
    number, backends = quantity_cell, {cost.backend for cost in costs}
    work, steps = [], []
    for cost in costs:
        name = cost.stage if len(backends) == 1 else f"{cost.stage}, {cost.backend}"
        speed = (number(cost.gflops), number(cost.sgemm), f"{cost.percent_of_sgemm:.0f} %")
        each = (number(cost.gflop), number(cost.window_seconds))
        counts = (str(cost.windows), str(cost.passes))
        work.append((name, "x".join(map(str, cost.patch)), *counts, *each, *speed))
        seconds = (number(cost.seconds[step]) for step in _OF_A_STAGE)
        steps.append((name, *seconds, number(cost.peak_mb)))
    first = Table(
        f"{title}, {backends.pop()}" if len(backends) == 1 else title,
        ("stage", "patch", "windows", "passes", "GFLOP", "s each", "GFLOP/s", "sgemm", "share"),
        tuple(work),
        "sgemm: GFLOP/s of a matrix product in the same run; share: the network's part of it.",
    )
    second = Table(
        "Seconds of their steps",
        ("stage", *(STEPS[step] for step in _OF_A_STAGE), "peak MB"),
        tuple(steps),
        DERIVED if any(cost.derived for cost in costs) else "",
    )
    return [first, second]


def tables(cost: CaseCost) -> list[Table]:
    """Return the tables of a case: its networks, their steps, and the steps of the whole."""
    shape = "x".join(map(str, reversed(cost.shape)))
    spacing = "x".join(f"{mm:.3g}" for mm in reversed(cost.spacing_mm))
    total = sum(cost.seconds.values())
    rows = [
        (STEPS[step], quantity_cell(seconds), f"{100 * seconds / total:.1f} %")
        for step, seconds in cost.seconds.items()
    ]
    whole = Table(
        "All steps",
        ("step", "seconds", "share"),
        (*rows, ("total" + (" (derived)" if cost.derived else ""), quantity_cell(total), "")),
        f"Peak memory {quantity_cell(cost.peak_mb)} MB.",
    )
    title = f"{cost.case}, {shape} voxels of {spacing} mm"
    return [*stage_tables(cost.stages, title), whole]


def write_costs(out: Path, costs: Sequence[CaseCost]) -> None:
    """Write ``steps.json``, and ``stages.csv`` and ``steps.csv`` with the same numbers.

    Raises:
        ResourceError: the folder cannot be written.
    """
    make_folder(out)
    record = {"cases": [cost.as_dict() for cost in costs], "cores": cores()}
    record |= {"threads": torch.get_num_threads(), "versions": versions()}
    write_json(out / "steps.json", plain(record))
    write_text(out / "stages.csv", _stages_csv(costs))
    steps = ((c.case, step, seconds) for c in costs for step, seconds in c.seconds.items())
    write_text(out / "steps.csv", csv_text(("case", "step", "seconds"), steps))


def _stages_csv(costs: Sequence[CaseCost]) -> str:
    names = ("stage", "backend", "windows", "passes", "gflop", "window_seconds", "gflops")
    more = ("sgemm", "percent_of_sgemm", "peak_mb", "derived")
    rows = []
    for case in costs:
        for cost in (stage.as_dict() for stage in case.stages):
            patch = "x".join(map(str, cost["patch"]))
            values = [cost[name] for name in (*names, *more)]
            rows.append(
                (case.case, patch, *values, *(cost["seconds"][step] for step in _OF_A_STAGE))
            )
    header = ("case", "patch", *names, *more, *(f"{step}_seconds" for step in _OF_A_STAGE))
    return csv_text(header, rows)
