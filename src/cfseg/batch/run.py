"""Many scans: each input is accounted for, one failure never stops the others, work resumes.

For every input ``OUT/status/CASE.json`` says what became of it, ``OUT/summary.json`` sums up.
A case is done, and skipped next time, when its status says so and the digests of input, model,
settings and output still match. Several runs may work on one folder: none does a case that another
one does, or has just done.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cfseg.batch.case import CaseRun, OnWindow, now, stopped
from cfseg.batch.claims import claimed
from cfseg.batch.files import make_folder
from cfseg.batch.jobs import Job, is_file_name, plan_jobs
from cfseg.batch.summary import CaseStatus, Summary
from cfseg.findings.keep import write_all_tables
from cfseg.io import find_scans
from cfseg.io.atomic import sweep
from cfseg.segmenter import Segmenter

OnStart = Callable[[int], None]
"""Called with the number of cases before the first one."""
OnCase = Callable[[CaseStatus, int, int], None]
"""Called after each case with its status, the number of cases done and that of all."""


def predict_many(
    inputs: Sequence[Path],
    out: Path,
    segmenter: Segmenter,
    *,
    overwrite: bool = False,
    statistics: bool = False,
    shard: tuple[int, int] | None = None,
    fail_on_empty: bool = False,
    on_start: OnStart | None = None,
    on_case: OnCase | None = None,
    on_window: OnWindow | None = None,
) -> Summary:
    """Segment all scans that ``inputs`` name and write their label maps.

    Args:
        inputs: NIfTI files, folders with one DICOM series, or folders of scans.
        out: a folder; for a single scan also the name of a ``.nii.gz`` or ``.nii`` file.
        segmenter: the loaded bundle, with the options of reading.
        overwrite: do finished cases again.
        statistics: also measure them, finished ones too; see :mod:`cfseg.findings.keep`.
        shard: (i, N) does the i-th of N shares and sums it up in ``summary-i-of-N.json``.
        fail_on_empty: count a scan without abdomen as one that is not done.
        on_start: see :data:`OnStart`.
        on_case: see :data:`OnCase`.
        on_window: see :data:`OnWindow`.

    Raises:
        UsageError: no such input, or two inputs with the same case id.
        ResourceError: the output folder cannot be written.
    """
    scans, ignored = find_scans(list(inputs))
    jobs = plan_jobs(scans, out, segmenter.options)
    name = "summary"
    if shard is not None:
        number, count = shard
        jobs, name = jobs[number - 1 :: count], f"summary-{number}-of-{count}"
    folder = out.parent if is_file_name(out) else out
    make_folder(folder / "status")
    for place in (folder, folder / "status"):
        sweep(place)
    if on_start is not None:
        on_start(len(jobs))
    batch = _Batch(folder, segmenter, overwrite, statistics, on_case, on_window, len(jobs))

    def sum_up() -> Summary:
        cases = tuple(batch.done.get(job.case) or stopped(job) for job in jobs)
        warnings = write_all_tables(folder) if statistics else ()
        summary = Summary(cases, ignored, segmenter.notice, fail_on_empty, warnings)
        summary.write(folder, name)
        return summary

    try:
        batch.run(jobs)
    except (KeyboardInterrupt, SystemExit):
        sum_up()
        raise
    return sum_up()


class _Batch:
    """The cases of one run on an output folder, and what became of those that are done."""

    def __init__(
        self,
        folder: Path,
        segmenter: Segmenter,
        overwrite: bool,
        statistics: bool,
        on_case: OnCase | None,
        on_window: OnWindow | None,
        total: int,
    ) -> None:
        self.folder, self.segmenter, self.overwrite = folder, segmenter, overwrite
        self.on_case, self.on_window, self.total = on_case, on_window, total
        self.statistics = statistics
        self.done: dict[str, CaseStatus] = {}
        self.since = now()

    def run(self, jobs: Sequence[Job]) -> None:
        """Do the jobs; those that another run is at come last, when it is through with them."""
        left = []
        for job, coming in zip(jobs, [*jobs[1:], None], strict=True):
            if coming is not None:
                self.segmenter.read_ahead(coming.scan, coming.series)
            if not self._try(job, wait=False):
                left.append(job)
        for job in left:
            self._try(job, wait=True)

    def _try(self, job: Job, *, wait: bool) -> bool:
        """Do a job and return True, or False if another run is at it."""
        with claimed(self.folder / "status" / f".{job.case}.lock", wait=wait) as mine:
            if mine:
                run = CaseRun(job, self.folder, self.segmenter, self.since, self.statistics)
                status = run.status(self.overwrite, self.on_window)
                self.done[job.case] = status
                if self.on_case is not None:
                    self.on_case(status, len(self.done), self.total)
        return mine
