"""Many scans: each input is accounted for, one failure never stops the others, work resumes.

For every input ``OUT/status/CASE.json`` says what became of it, ``OUT/summary.json`` sums up.
A case is done, and skipped next time, when its status says so and the digests of input, model,
settings and output still match. A result is written while the networks run on the next scan; its
status says "done" only once the file has its name. Several runs may work on one folder: none does
a case that another one does, or has just done.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from queue import SimpleQueue

from cfseg.batch.case import CaseRun, Made, OnWindow, stopped
from cfseg.batch.claims import claimed
from cfseg.batch.jobs import Job, check_out, is_one_file, plan_jobs
from cfseg.batch.places import Naming, name_inputs, remember_inputs
from cfseg.batch.record import now
from cfseg.batch.summary import CaseStatus, Summary
from cfseg.findings.keep import write_all_tables
from cfseg.io import FORMATS, list_inputs, make_folder
from cfseg.io.atomic import sweep
from cfseg.io.listing import OnLook
from cfseg.segmenter import Segmenter

OnStart = Callable[[int], None]
"""Called with the number of cases before the first one."""
OnCase = Callable[[CaseStatus, int, int], None]
"""Called after each case, once its files are there, with its status, the number of cases done and
that of all."""


def predict_many(
    inputs: Sequence[Path],
    out: Path,
    segmenter: Segmenter,
    *,
    overwrite: bool = False,
    statistics: bool = False,
    shard: tuple[int, int] | None = None,
    fail_on_empty: bool = False,
    naming: Naming = "folder",
    format: str = FORMATS[0],
    on_look: OnLook | None = None,
    on_start: OnStart | None = None,
    on_case: OnCase | None = None,
    on_window: OnWindow | None = None,
) -> Summary:
    """Segment all scans that ``inputs`` name and write their label maps.

    Args:
        inputs: files, archives, and folders that hold scans at any depth.
        out: a folder; for a single scan also the name of a file.
        segmenter: the loaded bundle, with the options of reading.
        overwrite: do finished cases again.
        statistics: also measure them, finished ones too; see :mod:`cfseg.findings.keep`.
        shard: (i, N) does the i-th of N shares and sums it up in ``summary-i-of-N.json``.
        fail_on_empty: count a scan without abdomen as one that is not done.
        naming: see :func:`cfseg.batch.places.name_inputs`.
        format: of the label maps, one of :data:`cfseg.io.FORMATS`; a file name says its own.
        on_look: called with the number of files that were looked at, while scans are searched.
        on_start: see :data:`OnStart`.
        on_case: see :data:`OnCase`.
        on_window: see :data:`OnWindow`.

    Raises:
        UsageError: no such input, two inputs with the same name, or an output over an input.
        ResourceError: the output folder cannot be written.
    """
    check_out(out)
    folder = out.parent if is_one_file(out) else out
    listing = list_inputs(inputs, segmenter.options, skip=out, on_look=on_look)
    # Refused before anything is written.
    plan_jobs(name_inputs(folder, listing.inputs, naming), out, format=format)
    make_folder(folder / "status")
    names = remember_inputs(folder, listing.inputs, naming)
    jobs = plan_jobs(names, out, hides=naming == "number", format=format)
    name = "summary"
    if shard is not None:
        number, count = shard
        jobs, name = jobs[number - 1 :: count], f"summary-{number}-of-{count}"
    for place in (folder, folder / "status"):
        sweep(place)
    if on_start is not None:
        on_start(len(jobs))
    batch = _Batch(folder, segmenter, overwrite, statistics, on_case, on_window, len(jobs))

    def sum_up() -> Summary:
        cases = tuple(batch.done.get(job.case) or stopped(job) for job in jobs)
        warnings = write_all_tables(folder) if statistics else ()
        summary = Summary(cases, listing.reasons, segmenter.notice, fail_on_empty, warnings)
        summary.write(folder, name)
        return summary

    try:
        batch.run(jobs)
    except (KeyboardInterrupt, SystemExit):
        sum_up()
        raise
    return sum_up()


class _Batch:
    """The cases of one run on an output folder, and what became of those that are done.

    A result is written in a thread while the networks run on the next case. All that others are
    told of is said in the thread that runs the networks.
    """

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
        self.told = 0
        self.finished: SimpleQueue[CaseStatus] = SimpleQueue()
        self.errors: list[BaseException] = []
        self.since = now()

    def run(self, jobs: Sequence[Job]) -> None:
        """Do the jobs; those that another run is at come last, when it is through with them.

        However it ends, what is being written is written to its end.
        """
        try:
            left = [
                job
                for job, coming in zip_longest(jobs, jobs[1:])
                if not self._try(job, coming, wait=False)
            ]
            for job in left:
                self._try(job, None, wait=True)
        finally:
            self.segmenter.behind.wait()
            self._tell()
        self._check()

    def _try(self, job: Job, coming: Job | None, *, wait: bool) -> bool:
        """Do a job and return True, or False if another run is at it.

        Args:
            job: what there is to do.
            coming: the job after it, whose scan may be read meanwhile.
            wait: for another run that is at it.
        """
        with ExitStack() as claim:
            lock = self.folder / "status" / f".{job.case}.lock"
            if not claim.enter_context(claimed(lock, wait=wait)):
                return False
            run = CaseRun(job, self.folder, self.segmenter, self.since, self.statistics)
            # If the process dies again, it must be this scan's fault and cost no other one.
            alone = run.died_before
            if alone:
                self.segmenter.behind.wait()
            elif coming is not None:
                self.segmenter.read_ahead(coming.source)
            found = run.segment(self.overwrite, self._window)
            if isinstance(found, CaseStatus):
                self._add(found)
            else:
                self._write(run, found, claim.pop_all())
                if alone or (self.statistics and self.segmenter.max_memory is not None):
                    self.segmenter.behind.wait()
        self._tell()
        self._check()
        return True

    def _write(self, run: CaseRun, made: Made, claim: ExitStack) -> None:
        """Write a result beside the next case; the case is ours until then."""

        def work() -> None:
            try:
                with claim:
                    self._add(run.finish(made))
            except Exception as error:  # its status could not be written
                self.errors.append(error)

        self.segmenter.behind.hand_over(work, made.needed_bytes)

    def _add(self, status: CaseStatus) -> None:
        self.done[status.case] = status
        self.finished.put(status)

    def _window(self, case: str, stage: str, done: int, total: int) -> None:
        """Pass on a window; between two of them is time to tell of the case before."""
        try:
            self._tell()
        except Exception as error:  # it has nothing to do with the case whose window this is
            self.errors.append(error)
        if self.on_window is not None:
            self.on_window(case, stage, done, total)

    def _tell(self) -> None:
        while not self.finished.empty():
            status = self.finished.get()
            self.told += 1
            if self.on_case is not None:
                self.on_case(status, self.told, self.total)

    def _check(self) -> None:
        """Raise what went wrong outside of the cases, once what is made is written."""
        if self.errors:
            self.segmenter.behind.wait()
            raise self.errors[0]
