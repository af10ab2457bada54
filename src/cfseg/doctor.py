"""What predicting would do with each input, and why, without running a network."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch

from cfseg.bundle.bundle import Manifest, default_bundle, read_manifest
from cfseg.errors import ResourceError, as_cfseg_error, exit_code
from cfseg.geometry import Geometry
from cfseg.inference.buffers import COPIES, stage_buffers, weight_bytes
from cfseg.inference.predictor import windows_of
from cfseg.inference.process_memory import used_bytes
from cfseg.inference.sliding_window import window_starts
from cfseg.io import AS_IS, Input, ReadingOptions, Scan, case_names, list_inputs, read_scan
from cfseg.io.listing import OnLook
from cfseg.io.memory import limit_bytes
from cfseg.networks.backends import Backend, find_backend
from cfseg.networks.device import find_device
from cfseg.networks.operations import sgemm_gflops, window_operations
from cfseg.plan import Role, StagePlan
from cfseg.preprocessing.body import body_box
from cfseg.preprocessing.prepare import network_shape

SHARE_OF_PEAK = 0.7
"""What the networks reach of a matrix product's speed on a CPU; docs/performance.md."""

OnCase = Callable[["Diagnosis", int, int], None]
"""Called with each diagnosis, the number of inputs done, and that of all."""


@dataclass(frozen=True)
class Diagnosis:
    """What is known of an input before it is segmented.

    Attributes:
        case: what it will be called.
        path: where it lies.
        code: of the refusal, "" if there is none.
        message: why it is refused.
        details: what there is to choose from, a row each.
        notes: what reading it had to decide.
        shape: (z, y, x) voxels.
        spacing_mm: along (z, y, x).
        hu: lowest and highest value.
        files: of the DICOM series; 1 for a file.
        phase: of contrast, as DICOM tags tell it.
        memory_mb: about what segmenting takes.
        seconds: about what it takes at most, if the whole body has to be looked at closely.
    """

    case: str
    path: str
    code: str = ""
    message: str = ""
    details: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    hu: tuple[float, ...] = ()
    files: int = 1
    phase: str = ""
    memory_mb: float = 0
    seconds: float = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Checkup:
    """What is known of all inputs.

    Attributes:
        cases: in order.
        ignored: the other files, by the reason why they are no scans.
    """

    cases: tuple[Diagnosis, ...]
    ignored: dict[str, tuple[str, ...]]

    @property
    def exit_code(self) -> int:
        """What predicting would exit with, if nothing else goes wrong."""
        codes = [case.code for case in self.cases if case.code]
        return exit_code(len(self.cases) - len(codes), codes)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "exit_code": self.exit_code,
            "inputs": len(self.cases),
            "refused": sum(bool(case.code) for case in self.cases),
            "ignored": {reason: list(paths) for reason, paths in self.ignored.items()},
            "cases": [case.as_dict() for case in self.cases],
        }


def examine(
    inputs: Sequence[Path],
    bundle: str | Path | None = None,
    options: ReadingOptions = AS_IS,
    *,
    on_look: OnLook | None = None,
    on_case: OnCase | None = None,
) -> Checkup:
    """Find, read and check all inputs, and say what segmenting each of them takes.

    Args:
        inputs: as of :func:`cfseg.batch.predict_many`.
        bundle: whose networks would run; none is loaded.
        options: of reading.
        on_look: called with the number of files that were looked at.
        on_case: see :data:`OnCase`.

    Raises:
        UsageError: no input exists.
        ModelError: the bundle cannot be read.

    Example:
        >>> examine([Path("scans")]).exit_code                   # doctest: +SKIP
    """
    machine = _Machine(read_manifest(default_bundle() if bundle is None else Path(bundle)))
    listing = list_inputs(inputs, options, on_look=on_look)
    named = case_names(listing.inputs)
    cases = []
    for found, case in named.items():
        cases.append(_diagnose(replace(found, case=case), machine, options))
        if on_case is not None:
            on_case(cases[-1], len(cases), len(named))
    ignored = {
        reason: tuple(str(it.path) for it in listing.ignored if it.reason == reason)
        for reason in listing.reasons
    }
    return Checkup(tuple(cases), ignored)


def _diagnose(found: Input, machine: "_Machine", options: ReadingOptions) -> Diagnosis:
    known = Diagnosis(found.case, str(found.shown), files=max(1, len(found.files)))
    try:
        scan = read_scan(found, options=options)
        known = replace(known, **_of_scan(scan, found))
        memory_mb, seconds = machine.needs(scan)
        known = replace(known, memory_mb=memory_mb, seconds=seconds)
        machine.check(memory_mb)
    except Exception as caught:  # as in a batch, it costs this input alone
        error = as_cfseg_error(caught)
        return replace(known, code=error.code, message=error.message, details=error.details)
    return known


def _of_scan(scan: Scan, found: Input) -> dict[str, Any]:
    phase = ""
    if found.files:
        from cfseg.io.phase import phase_of

        phase = phase_of(found.files[0])
    return {
        "notes": scan.notes,
        "shape": scan.volume.geometry.shape,
        "spacing_mm": tuple(round(mm, 4) for mm in scan.volume.geometry.spacing_mm),
        "hu": (float(scan.volume.hu.min()), float(scan.volume.hu.max())),
        "phase": phase,
    }


@cache
def _speed(device: torch.device) -> float:
    """Return what the machine computes, in 1e9 operations per second; measured once."""
    return sgemm_gflops(device=device)


class _Machine:
    """What the networks of a bundle take on this machine."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.device = find_device("auto")
        self.backend: Backend = find_backend("auto", self.device)
        self.gflops = SHARE_OF_PEAK * _speed(self.device)
        self.limit_mb = limit_bytes() / 1e6

    def needs(self, scan: Scan) -> tuple[float, float]:
        """Return megabytes and seconds; fine networks are taken to see the whole body."""
        box = body_box(scan.volume)
        body = scan.volume.crop(box).geometry
        memory, operations = 0, 0.0
        for entry in self.manifest.stages:
            if entry.role in self.manifest.cascade.stages:
                buffers = stage_buffers(entry.plan, body, self.backend, half=True)
                weights = COPIES[self.backend] * weight_bytes(entry.plan.architecture)
                memory = max(memory, int(sum(buffers.values()) + weights))
                operations += self._windows(entry.plan, entry.role, body) * window_operations(
                    entry.plan, self.manifest.cascade.decoder_stop
                )
        held = used_bytes(torch.device("cpu"))  # the program and the scan
        return round((held + memory) / 1e6), ceil(operations / 1e9 / self.gflops)

    def _windows(self, plan: StagePlan, role: Role, body: Geometry) -> int:
        """Return how often a network runs for a volume."""
        shape = network_shape(body, plan)
        z, y, x = (max(n, p) for n, p in zip(shape, plan.patch, strict=True))
        windows = windows_of(self.manifest.cascade, role)
        starts = window_starts((z, y, x), plan.patch, windows.step)
        return prod(map(len, starts)) * (8 if windows.mirror else 1)

    def check(self, needed_mb: float) -> None:
        """Refuse what does not fit into memory.

        Raises:
            ResourceError: ``E_TOO_LARGE``.
        """
        if self.device.type == "cpu" and needed_mb > self.limit_mb:
            raise ResourceError(
                f"segmenting needs about {needed_mb:.0f} MB and this process can have "
                f"{self.limit_mb:.0f} MB; crop the scan, or take a machine with more memory",
                code="E_TOO_LARGE",
            )
