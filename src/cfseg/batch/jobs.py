"""Which scans a batch is about, what they are called, and which share of them is ours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os.path import realpath
from pathlib import Path

from cfseg.errors import UsageError
from cfseg.io import FORMATS, Input, is_label_map_name


@dataclass(frozen=True)
class Job:
    """One scan on its way to a label map.

    Attributes:
        case: its id.
        source: where it lies.
        target: the label map.
        hides: whether names of files are left out of what is kept, as they may be patients'.
    """

    case: str
    source: Input
    target: Path
    hides: bool = False


def plan_jobs(
    names: Mapping[Input, str], out: Path, *, hides: bool = False, format: str = FORMATS[0]
) -> list[Job]:
    """Return what there is to do, checked for clashes before any work.

    Args:
        names: the scans, and what their cases are called.
        out: a folder; for a single scan also a file name.
        hides: see :class:`Job`.
        format: of the label maps in a folder; a file name says its own.

    Raises:
        UsageError: an unknown format, a file name for several scans, or an output over an input.
    """
    if format not in FORMATS:
        raise UsageError(f"--format {format}: give one of {', '.join(FORMATS)}")
    if is_one_file(out) and len(names) > 1:
        raise UsageError(f"-o {out} names one file for {len(names)} scans; give a folder")
    jobs = []
    for source, case in names.items():
        target = out if is_one_file(out) else out / f"{case}.{format}"
        _check_target(source, target)
        jobs.append(Job(case, replace(source, case=case), target, hides))
    return jobs


def _check_target(source: Input, target: Path) -> None:
    """Refuse to write over an input, or among the files of a DICOM series.

    Raises:
        UsageError: it would be.
    """
    target = Path(realpath(target))  # Path.resolve fails on a link to itself
    if not source.files and target == Path(realpath(source.archive or source.path)):
        raise UsageError(f"the output {target} is the input itself; choose another -o")
    folders = {path.parent for path in source.files}
    if any(target.is_relative_to(realpath(folder)) for folder in folders):
        raise UsageError(f"the output {target} lies in the input folder; choose another -o")


def check_out(out: Path) -> None:
    """Refuse an output that is neither a folder nor a label map's name.

    Raises:
        UsageError: it is not.
    """
    other = out.suffix.lower() in (".mhd", ".nhdr", ".img", ".hdr", ".dcm") and not out.is_dir()
    if other or (out.is_file() and not is_one_file(out)):
        raise UsageError(
            f"-o {out} is neither a folder nor a name that ends in {', '.join(FORMATS)}; give one"
        )


def is_one_file(out: Path) -> bool:
    """Say whether ``-o`` names a file rather than a folder."""
    return is_label_map_name(out) and not out.is_dir()


def read_shard(text: str) -> tuple[int, int]:
    """Return share and number of shares of ``i/N``.

    Raises:
        UsageError: it is not one of 1/N to N/N.
    """
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise UsageError(f"--shard {text}: give i/N with i from 1 to N, as in 2/8")
