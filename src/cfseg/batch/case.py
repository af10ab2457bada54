"""One case on its way from a path to a label map and a status file."""

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch

from cfseg.batch.changes import differences
from cfseg.batch.files import stamp
from cfseg.batch.jobs import Job
from cfseg.batch.record import digest_of, findings_of, input_digest, now
from cfseg.batch.summary import CaseStatus, State
from cfseg.errors import CfsegError, InputError, as_cfseg_error
from cfseg.findings.keep import complete_case, keep_case
from cfseg.io import file_digest, without_folders, without_paths, write_json
from cfseg.io.status_file import read_status
from cfseg.io.write import writing_bytes
from cfseg.segmenter import Segmentation, Segmenter
from cfseg.tables import shown

OnWindow = Callable[[str, str, int, int], None]
"""Called with the case, the stage, windows done and windows in all."""
MOST_ATTEMPTS = 3
"""How often a scan may end the process itself before it is left alone."""
_FINISHED = ("done", "empty")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Made:
    """A result that is not written yet.

    Attributes:
        segmentation: the result.
        attempt: number of the attempt.
        started: when that began.
        again: why a finished case was done again.
    """

    segmentation: Segmentation
    attempt: int
    started: str
    again: tuple[str, ...] = ()

    @property
    def needed_bytes(self) -> int:
        """What writing it takes of memory, beyond what is there."""
        return writing_bytes(self.segmentation.scan.source)


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

    @property
    def died_before(self) -> bool:
        """Whether the process ended while it was at this scan; then nothing runs beside it."""
        return self._before().get("state") == "running"

    def segment(self, overwrite: bool, on_window: OnWindow | None) -> CaseStatus | Made:
        """Segment the case, unless it needs no new work.

        Args:
            overwrite: do it again even so.
            on_window: see :data:`OnWindow`.

        Returns:
            What became of it, or a result, for :meth:`finish`.
        """
        before = self._before()
        changes = self.changes(before)
        fresh = before.get("finished", "") >= self.since
        if before.get("state") in ("refused", "failed") and fresh and not changes:
            return CaseStatus(self.job.case, before["state"], True, before)
        stays = before.get("state") in _FINISHED and not changes and (fresh or not overwrite)
        if stays and self._is_measured(before):
            return CaseStatus(self.job.case, before["state"], True, before)
        again = changes if before.get("state") in _FINISHED else []
        made = self._attempt(before, changes, overwrite, on_window)
        if isinstance(made, dict):
            return self._keep(made | {"again": again})
        return replace(made, again=tuple(again))

    def finish(self, made: Made) -> CaseStatus:
        """Write a result and say what became of the case; may run in a thread beside the next."""
        return self._keep(self._written(made) | {"again": list(made.again)})

    def _keep(self, record: dict[str, Any]) -> CaseStatus:
        write_json(self.status_file, record)
        return CaseStatus(self.job.case, record["state"], False, record)

    def changes(self, before: dict[str, Any]) -> list[str]:
        """Return what is not as it was when a case was done, in words; nothing for none.

        Args:
            before: its status then.
        """
        found = list(differences(before.get("settings") or {}, self.settings()))
        if _without_names(before.get("input_stamp", [])) != _without_names(self._stamp()):
            found.append("the input changed")
        if before.get("state") in _FINISHED:
            if not self.job.target.is_file():
                found.append("the output is gone")
            elif not self._is_output(before):
                found.append("the output changed")
        return found

    def _is_output(self, before: dict[str, Any]) -> bool:
        try:
            return bool(before.get("output_sha256") == file_digest(self.job.target))
        except InputError:  # it cannot be read
            return False

    def _is_measured(self, before: dict[str, Any]) -> bool:
        """Measure a finished case from its files if that is wanted; say whether all is there."""
        job = self.job
        return not self.statistics or complete_case(
            self.folder, job.source, job.target, before, self.segmenter.options
        )

    def _before(self) -> dict[str, Any]:
        """Return the status of an earlier run; one that is damaged is none."""
        try:
            return read_status(self.status_file)
        except (OSError, ValueError):
            return {}

    def _attempt(
        self,
        before: dict[str, Any],
        changes: list[str],
        overwrite: bool,
        on_window: OnWindow | None,
    ) -> dict[str, Any] | Made:
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

    def _segmented(
        self, attempt: int, started: str, on_window: OnWindow | None
    ) -> dict[str, Any] | Made:
        job = self.job
        report = None if on_window is None else partial(on_window, job.case)

        def segment() -> Made:
            found = self.segmenter.segment(job.source, report)
            return Made(found, attempt, started)

        return self._recorded(segment, attempt, started)

    def _written(self, made: Made) -> dict[str, Any]:
        def write() -> dict[str, Any]:
            start, segmentation = perf_counter(), made.segmentation
            segmentation.save(self.job.target)
            segmentation.result.seconds["write"] = round(perf_counter() - start, 4)
            state = segmentation.result.status
            record = self.record(state, made.attempt, made.started, None, segmentation)
            if self.statistics:
                keep_case(self.folder, segmentation.scan, segmentation.label_map, record)
            return record

        return self._recorded(write, made.attempt, made.started)

    def _recorded(self, work: Callable[[], _T], attempt: int, started: str) -> _T | dict[str, Any]:
        """Return what the work returns, or the record of its error: that costs this case only."""
        try:
            return work()
        except InputError as error:
            return self.record("refused", attempt, started, error)
        except Exception as error:
            return self.record("failed", attempt, started, as_cfseg_error(error))

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
            "details": [shown(row) for row in error.details] if error else [],
            "notes": [],
            "notice": self.segmenter.notice,
            "attempt": attempt,
            "started": started,
            "finished": now(),
            "device": str(self.segmenter.device),
            "versions": {"torch": torch.__version__, "numpy": np.__version__}
            | {"python": platform.python_version()},
            "settings": settings,
            "settings_sha256": digest_of(settings),
            "input_stamp": self._stamp(),
        }
        if segmentation is not None:
            record |= findings_of(segmentation)
            record["notes"] = [self._note(note) for note in segmentation.notes]
            record["output"] = self.job.target.name
            record["output_sha256"] = file_digest(self.job.target)
        elif not self.job.source.files and self.job.source.path.is_file():
            record["input_sha256"] = input_digest(self.job.source.path)
        return record

    def _told(self, text: str) -> str:
        """Return what may be kept of a message: no folder, it may name a patient."""
        source = self.job.source
        if self.job.hides:
            return shown(self._without_names(text))
        return shown(without_folders(text, source.shown, source.path, self.job.target))

    def _without_names(self, text: str) -> str:
        """Return a message or note that names no file: any name may be a patient's."""
        source = self.job.source
        for path in (source.shown, source.path):
            text = text.replace(str(path), self.job.case)
        names = {source.name, source.path.name, *(path.name for path in source.files)}
        words = re.compile(r"[^\s'\",;:()]+")
        return words.sub(
            lambda word: "(file)" if word[0] in names else word[0], without_paths(text)
        )

    def _note(self, note: str) -> str:
        """Return what may be kept of a note; what follows a second colon are names of files."""
        return self._told(": ".join(note.split(": ")[:2]) if self.job.hides else note)

    def _stamp(self) -> list[list[Any]]:
        found = stamp(self.job.source.own_files)
        return [["" if self.job.hides else shown(name), *rest] for name, *rest in found]


def _without_names(found: list[Any]) -> list[str]:
    """Return sizes and times of change of files: names do not count, --names number hides them."""
    return sorted(str(entry[1:]) for entry in found if isinstance(entry, list))


def stopped(job: Job) -> CaseStatus:
    """Return the status of a scan that a stopped run did not finish; no file holds it."""
    record = {
        "case": job.case,
        "state": "failed",
        "code": "E_STOPPED",
        "message": "the run was stopped before this scan was done; run it again to go on",
    }
    return CaseStatus(job.case, "failed", False, record)
