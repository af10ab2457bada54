"""Single measurements. Each runs in a process of its own, so that its peak memory is its own."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from time import perf_counter, time
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy import accuracy, quantized
from benchmarks.augmentation import augmentation, library_augmentation, stock_augmentation
from benchmarks.cases import abdomen, middle, plan_of, role_of, synthetic_scan, weights_of
from benchmarks.training_accuracy import stock_training
from benchmarks.training_steps import stock_training_steps, training_steps
from cfseg.bundle.bundle import default_bundle, read_manifest, read_weights
from cfseg.errors import ResourceError, UsageError
from cfseg.geometry import Box, Geometry
from cfseg.inference.budget import Budget, parse_size
from cfseg.inference.cascade import Stages, segment_volume
from cfseg.inference.predictor import Stage, Windows, predict_labels
from cfseg.inference.process_memory import peak_bytes
from cfseg.inference.steps import Timed, measure
from cfseg.io import read_scan, write_label_map
from cfseg.networks.backends import OnDemand, load
from cfseg.networks.operations import sgemm_gflops
from cfseg.preprocessing.body import body_box
from cfseg.preprocessing.prepare import prepare
from cfseg.quantize import quantized_graph
from cfseg.recipes.recipe import Cascade, Step
from cfseg.volume import LabelMap

CPU = torch.device("cpu")
Values = dict[str, Any]


def stage_of(name: str, backend: str, quick: bool) -> Stage:
    """Return a stage with random weights, loaded when it is first called."""
    plan = plan_of(name, quick=quick)
    network = OnDemand(lambda: load(plan, weights_of(plan), CPU, 0, backend))
    return Stage(role_of(name), name, plan, network, CPU, backend)


def small(v: Values) -> Values:
    """Write the int8 graph of a network, its ranges from two windows of a scan; or why not."""
    plan, part = plan_of(v["plan"], quick=v["quick"]), read_scan(Path(v["scan"])).volume
    image = prepare(part.crop(body_box(part)), plan).array
    room = [(0, max(0, p - n)) for p, n in zip(plan.patch, image.shape, strict=True)]
    image = np.pad(image, room)
    first = image[tuple(slice(p) for p in plan.patch)]
    last = image[tuple(slice(n - p, None) for n, p in zip(image.shape, plan.patch, strict=True))]
    windows = [np.ascontiguousarray(window)[None, None] for window in (first, last)]
    try:
        xml, weights = quantized_graph(plan, weights_of(plan), 0, windows)
    except UsageError as error:
        return {"refused": f"{error.code}: {error.message}"}
    Path(v["graph"]).write_bytes(xml)
    Path(v["graph"]).with_suffix(".bin").write_bytes(weights)
    return {"bytes": len(weights)}


def ours(v: Values) -> Values:
    """File to file with one network over the whole scan, or, cropped, over the body."""
    stage = stage_of(v["plan"], v["backend"], v["quick"])
    if "graph" in v:
        from cfseg.networks.openvino_runner import load_graph  # the other tasks do without OpenVINO

        graph = Path(v["graph"])
        network = load_graph(graph.read_bytes(), graph.with_suffix(".bin").read_bytes())
        loaded = OnDemand(lambda: network)
        stage = Stage(stage.role, stage.name, stage.plan, loaded, CPU, "openvino")
    stage.network.ready()
    timed = Timed(stage.network, v.get("most"))
    stage = Stage(stage.role, stage.name, stage.plan, timed, CPU, stage.backend)
    windows = Windows(v["step"], v["gaussian"], v["mirror"])
    seconds, start = {}, perf_counter()
    scan = read_scan(Path(v["scan"]))
    seconds["read"] = perf_counter() - start
    whole = LabelMap.empty(scan.volume.geometry)
    box = body_box(scan.volume) if v["crop"] else None
    part = scan.volume if box is None else scan.volume.crop(box)
    found = predict_labels(stage, part, windows)
    whole.ids[box.slices if box else np.s_[:]] = found.ids
    writing = perf_counter()
    write_label_map(Path(v["out"]), whole, scan.source)
    end = perf_counter()
    seconds |= {"write": end - writing, "network": sum(timed.seconds), "total": end - start}
    return {"seconds": seconds, "forwards": timed.calls, "each": timed.seconds}


def stock_tools() -> ModuleType:
    """Return the tests' module that drives nnU-Net's own code."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "inference"))
    return import_module("stock")


