"""Files of findings: one JSON per case, and for all cases a table of labels and one of lesions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cfseg.errors import CfsegError, InputError, as_cfseg_error, exit_code
from cfseg.findings.agreement import LOW_AGREEMENT
from cfseg.findings.measure import Findings, measure
from cfseg.findings.organs import BORDER_SLICES
from cfseg.findings.record import RECORD, as_record, label_rows, lesion_rows
from cfseg.foreign import read_object
from cfseg.io import (
    AS_IS,
    Input,
    ReadingOptions,
    case_names,
    files_in,
    list_inputs,
    names_of,
    write_json,
    write_text,
)
from cfseg.tables import csv_text

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


@dataclass(frozen=True)
class Measured:
    """What was measured of two folders.

    Attributes:
        found: the findings.
        refused: the error of each case that was not measured.
        alone: names of scans without a label map, and of label maps without a scan.
    """

    found: tuple[Findings, ...]
    refused: Mapping[str, CfsegError]
    alone: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if all cases were measured, 3 if some were not, 4 if none was, 6 if memory ran out."""
        return exit_code(len(self.found), [error.code for error in self.refused.values()])


def measure_many(
    ct: Path,
    label_map: Path,
    out: Path,
    *,
    low_agreement: float = LOW_AGREEMENT,
    border_slices: int = BORDER_SLICES,
    options: ReadingOptions = AS_IS,
    on_case: OnCase | None = None,
) -> Measured:
    """Measure one case or two folders of them; write ``statistics/CASE.json`` and the tables.

    Args:
        ct: a CT, or a folder of CTs.
        label_map: its label map, or a folder of them; each goes with the CT of its case id.
        out: folder for the results.
        low_agreement: see :class:`Findings`.
        border_slices: see :class:`Findings`.
        options: how scans and label maps are read.
        on_case: see :data:`OnCase`.

    Raises:
        UsageError: a path is not there.
        InputError: ``E_NO_CASES``, nothing can be paired.
        ResourceError: the results cannot be written.
    """
    pairs, alone = _pairs(ct, label_map)
    found: list[Findings] = []
    refused: dict[str, CfsegError] = {}
    for number, (case, (scan, labels)) in enumerate(pairs.items(), start=1):
        try:
            findings = measure(
                scan, labels, low_agreement=low_agreement, border_slices=border_slices,
                options=options,
            )  # fmt: skip
        except Exception as error:
            refused[case] = as_cfseg_error(error)
        else:
            write_case(out, findings)
            found.append(findings)
        if on_case is not None:
            why = refused.get(case)
            problem = "" if why is None else f"{why.code}: {why.message}"
            on_case(case, problem, number, len(pairs))
    write_tables(out, [findings.case for findings in found])
    return Measured(tuple(found), refused, alone)


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
    for name, columns, rows in (
        ("statistics", _LABEL_COLUMNS, labels),
        ("lesions", _LESION_COLUMNS, lesions),
    ):
        values = ([row.get(column) for column in columns] for row in rows)
        write_text(out / f"{name}.csv", csv_text(columns, values))


def _pairs(ct: Path, label_map: Path) -> tuple[dict[str, tuple[Input, Path]], tuple[str, ...]]:
    """Return CT and label map by case id, and the names of those of two folders left alone."""
    labels = files_in(label_map)
    scans = list_inputs(
        [ct], ReadingOptions(all_series=True), skip=label_map if label_map.is_dir() else None
    ).inputs
    by_case = {case: replace(scan, case=case) for scan, case in case_names(scans).items()}
    if not label_map.is_dir() and len(scans) == 1:
        return {case: (scan, label_map) for case, scan in by_case.items()}, ()
    named = [(name, it) for it in labels for name in names_of(it) if name in by_case]
    pairs = {name: (by_case[name], it) for name, it in reversed(named)}
    pairs = dict(sorted(pairs.items()))
    if not pairs:
        raise InputError(
            f"no label map in {label_map} is named like a CT in {ct}; CASE.nii.gz goes with "
            "CASE_0000.nii.gz, CASE.nii.gz or a DICOM folder CASE",
            code="E_NO_CASES",
        )
    if not label_map.is_dir():
        return pairs, ()
    taken = {it for _, it in pairs.values()}
    alone = [scan.shown.name for case, scan in by_case.items() if case not in pairs]
    return pairs, (*alone, *(it.name for it in labels if it not in taken))
