"""Many scans: each input is accounted for, one failure never stops the others, work resumes.

For every input ``OUT/status/CASE.json`` says what became of it, ``OUT/summary.json`` sums up.
A case is done, and skipped next time, when its status says so and the digests of input, model,
settings and output still match.
"""

import json
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cfseg.errors import (
    EXIT_NONE_DONE,
    EXIT_OK,
    EXIT_PARTIAL,
    CfsegError,
    InputError,
    ResourceError,
    UsageError,
)
from cfseg.io import case_id, find_scans, write_json
from cfseg.segmenter import Segmentation, Segmenter

State = Literal["done", "empty", "refused", "failed"]
OnCase = Callable[["CaseStatus", int, int], None]
"""Called after each case with its status, the number of cases done and that of all."""
OnWindow = Callable[[str, str, int, int], None]
"""Called with the case, the stage, windows done and windows in all."""


@dataclass(frozen=True)
class CaseStatus:
    """What became of one input.

    Attributes:
        case: its id; the output is ``CASE.nii.gz``.
        state: ``done``, ``empty`` (no abdomen found), ``refused`` (bad input) or ``failed``.
        skipped: it was done before and nothing changed.
        code: of the error, else empty.
        message: of the error, else empty.
        record: all of ``status/CASE.json``.
    """

    case: str
    state: State
    skipped: bool
    code: str
    message: str
    record: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether there is a label map."""
        return self.state in ("done", "empty")


@dataclass(frozen=True)
class Summary:
    """What became of all inputs."""

    cases: tuple[CaseStatus, ...]
    ignored: int
    notice: str

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some refused or failed, 4 none done or none found."""
        done = sum(case.ok for case in self.cases)
        if done == 0:
            return EXIT_NONE_DONE
        return EXIT_OK if done == len(self.cases) else EXIT_PARTIAL

    def as_dict(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds."""
        counts = Counter(case.state for case in self.cases)
        states: tuple[State, ...] = ("done", "empty", "refused", "failed")
        return {
            "inputs": len(self.cases),
            **{state: counts.get(state, 0) for state in states},
            "ignored": self.ignored,
            "notice": self.notice,
            "cases": {case.case: case.record for case in self.cases},
        }


def predict_many(
    inputs: Sequence[Path],
    out: Path,
    segmenter: Segmenter,
    *,
    overwrite: bool = False,
    on_case: OnCase | None = None,
    on_window: OnWindow | None = None,
) -> Summary:
    """Segment all scans that ``inputs`` name and write their label maps.

    Args:
        inputs: NIfTI files, folders with one DICOM series, or folders of scans.
        out: a folder; for a single scan also the name of a ``.nii.gz`` or ``.nii`` file.
        segmenter: the loaded bundle.
        overwrite: do finished cases again.
        on_case: see :data:`OnCase`.
        on_window: see :data:`OnWindow`.

    Raises:
        UsageError: no such input, or two inputs with the same case id.
        ResourceError: the output folder cannot be written.
    """
    scans, ignored = find_scans(list(inputs))
    jobs = plan_jobs(scans, out)
    folder = out.parent if is_file_name(out) else out
    make_folder(folder / "status")
    done: list[CaseStatus] = []
    for (scan, target), (coming, _) in zip(jobs, [*jobs[1:], (None, None)], strict=True):
        run = _CaseRun(scan, target, folder, segmenter)
        if coming is not None:
            segmenter.read_ahead(coming)
        done.append(run.status(overwrite, on_window))
        if on_case is not None:
            on_case(done[-1], len(done), len(jobs))
    summary = Summary(tuple(done), ignored, segmenter.notice)
    write_json(folder / "summary.json", summary.as_dict())
    return summary


def plan_jobs(scans: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Return (scan, output file) pairs, checked for clashes before any work.

    Raises:
        UsageError: a file name for several scans, one case id twice, or an output over an input.
    """
    if is_file_name(out):
        if len(scans) > 1:
            raise UsageError(f"-o {out} names one file for {len(scans)} scans; give a folder")
        jobs = [(scan, out) for scan in scans]
    else:
        jobs = [(scan, out / f"{case_id(scan)}.nii.gz") for scan in scans]
    seen: dict[str, Path] = {}
    for scan, target in jobs:
        twin = seen.setdefault(target.name.lower(), scan)
        if twin != scan:
            raise UsageError(
                f"{twin} and {scan} would both become {target.name}; rename one or run them apart"
            )
        if scan.is_file() and target.resolve() == scan.resolve():
            raise UsageError(f"the output {target} is the input itself; choose another -o")
        if scan.is_dir() and target.resolve().is_relative_to(scan.resolve()):
            raise UsageError(f"the output {target} lies in the input folder; choose another -o")
    return jobs


def is_file_name(out: Path) -> bool:
    """Say whether ``-o`` names a file rather than a folder."""
    return out.name.lower().endswith((".nii", ".nii.gz")) and not out.is_dir()


def make_folder(folder: Path) -> None:
    """Make an output folder.

    Raises:
        ResourceError: the place cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder} cannot be made: {error.strerror}", code="E_DISK") from error


class _CaseRun:
    """One case on its way from a path to a label map and a status file."""

    def __init__(self, scan: Path, target: Path, folder: Path, segmenter: Segmenter) -> None:
        self.scan, self.target, self.segmenter = scan, target, segmenter
        self.case = case_id(scan)
        self.status_file = folder / "status" / f"{self.case}.json"

    def status(self, overwrite: bool, on_window: OnWindow | None) -> CaseStatus:
        before = None if overwrite else self.finished_before()
        if before is not None:
            return CaseStatus(self.case, before["state"], True, "", "", before)
        record = self.segmented(on_window)
        write_json(self.status_file, record)
        return CaseStatus(
            self.case, record["state"], False, record["code"], record["message"], record
        )

    def finished_before(self) -> dict[str, Any] | None:
        """Return the old status if the case needs no new work, else None."""
        try:
            record: dict[str, Any] = json.loads(self.status_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = (
            record.get("state") in ("done", "empty")
            and record.get("settings") == self.settings()
            and record.get("input_stamp") == stamp(self.scan)
            and self.target.is_file()
            and record.get("output_sha256") == file_digest(self.target)
        )
        return record if same else None

    def segmented(self, on_window: OnWindow | None) -> dict[str, Any]:
        report = None
        if on_window is not None:
            window = on_window
            report = lambda stage, done, of: window(self.case, stage, done, of)  # noqa: E731
        try:
            segmentation = self.segmenter.segment(self.scan, report)
            segmentation.save(self.target)
        except InputError as error:
            return self.record("refused", error)
        except CfsegError as error:
            return self.record("failed", error)
        except Exception as error:
            return self.record("failed", CfsegError(f"{type(error).__name__}: {error}"))
        return self.record(segmentation.result.status, None, segmentation)

    def settings(self) -> dict[str, Any]:
        """Return what decides the result beside the input."""
        from cfseg import __version__

        return {
            "bundle": self.segmenter.manifest.name,
            "bundle_sha256": self.segmenter.digest,
            "cascade": self.segmenter.cascade.model_dump(mode="json"),
            "backend": self.segmenter.backend,
            "precision": self.segmenter.precision,
            "cfseg": __version__,
        }

    def record(
        self, state: State, error: CfsegError | None, segmentation: Segmentation | None = None
    ) -> dict[str, Any]:
        record: dict[str, Any] = {
            "case": self.case,
            "state": state,
            "code": error.code if error else "",
            "message": error.message if error else "",
            "notice": self.segmenter.notice,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": str(self.segmenter.device),
            "versions": {"torch": torch.__version__, "numpy": np.__version__}
            | {"python": platform.python_version()},
            "settings": self.settings(),
            "input_stamp": stamp(self.scan),
        }
        if segmentation is not None:
            record |= _findings(segmentation)
            record["output"] = self.target.name
            record["output_sha256"] = file_digest(self.target)
        return record


def _findings(segmentation: Segmentation) -> dict[str, Any]:
    result = segmentation.result
    return {
        "notes": list(segmentation.notes),
        "input_sha256": segmentation.scan.sha256,
        "region": None if result.region is None else [result.region.start, result.region.stop],
        "volumes_ml": result.label_map.volumes_ml(),
        "seconds": result.seconds | {"total": segmentation.seconds},
        "memory": result.memory,
    }


def stamp(path: Path) -> list[list[Any]]:
    """Return name, size and time of change of the file, or of each file of the folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            info = file.stat()
        except OSError:
            continue
        found.append([file.name, info.st_size, info.st_mtime_ns])
    return found


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    return sha256(path.read_bytes()).hexdigest()