def stock(v: Values) -> Values:
    """The same with nnU-Net's own predictor, reader and writer."""
    tools = stock_tools()
    plan = plan_of(v["plan"], quick=v["quick"])
    with tools.quiet():
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
        from nnunetv2.inference.export_prediction import (
            export_prediction_from_logits as export,
        )

        made = tools.Stock(plan)
        timed: dict[str, Any] = {}
        copies: list[float] = []

        class Network(torch.nn.Module):
            """Counts the time of the network, and repeats its answer when that is asked for."""

            def __init__(self, inner: torch.nn.Module) -> None:
                super().__init__()
                self.inner = inner
                self.timed = timed["runner"] = Timed(inner, v.get("most"))

            def forward(self, window: torch.Tensor) -> torch.Tensor:
                answer = self.timed(window)
                if self.timed.most is None:
                    return answer
                # nnU-Net adds mirrored answers up in place: one that is repeated must stay whole.
                start = perf_counter()
                copy = answer.clone()
                copies.append(perf_counter() - start)
                return copy

        network_of = made.network
        made.network = lambda weights: Network(network_of(weights))
        predictor = tools.stock_predictor(
            made, weights_of(plan), v["step"], v["gaussian"], v["mirror"]
        )
        seconds, start = {}, perf_counter()
        raw, properties = SimpleITKIO().read_images([v["scan"]])
        seconds["read"] = perf_counter() - start
        preprocessor = made.configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            raw, None, properties, made.manager, made.configuration, made.dataset
        )
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
        writing = perf_counter()
        target = str(v["out"]).removesuffix(".nii.gz")
        export(logits, properties, made.configuration, made.manager, made.dataset, target, False)
        end = perf_counter()
    each, calls = timed["runner"].seconds, timed["runner"].calls
    total = end - start - sum(copies)
    seconds |= {"export": end - writing, "network": sum(each), "total": total}
    return {"seconds": seconds, "forwards": calls, "each": each}


def labels(v: Values) -> Values:
    """The bundled networks, mirroring and Gaussian on: voxels labelled as nnU-Net labels them.

    Beside stock nnU-Net, which adds up in half precision on a CPU, stands a plain loop around its
    network that adds up in float32.
    """
    from cfseg.segmenter import Segmenter

    tools = stock_tools()
    bundle = default_bundle()
    stages, volume = Segmenter(backend=v["backend"]).stages, read_scan(Path(v["scan"])).volume
    loaded = [stage for stage in (stages.coarse, *stages.tumor, stages.organ) if stage is not None]
    entries = {entry.name: entry for entry in read_manifest(bundle).stages}
    windows, same = Windows(0.5, gaussian=True, mirror=True), {}
    for stage in loaded:
        entry = entries[stage.name]
        weights = read_weights(bundle / entry.weights, entry.sha256)
        ids = predict_labels(stage, volume, windows).ids
        same[stage.name] = {
            name: float(np.mean(ids == other(stage.plan, weights, volume, windows)))
            for name, other in (("fp32", tools.reference_predict), ("stock", tools.stock_predict))
        }
    return {"same": same, "voxels": volume.hu.size}


def steps(v: Values) -> Values:
    """The table of steps of one stage; a few windows are run, the others derived."""
    stage = stage_of(v["plan"], v["backend"], v["quick"])
    scan = read_scan(Path(v["scan"]))
    stage.network.ready()
    cost, _ = measure(stage, scan.volume, Windows(v["step"]), most=v["most"])
    return cost.as_dict()


def cascade(v: Values) -> Values:
    """The whole cascade on the phantom's true region, or on the middle of it.

    The coarse network runs ``FEW`` of its windows and repeats the last answer, for its time and
    memory. Random weights find no abdomen, so the fine networks see a part of the scan as all
    there is; in the whole scan what they say would let the region grow. ``most`` says how many
    windows each runs; None for all.
    """
    scan_file, labels = synthetic_scan(tuple(v["shape"]), tuple(v["spacing_mm"]), Path(v["folder"]))
    box = abdomen(labels)
    if v.get("region_mm"):
        box = middle(box, labels.geometry.margin_voxels(v["region_mm"]))
    budget = _Budget(None if v["max_memory"] is None else parse_size(v["max_memory"]), CPU)
    try:
        return {"region": box.shape} | _cascade(v, scan_file, labels, box, budget)
    except ResourceError as error:
        return {"refused": f"{error.code}: {error.message}", "region": box.shape}


