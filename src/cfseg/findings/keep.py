"""Statistics beside the label maps and status files of ``cfseg predict``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfseg.errors import CfsegError
from cfseg.findings.files import read_case, write_case, write_tables
from cfseg.findings.measure import find
from cfseg.io import AS_IS, Input, ReadingOptions, Scan, read_label_map, read_scan
from cfseg.io.status_file import read_status
from cfseg.volume import LabelMap


def keep_case(out: Path, scan: Scan, label_map: LabelMap, status: Mapping[str, Any]) -> None:
    """Measure the label map that was made of a scan, and write ``OUT/statistics/CASE.json``.

    Args:
        out: the folder of results.
        scan: the CT.
        label_map: on its grid.
        status: what ``OUT/status/CASE.json`` holds.

    Raises:
        ResourceError: the disk refuses.
    """
    found = find(
        scan.case, scan.volume, label_map, scan.source, status.get("agreement"),
        notice=status["notice"], label_map_sha256=status["output_sha256"],
    )  # fmt: skip
    write_case(out, found)


def complete_case(
    out: Path,
    ct: Input,
    label_map: Path,
    status: Mapping[str, Any],
    options: ReadingOptions = AS_IS,
) -> bool:
    """Make the statistics of a finished case of its files unless they are there.

    Args:
        out: the folder of results.
        ct: the input.
        label_map: what was made of it.
        status: what ``OUT/status/CASE.json`` holds.
        options: how the input was read.

    Returns:
        Whether they are there now.
    """
    if _is_measured(out, status):
        return True
    try:
        keep_case(out, read_scan(ct, options=options), read_label_map(label_map)[0], status)
    except CfsegError:
        return False
    return True


def write_all_tables(out: Path) -> tuple[str, ...]:
    """Write the tables of all cases whose statistics are those of their label maps.

    Returns:
        A warning for each status file that is damaged; its case is left out.

    Raises:
        ResourceError: the disk refuses.
    """
    cases, warnings = [], []
    for path in sorted(out.glob("status/[!.]*.json")):
        try:
            status = read_status(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            warnings.append(
                f"status/{path.name} is damaged ({reason}), its case is not in the tables; run it "
                "again"
            )
            continue
        if _is_measured(out, status):
            cases.append(status["case"])
    write_tables(out, cases)
    return tuple(warnings)


def _is_measured(out: Path, status: Mapping[str, Any]) -> bool:
    record = read_case(out, status["case"])
    digest = status.get("output_sha256")
    return record is not None and record["about"]["label_map_sha256"] == digest
