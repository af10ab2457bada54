"""Which scans a batch is about, what they are called, and which share of them is ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cfseg.errors import InputError, UsageError
from cfseg.io import AS_IS, ReadingOptions, case_id


@dataclass(frozen=True)
class Job:
    """One scan on its way to a label map.

    Attributes:
        case: its id.
        scan: its file or folder.
        target: the label map.
        series: of a folder that holds several, counted from 1; None for the only one.
    """

    case: str
    scan: Path
    target: Path
    series: int | None = None


def plan_jobs(scans: Sequence[Path], out: Path, options: ReadingOptions = AS_IS) -> list[Job]:
    """Return what there is to do, checked for clashes before any work.

    Args:
        scans: files and folders.
        out: a folder; for a single scan also a file name.
        options: say whether each series of a folder is a case.

    Raises:
        UsageError: a file name for several scans, one case id twice, or an output over an input.
    """
    found = [item for scan in scans for item in _cases(scan, options)]
    if is_file_name(out):
        if len(found) > 1:
            raise UsageError(f"-o {out} names one file for {len(found)} scans; give a folder")
        jobs = [Job(case, scan, out, series) for case, scan, series in found]
    else:
        jobs = [Job(case, scan, out / f"{case}.nii.gz", series) for case, scan, series in found]
    seen: dict[str, Path] = {}
    for job in jobs:
        twin = seen.setdefault(job.target.name.lower(), job.scan)
        if twin != job.scan:
            raise UsageError(
                f"{twin} and {job.scan} would both become {job.target.name}; rename one or run "
                "them apart"
            )
        _check_target(job)
    return jobs


def _cases(scan: Path, options: ReadingOptions) -> list[tuple[str, Path, int | None]]:
    """Return case, path and series of a scan, or of each series of a folder of several."""
    case = case_id(scan)
    count = _count_series(scan, options) if options.all_series and scan.is_dir() else 1
    if count < 2:
        return [(case, scan, None)]
    return [(f"{case}_series{number}", scan, number) for number in range(1, count + 1)]


def _count_series(folder: Path, options: ReadingOptions) -> int:
    from cfseg.io.dicom_index import series_of

    try:
        return len(series_of(folder, options))
    except InputError:  # reading it will say so, and cost this case only
        return 1


def _check_target(job: Job) -> None:
    scan, target = job.scan, job.target
    if scan.is_file() and target.resolve() == scan.resolve():
        raise UsageError(f"the output {target} is the input itself; choose another -o")
    if scan.is_dir() and target.resolve().is_relative_to(scan.resolve()):
        raise UsageError(f"the output {target} lies in the input folder; choose another -o")


def is_file_name(out: Path) -> bool:
    """Say whether ``-o`` names a file rather than a folder."""
    return out.name.lower().endswith((".nii", ".nii.gz")) and not out.is_dir()


def read_shard(text: str) -> tuple[int, int]:
    """Return share and number of shares of ``i/N``.

    Raises:
        UsageError: it is not one of 1/N to N/N.
    """
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise UsageError(f"--shard {text}: give i/N with i from 1 to N, as in 2/8")