class _Budget(Budget):
    """Knows of a network that is in memory too and can be let go, as that of the whole cascade."""

    others: tuple[Stage, ...] = ()

    def sums(self, stage: Stage, geometry: Geometry, others: Sequence[Stage], **more: int) -> Any:
        """As ever, with the others."""
        return super().sums(stage, geometry, [*others, *self.others], **more)


FEW = 2
"""Windows that a network runs where its seconds are derived."""


def _cascade(v: Values, scan_file: Path, labels: LabelMap, box: Box, budget: "_Budget") -> Values:
    timed: dict[str, list[list[float]]] = {}  # of each loading; the networks may be let go

    def part(name: str, most: int | None) -> Stage:
        plan = plan_of(name, quick=v["quick"])

        def network() -> Timed:
            made = Timed(load(plan, weights_of(plan), CPU, 0, v["backend"]), most)
            timed.setdefault(name, []).append(made.seconds)
            return made

        return Stage(role_of(name), name, plan, OnDemand(network), CPU, v["backend"])

    coarse = part("coarse", FEW)
    tumor = (part("tumor_1", v["most"]), part("tumor_2", v["most"]))
    values = Cascade(step=Step(coarse=1.0, tumor=v["step"], organ=v["step"]))
    counts: dict[str, int] = {}
    report = lambda name, _, of: counts.__setitem__(name, of)  # noqa: E731
    start = perf_counter()
    scan = read_scan(scan_file)
    segment_volume(scan.volume, Stages(coarse), values, report, budget=budget)
    budget.others = (coarse,)
    fine = Stages(None, tumor, part("organ", v["most"]))
    result = segment_volume(scan.volume.crop(box), fine, values, report, budget=budget)
    labels.ids[:] = 0  # it stood for the coarse mask until here
    labels.ids[box.slices] = result.label_map.ids
    write_label_map(Path(v["out"]), labels, scan.source)
    seconds = perf_counter() - start
    each = {name: [s for seconds in made for s in seconds] for name, made in timed.items()}
    return {
        "windows": counts,
        "rest": seconds - sum(map(sum, each.values())),
        "each": each,
        "memory": budget.as_dict(),
        "labels_sha256": sha256(labels.ids.tobytes()).hexdigest(),
        "labels_found": np.unique(result.label_map.ids).tolist(),
    }


def sgemm(_: Values) -> Values:
    """What the machine does at matrix products."""
    return {"gflops": sgemm_gflops(4096, 5)}


def start(v: Values) -> Values:
    """From the start of Python to the first window of the bundled model."""
    from cfseg.segmenter import Segmenter

    class Reached(Exception):  # noqa: N818 - it is no error
        pass

    def stop(*_: object) -> None:
        raise Reached

    with contextlib.suppress(Reached):
        Segmenter(backend=v["backend"]).segment(v["scan"], stop)
    return {"seconds": time() - v["begun"]}


def batch(v: Values) -> Values:
    """Ten phantoms with the bundled model: everything but the network, per case."""
    from cfseg.segmenter import Segmenter

    segmenter = Segmenter(backend=v["backend"])
    rests = []
    for file in sorted(Path(v["folder"]).glob("*.nii.gz")):
        timed: list[Timed] = []

        def listen(stage: Stage | None, timed: list[Timed] = timed) -> Stage | None:
            if stage is None:
                return None
            timed.append(Timed(stage.network))
            return Stage(stage.role, stage.name, stage.plan, timed[-1], CPU, stage.backend)

        found = segmenter.stages
        segmenter.stages = Stages(
            listen(found.coarse), tuple(listen(s) for s in found.tumor), listen(found.organ)
        )
        start = perf_counter()
        segmenter.segment(file).save(Path(v["out"]))
        rests.append(perf_counter() - start - sum(sum(t.seconds) for t in timed))
        segmenter.stages = found
    return {"rests": rests}


TASKS: dict[str, Callable[[Values], Values]] = {
    task.__name__: task
    for task in (
        ours,
        small,
        stock,
        labels,
        steps,
        cascade,
        sgemm,
        start,
        batch,
        accuracy,
        quantized,
        augmentation,
        library_augmentation,
        stock_augmentation,
        stock_training,
        training_steps,
        stock_training_steps,
    )
}


def main() -> None:
    """Run the task that the command line names and print what it found as JSON."""
    name, values = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(values.get("threads") or len(os.sched_getaffinity(0)))
    found = TASKS[name](values)
    found["peak_mb"] = peak_bytes(CPU) / 1e6
    print("RESULT " + json.dumps(found, default=str))


if __name__ == "__main__":
    main()
