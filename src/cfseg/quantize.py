"""Networks in int8: made by post-training quantization, kept only if they lose next to nothing.

Calibration shows each network the windows that the cascade would show it. The result is checked
with the whole cascade on labelled scans of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from cfseg.bundle.bundle import Manifest, read_manifest, read_weights
from cfseg.bundle.int8 import Graph, write_int8
from cfseg.bundle.manifest import Int8Check
from cfseg.dataset.cases import Case, read_cases, read_labels
from cfseg.errors import ModelError, UsageError
from cfseg.evaluation.metrics import dice
from cfseg.inference.cascade import Stages, segment_volume
from cfseg.inference.predictor import Stage
from cfseg.io import make_folder, read_scan
from cfseg.networks.backends import Runner
from cfseg.plan import StagePlan
from cfseg.segmenter import Segmenter

WINDOWS = 24
"""Windows of each network that are looked at; more change the ranges little."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Quantized:
    """What came of it.

    Attributes:
        bundle: the new bundle.
        check: what its int8 networks are worth.
    """

    bundle: Path
    check: Int8Check


def quantize(
    bundle: Path,
    calibration: Path,
    check: Path,
    out: Path,
    report: Report = print,
    threads: int | None = None,
    *,
    overwrite: bool = False,
) -> Quantized:
    """Make the int8 form of a bundle's networks and write the bundle with it, if it is good enough.

    Args:
        bundle: folder of the bundle.
        calibration: cohort, or folder of scans; labels are not used.
        check: labelled cohort of other scans.
        out: the new bundle.
        report: gets lines of progress.
        threads: CPU threads; None takes all that the process may use.
        overwrite: replace a bundle of the path ``out``.

    Raises:
        ModelError: the mean DSC falls by more than the bundle's ``int8_dsc_loss``; nothing is
            written then.
        UsageError: NNCF is not installed; a cohort has no scans, or no labels to check with.
    """
    manifest = read_manifest(bundle)
    cases = [case for case in read_cases(check) if case.label is not None]
    scans = [case.image for case in read_cases(calibration)]
    if not cases or not scans:
        missing = f"{check} has no labelled scans" if not cases else f"{calibration} has no scans"
        raise UsageError(f"{missing}; give a cohort, such as 'cfseg phantom' makes")
    segmenter = Segmenter(bundle, "cpu", threads, backend="openvino")
    graphs = _graphs(bundle, manifest, _windows(segmenter, scans, report), report)
    make_folder(out.parent)
    with TemporaryDirectory(dir=out.parent, prefix=".tmp-") as folder:
        draft, loss = Path(folder) / "draft", manifest.cascade.int8_dsc_loss
        unknown = Int8Check(cases=len(cases), dsc_fp32=0, dsc_int8=0, dsc_loss=loss)
        write_int8(bundle, draft, graphs, unknown, overwrite=False)
        small = Segmenter(draft, "cpu", threads, backend="openvino", precision="int8")
        found = _check(segmenter, small, cases, loss, report)
    lost = found.dsc_fp32 - found.dsc_int8
    if lost > loss:
        raise ModelError(
            f"int8 loses {lost:.4f} of the mean DSC ({found.dsc_fp32:.4f} to {found.dsc_int8:.4f} "
            f"on {len(cases)} scans), allowed is int8_dsc_loss = {loss}; nothing was written: "
            "calibrate with more scans, or set another bound in the bundle's recipe"
        )
    return Quantized(write_int8(bundle, out, graphs, found, overwrite=overwrite), found)


class _Recorder:
    """A network that keeps some of the windows that it is shown."""

    def __init__(self, network: Runner) -> None:
        self.network = network
        self.windows: list[np.ndarray] = []
        self.seen = 0

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        # Each window has the same chance to stay, whatever their number (reservoir sampling).
        chosen = self.seen
        if self.seen >= WINDOWS:
            chosen = int(np.random.default_rng(self.seen).integers(self.seen + 1))
        kept = np.array(window.numpy(), dtype=np.float32, order="C") if chosen < WINDOWS else None
        if kept is not None and chosen < len(self.windows):
            self.windows[chosen] = kept
        elif kept is not None:
            self.windows.append(kept)
        self.seen += 1
        return self.network(window)


