"""Files of findings: one JSON per case, and for all cases a table of labels and one of lesions."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cfseg.errors import InputError, UsageError
from cfseg.findings.agreement import LOW_AGREEMENT
from cfseg.findings.measure import Findings, measure
from cfseg.findings.organs import BORDER_SLICES
from cfseg.findings.record import RECORD, as_record, label_rows, lesion_rows
from cfseg.foreign import read_object
from cfseg.io import (
    AS_IS,
    ReadingOptions,
    case_id,
    find_scans,
    names_of,
    write_json,
    write_text,
)

FOLDER = "statistics"
OnCase = Callable[[str, str, int, int], None]
"""Called after each case with its id, what is wrong with it (else empty), cases done, and all."""

_LABEL_COLUMNS = (
    "case", "label", "volume_ml", "visible_ml", "touches_border", "cut_by", "voxels", "mean_hu",
    "sd_hu", "head_foot_mm", "front_back_mm", "left_right_mm", "agreement", "low_agreement",
)  # fmt: skip
_LESION_COLUMNS = (
    "case", "lesion", "volume_ml", "visible_ml", "touches_border", "longest_mm",
    "perpendicular_mm", "mean_hu", "sd_hu", "host_organ", "nearest_organ", "nearest_mm",
    "first_slice", "last_slice",
)  # fmt: skip


def measure_many(
    ct: Path,
    label_map: Path,
    out: Path,
    *,
    low_agreement: float = LOW_AGREEMENT,
    border_slices: int = BORDER_SLICES,
    options: ReadingOptions = AS_IS,
    on_case: OnCase | None = None,
) -> tuple[list[Findings], dict[str, InputError]]:
    """Measure one case or two folders of them; write ``statistics/CASE.json`` and the tables.

    Args:
        ct: a CT, or a folder of CTs.
        label_map: its label map, or a folder of them; each goes with the CT of its case id.
        out: folder for the results.
        low_agreement: see :class:`Findings`.
        border_slices: see :class:`Findings`.
        options: how scans and label maps are read.
        on_case: see :data:`OnCase`.

    Returns:
        The findings, and the error of each case that was refused.

    Raises:
        UsageError: nothing can be paired.
        ResourceError: the results cannot be written.
    """
    pairs = _pairs(ct, label_map)
    found: list[Findings] = []
    refused: dict[str, InputError] = {}
    for number, (case, (scan, labels)) in enumerate(pairs.items(), start=1):
        problem = ""
        try:
            findings = measure(
                scan, labels, low_agreement=low_agreement, border_slices=border_slices,
                options=options,
            )  # fmt: skip
            write_case(out, findings)
            found.append(findings)
        except InputError as error:
            refused[case] = error
            problem = f"{error.code}: {error.message}"
        if on_case is not None:
            on_case(case, problem, number, len(pairs))
    write_tables(out, [findings.case for findings in found])
    return found, refused


def write_case(out: Path, findings: Findings) -> Path:
    """Write ``OUT/statistics/CASE.json`` and return its path.

    Raises:
        ResourceError: the disk refuses.
    """
    path = case_file(out, findings.case)
    write_json(path, as_record(findings))
    return path


def case_file(out: Path, case: str) -> Path:
    """Return where the findings of a case are kept."""
    return out / FOLDER / f"{case}.json"


def read_case(out: Path, case: str) -> dict[str, Any] | None:
    """Return the record of a case, or None if there is none, or it is damaged."""
    try:
        return read_object(case_file(out, case), RECORD)
    except (OSError, ValueError):
        return None


def write_tables(out: Path, cases: Sequence[str]) -> None:
    """Write ``statistics.csv``, a row per case and label, and ``lesions.csv``, one per lesion.

    Args:
        out: the folder that holds ``statistics/CASE.json``.
        cases: the ones to list; those without findings are left out.

    Raises:
        ResourceError: the disk refuses.
    """
    records = {case: read_case(out, case) for case in cases}
    known = {case: record for case, record in records.items() if record is not None}
    labels = [row for case, record in known.items() for row in label_rows(case, record)]
    lesions = [row for case, record in known.items() for row in lesion_rows(case, record)]
    write_text(out / "statistics.csv", _csv(_LABEL_COLUMNS, labels))
    write_text(out / "lesions.csv", _csv(_LESION_COLUMNS, lesions))


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _pairs(ct: Path, label_map: Path) -> dict[str, tuple[Path, Path]]:
    """Return CT and label map by case id."""
    labels, _ = find_scans([label_map])
    scans, _ = find_scans([ct])
    if not label_map.is_dir() and len(scans) == 1:
        return {case_id(scans[0]): (scans[0], label_map)}
    by_case = {case_id(scan): scan for scan in scans}
    named = [(name, it) for it in labels for name in names_of(it) if name in by_case]
    pairs = {name: (by_case[name], it) for name, it in reversed(named)}
    pairs = dict(sorted(pairs.items()))
    if not pairs:
        raise UsageError(
            f"no label map in {label_map} is named like a CT in {ct}; CASE.nii.gz goes with "
            "CASE_0000.nii.gz, CASE.nii.gz or a DICOM folder CASE"
        )
    return pairs
