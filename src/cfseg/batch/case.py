"""One case on its way from a path to a label map and a status file."""

import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfseg.batch.files import file_digest, stamp
from cfseg.batch.jobs import Job
from cfseg.batch.summary import CaseStatus, State
from cfseg.errors import CfsegError, InputError
from cfseg.findings.agreement import agreement
from cfseg.findings.keep import complete_case, keep_case
from cfseg.io import remember_input, without_folders, write_json
from cfseg.segmenter import Segmentation, Segmenter

OnWindow = Callable[[str, str, int, int], None]
"""Called with the case, the stage, windows done and windows in all."""
MOST_ATTEMPTS = 3
"""How often a scan may end the process itself before it is left alone."""
_FINISHED = ("done", "empty")


class CaseRun:
    """One case of a batch.

    Args:
        job: what there is to do.
        folder: of the outputs.
        segmenter: the loaded bundle.
        since: when the batch began; what another run finished after that counts.
        statistics: also measure the result.
    """

    def __init__(
        self,
        job: Job,
        folder: Path,
        segmenter: Segmenter,
        since: str,
        statistics: bool = False,
    ) -> None:
        self.job, self.segmenter, self.since = job, segmenter, since
        self.folder, self.statistics = folder, statistics
        self.status_file = folder / "status" / f"{job.case}.json"

    def status(self, overwrite: bool, on_window: OnWindow | None) -> CaseStatus:
        """Do the case, unless it needs no new work.

        Args:
            overwrite: do it again even so.
            on_window: see :data:`OnWindow`.
        """
        remember_input(self.folder, self.job.case, self.job.scan)
        before = self._before()
        changes = self.changes(before)
        fresh = before.get("finished", "") >= self.since
        if before.get("state") in ("refused", "failed") and fresh and not changes:
            return CaseStatus(self.job.case, before["state"], True, before)
        stays = before.get("state") in _FINISHED and not changes and (fresh or not overwrite)
        if stays and self._is_measured(before):
            return CaseStatus(self.job.case, before["state"], True, before)
        again = changes if before.get("state") in _FINISHED else []
        record = self._attempt(before, changes, overwrite, on_window) | {"again": again}
        write_json(self.status_file, record)
        return CaseStatus(self.job.case, record["state"], False, record)

    def changes(self, before: dict[str, Any]) -> list[str]:
        """Return what is not as it was when a case was done, in words; nothing for none.

        Args:
            before: its status then.
        """
        found = list(_differences(before.get("settings") or {}, self.settings()))
        if before.get("input_stamp") != self._stamp():
            found.append("the input changed")
        if before.get("state") in _FINISHED:
            if not self.job.target.is_file():
                found.append("the output is gone")
            elif before.get("output_sha256") != file_digest(self.job.target):
                found.append("the output changed")
        return found

    def _is_measured(self, before: dict[str, Any]) -> bool:
        """Measure a finished case from its files if that is wanted; say whether all is there."""
        job = self.job
        return not self.statistics or complete_case(
            self.folder, job.scan, job.target, before, self.segmenter.options, job.series
        )

    def _before(self) -> dict[str, Any]:
        try:
            record = json.loads(self.status_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _attempt(
        self,
        before: dict[str, Any],
        changes: list[str],
        overwrite: bool,
        on_window: OnWindow | None,
    ) -> dict[str, Any]:
        """Segment the case; a mark stays if that ends the process, and is counted next time."""
        same = bool(before) and not changes
        attempt = 1 + (int(before.get("attempt", 0)) if same else 0)
        started = now()
        died = same and before.get("state") == "running"
        if died and attempt > MOST_ATTEMPTS and not overwrite:
            error = CfsegError(
                f"cfseg died {attempt - 1} times on this scan; crop it, free memory, or try again "
                "with --overwrite",
                code="E_CRASHED",
            )
            return self.record("failed", attempt - 1, started, error)
        if attempt > MOST_ATTEMPTS:
            attempt = 1
        mark = {"case": self.job.case, "state": "running", "attempt": attempt, "started": started}
        write_json(
            self.status_file,
            mark | {"settings": self.settings(), "input_stamp": self._stamp()},
        )
        try:
            return self._segmented(attempt, started, on_window)
        except (KeyboardInterrupt, SystemExit):
            self.status_file.unlink(missing_ok=True)  # a stop is no fault of the scan
            raise

    def _segmented(self, attempt: int, started: str, on_window: OnWindow | None) -> dict[str, Any]:
        job = self.job
        report = None if on_window is None else partial(on_window, job.case)
        try:
            segmentation = self.segmenter.segment(job.scan, report, series=job.series)
            segmentation.save(job.target)
            record = self.record(segmentation.result.status, attempt, started, None, segmentation)
            if self.statistics:
                keep_case(self.folder, segmentation.scan, segmentation.label_map, record)
        except InputError as error:
            return self.record("refused", attempt, started, error)
        except CfsegError as error:
            return self.record("failed", attempt, started, error)
        except Exception as error:
            told = CfsegError(f"{type(error).__name__}: {error}")
            return self.record("failed", attempt, started, told)
        return record

    def settings(self) -> dict[str, Any]:
        """Return what decides the result beside the input."""
        from cfseg import __version__

        return {
            "bundle": self.segmenter.manifest.name,
            "bundle_sha256": self.segmenter.digest,
            "cascade": self.segmenter.cascade.model_dump(mode="json"),
            "reading": self.segmenter.options.given(),
            "backend": self.segmenter.backend,
            "precision": self.segmenter.precision,
            "cfseg": __version__,
        }

    def record(
        self,
        state: State,
        attempt: int,
        started: str,
        error: CfsegError | None,
        segmentation: Segmentation | None = None,
    ) -> dict[str, Any]:
        """Return what the status file holds."""
        settings = self.settings()
        record: dict[str, Any] = {
            "case": self.job.case,
            "state": state,
            "code": error.code if error else "",
            "message": self._told(error.message) if error else "",
            "notes": [],
            "notice": self.segmenter.notice,
            "attempt": attempt,
            "started": started,
            "finished": now(),
            "device": str(self.segmenter.device),
            "versions": {"torch": torch.__version__, "numpy": np.__version__}
            | {"python": platform.python_version()},
            "settings": settings,
            "settings_sha256": _digest(settings),
            "input_stamp": self._stamp(),
        }
        if segmentation is not None:
            record |= _findings(segmentation)
            record["notes"] = [self._told(note) for note in segmentation.notes]
            record["output"] = self.job.target.name
            record["output_sha256"] = file_digest(self.job.target)
        elif self.job.scan.is_file():
            record["input_sha256"] = _input_digest(self.job.scan)
        return record

    def _told(self, text: str) -> str:
        """Return what may be kept of a message: no folder, it may name a patient."""
        return without_folders(text, self.job.scan, self.job.target)

    def _stamp(self) -> list[list[Any]]:
        return stamp(self.job.scan)


def stopped(job: Job) -> CaseStatus:
    """Return the status of a scan that a stopped run did not finish; no file holds it."""
    record = {
        "case": job.case,
        "state": "failed",
        "code": "E_STOPPED",
        "message": "the run was stopped before this scan was done; run it again to go on",
    }
    return CaseStatus(job.case, "failed", False, record)


def now() -> str:
    """Return the time in UTC; what is later is greater, as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _findings(segmentation: Segmentation) -> dict[str, Any]:
    result = segmentation.result
    return {
        "input_sha256": segmentation.scan.sha256,
        "region": None if result.region is None else [result.region.start, result.region.stop],
        "volumes_ml": result.label_map.volumes_ml(),
        "agreement": agreement(result.tumor_maps, result.organ_map),
        "seconds": result.seconds | {"total": segmentation.seconds},
        "memory": result.memory,
    }


def _input_digest(scan: Path) -> str:
    try:
        return file_digest(scan)
    except OSError:  # what was refused may be unreadable
        return ""


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _differences(old: dict[str, Any], new: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield what differs between two settings, as ``region.margin_mm: 20.0, now 30.0``."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        name = f"{at}{key}"
        if isinstance(after, dict) and isinstance(before, dict):
            yield from _differences(
                before, after, "" if key in ("cascade", "reading") else f"{name}."
            )
        elif key == "bundle_sha256":
            yield "another bundle"
        elif key != "bundle":
            yield f"{name}: {before}, now {after}"
