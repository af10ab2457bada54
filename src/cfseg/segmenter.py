"""A bundle loaded once: path or image in, :class:`Segmentation` out."""

from dataclasses import dataclass
from functools import partial
from math import isinf
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from cfseg.bundle.bundle import (
    Manifest,
    check_cascade,
    default_bundle,
    digest,
    load_stages,
    read_manifest,
)
from cfseg.inference.budget import Budget, parse_size
from cfseg.inference.cascade import Progress, Result, segment_volume
from cfseg.io import (
    AS_IS,
    Input,
    ReadingOptions,
    Scan,
    label_image,
    read_scan,
    scan_from_image,
    the_input,
    write_label_map,
)
from cfseg.io.ahead import ReadAhead
from cfseg.io.behind import WriteBehind
from cfseg.io.memory import limit_bytes, out_of_memory
from cfseg.io.scan import reading_bytes_of
from cfseg.networks.backends import Backend, Precision, find_backend, find_precision
from cfseg.networks.device import find_device
from cfseg.parallel import cores
from cfseg.recipes.recipe import with_overrides
from cfseg.volume import LabelMap

if TYPE_CHECKING:
    import nibabel as nib


@dataclass(frozen=True)
class Segmentation:
    """The result of one scan, with what is needed to put it back where the scan lies.

    Attributes:
        scan: the input as read.
        result: what the cascade made of it.
        notice: what the bundle's makers want said with every output.
        seconds: in all, reading included, writing not.
    """

    scan: Scan
    result: Result
    notice: str
    seconds: float

    @property
    def label_map(self) -> LabelMap:
        """The labels, (z, y, x) with z up, y back, x left."""
        return self.result.label_map

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading and segmenting had to note."""
        return self.scan.notes + self.result.notes

    def image(self) -> "nib.Nifti1Image":
        """Return the labels as a NIfTI image on the input's own grid."""
        return label_image(self.result.label_map, self.scan.source)

    def save(self, path: str | Path) -> Path:
        """Write the labels on the input's own grid; the suffix decides on the format.

        Args:
            path: ends in ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` or ``.seg.nrrd``.

        Raises:
            ResourceError: the disk refuses, or memory ran out.
            UsageError: another suffix; or ``E_EXTRA``, SimpleITK is missing for it.
        """
        with out_of_memory(f"{self.scan.case}: writing"):
            write_label_map(Path(path), self.result.label_map, self.scan.source)
        return Path(path)


class Segmenter:
    """A bundle, loaded once, that segments scan after scan.

    Args:
        bundle: folder of a bundle; None takes the model that comes with cfseg.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads; None takes all that the process may use.
        overrides: ``KEY=VALUE`` for the cascade, for example ``region.margin_mm=30``.
        options: what to do with scans that would be refused.
        backend: ``auto``, ``torch`` or ``openvino``, see :mod:`cfseg.networks.backends`.
        precision: ``fp32``, or ``int8`` of a bundle that has it (OpenVINO only).
        max_memory: of the process, or of the GPU, as ``3GB``; None for what there is. What does
            not fit is refused before it runs.

    Raises:
        ModelError: the bundle is damaged or cannot do what is asked.
        UsageError: an unknown key, or a device or backend that is not there.
    """

    def __init__(
        self,
        bundle: str | Path | None = None,
        device: str = "auto",
        threads: int | None = None,
        overrides: tuple[str, ...] = (),
        *,
        options: ReadingOptions = AS_IS,
        backend: str = "auto",
        precision: str = "fp32",
        max_memory: str | None = None,
    ) -> None:
        self.options = options
        self.bundle = Path(bundle) if bundle is not None else default_bundle()
        self.manifest: Manifest = read_manifest(self.bundle)
        self.cascade = with_overrides(self.manifest.cascade, overrides)
        check_cascade(self.manifest, self.cascade)
        self.device = find_device(device)
        self.max_memory = None if max_memory is None else parse_size(max_memory)
        self.backend: Backend = find_backend(backend, self.device)
        self.precision: Precision = find_precision(precision, self.backend)
        torch.set_num_threads(threads or cores())
        self.stages = load_stages(
            self.bundle,
            self.manifest,
            self.cascade.stages,
            self.device,
            self.cascade.decoder_stop,
            self.backend,
            self.precision,
        )
        self.digest = digest(self.bundle)
        self.ahead = ReadAhead(partial(_read, options))
        self.behind = WriteBehind()

    @property
    def notice(self) -> str:
        """What the bundle's makers want said with every output."""
        return self.manifest.notice

    def read_ahead(self, scan: Input) -> None:
        """Say which scan comes after the next one, to be read while the networks run on that.

        With a limit of memory nothing is read ahead: two scans would be held at once.
        """
        if self.max_memory is None:
            self.ahead.announce(scan)

    def _limit(self) -> int | None:
        """Return the bytes that a run may take: as asked for, else what the machine has."""
        if self.max_memory is not None or self.device.type != "cpu":
            return self.max_memory
        there_is = limit_bytes()
        return None if isinf(there_is) else int(there_is)

    def segment(
        self,
        scan: "Scan | Input | Path | str | nib.Nifti1Image",
        on_progress: Progress | None = None,
    ) -> Segmentation:
        """Segment a file, a folder or archive with one CT, or a nibabel image.

        Args:
            scan: the path, the image, what a listing found, or a scan that was read before.
            on_progress: called with a stage's name, windows done and windows in all.

        Raises:
            InputError: the input is refused; the message says why and what to do.
            ResourceError: memory ran out.
        """
        start = perf_counter()
        asked = self.max_memory is not None
        budget = Budget(self._limit(), self.device, asked=asked, behind=self.behind)
        with out_of_memory("reading the scan"):
            scan = self._read(scan, budget)
        seconds_read = round(perf_counter() - start, 4)
        shape = "x".join(map(str, scan.volume.geometry.shape))
        with out_of_memory(f"{scan.case}: a scan of {shape} voxels"):
            result = segment_volume(
                scan.volume, self.stages, self.cascade, on_progress, budget=budget
            )
        result.seconds["read"] = seconds_read
        return Segmentation(scan, result, self.notice, round(perf_counter() - start, 3))

    def _read(self, scan: "Scan | Input | Path | str | nib.Nifti1Image", budget: Budget) -> Scan:
        if isinstance(scan, str | Path):
            scan = the_input(Path(scan), self.options)
        if isinstance(scan, Input):
            if budget.asked:
                budget.check_reading(reading_bytes_of(scan.path, self.options))
            return self.ahead.take(scan)
        return scan if isinstance(scan, Scan) else scan_from_image(scan, options=self.options)


def _read(options: ReadingOptions, found: Input) -> Scan:
    return read_scan(found, options=options)


def segment(
    scan: "Path | str | nib.Nifti1Image",
    bundle: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    overrides: tuple[str, ...] = (),
    *,
    options: ReadingOptions = AS_IS,
    backend: str = "auto",
    precision: str = "fp32",
    max_memory: str | None = None,
) -> Segmentation:
    """Segment one scan. For many, make a :class:`Segmenter` and keep it.

    Args and errors are those of :class:`Segmenter` and :meth:`Segmenter.segment`.

    Example:
        >>> segment("ct.nii.gz").save("labels.nii.gz")     # doctest: +SKIP
    """
    segmenter = Segmenter(
        bundle,
        device,
        threads,
        overrides,
        options=options,
        backend=backend,
        precision=precision,
        max_memory=max_memory,
    )
    return segmenter.segment(scan)