def _windows(
    segmenter: Segmenter, scans: Sequence[Path], report: Report
) -> dict[str, list[np.ndarray]]:
    """Return windows of each stage, by its name, as the cascade shows them."""
    recorders: dict[str, _Recorder] = {}

    def recorded(stage: Stage) -> Stage:
        recorders[stage.name] = _Recorder(stage.network)
        return replace(stage, network=recorders[stage.name])

    stages = segmenter.stages
    listening = Stages(
        coarse=recorded(stages.coarse) if stages.coarse else None,
        tumor=tuple(recorded(stage) for stage in stages.tumor),
        organ=recorded(stages.organ) if stages.organ else None,
    )
    for number, scan in enumerate(scans, 1):
        segment_volume(read_scan(scan).volume, listening, segmenter.cascade)
        report(f"calibration: {number} of {len(scans)} scans")
    unseen = [name for name, recorder in recorders.items() if not recorder.windows]
    if unseen:
        raise UsageError(
            f"no window of the calibration scans reached {', '.join(unseen)}: the coarse network "
            "found no abdomen in them; give others"
        )
    return {name: recorder.windows for name, recorder in recorders.items()}


def _graphs(
    bundle: Path, manifest: Manifest, windows: dict[str, list[np.ndarray]], report: Report
) -> dict[str, Graph]:
    missing = [entry.name for entry in manifest.stages if entry.name not in windows]
    if missing:
        raise ModelError(f"the bundle's cascade does not use {', '.join(missing)}; see its stages")
    graphs = {}
    for entry in manifest.stages:
        stop = manifest.cascade.decoder_stop if entry.role == "coarse" else 0
        weights = read_weights(bundle / entry.weights, entry.sha256)
        graphs[entry.name] = quantized_graph(entry.plan, weights, stop, windows[entry.name])
        report(f"{entry.name}: quantized with {len(windows[entry.name])} windows")
    return graphs


def quantized_graph(
    plan: StagePlan,
    weights: Mapping[str, torch.Tensor],
    decoder_stop: int,
    windows: Sequence[np.ndarray],
) -> Graph:
    """Return a network in int8.

    Args:
        plan: gives architecture, classes and the size of a window.
        weights: by state-dict name, as in an nnU-Net v2 checkpoint.
        decoder_stop: see :func:`cfseg.networks.build.build_network`.
        windows: (1, 1, Z, Y, X) float32 z-scores that it would see; they give the ranges.

    Raises:
        UsageError: NNCF is not installed.
    """
    nncf = _nncf()
    from cfseg.networks.openvino_graph import build_graph
    from cfseg.networks.openvino_silent import ov

    made = nncf.quantize(
        build_graph(plan, weights, decoder_stop),
        nncf.Dataset(list(windows)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(windows),
    )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.xml"
        ov.save_model(made, str(file), compress_to_fp16=False)
        return file.read_bytes(), file.with_suffix(".bin").read_bytes()


def _nncf() -> Any:  # noqa: ANN401 - a module without types
    from cfseg.networks.openvino_silent import no_telemetry

    try:
        with no_telemetry():
            import nncf
    except ImportError as error:
        raise UsageError("NNCF is not installed: pip install 'cfseg[int8]'") from error
    nncf.set_log_level(30)
    return nncf


def _check(
    exact: Segmenter, small: Segmenter, cases: Sequence[Case], loss: float, report: Report
) -> Int8Check:
    scores: tuple[list[float], list[float]] = ([], [])
    for number, case in enumerate(cases, 1):
        reference, scan = read_labels(case).ids, read_scan(case.image)
        labels = [label for label in sorted(case.annotated) if (reference == label).any()]
        for segmenter, found in zip((exact, small), scores, strict=True):
            ids = segmenter.segment(scan).label_map.ids
            found.append(float(np.mean([dice(ids == n, reference == n) for n in labels])))
        report(
            f"check: {number} of {len(cases)} scans, DSC {scores[0][-1]:.4f} {scores[1][-1]:.4f}"
        )
    return Int8Check(
        cases=len(cases),
        dsc_fp32=float(np.mean(scores[0])),
        dsc_int8=float(np.mean(scores[1])),
        dsc_loss=loss,
    )
