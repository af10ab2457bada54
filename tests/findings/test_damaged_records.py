"""Findings that were kept and then damaged are measured again, and never end the tables."""

import json
from pathlib import Path

import pytest

from cfseg.findings.files import case_file, read_case, write_tables
from cfseg.labels import LABELS, TUMOR
from mutants import mutant

LABEL = {
    "volume_ml": 1.5, "visible_ml": 1.5, "touches_border": False, "cut_by": [], "n_voxels": 9,
    "intensity": 40.0, "intensity_std": 3.0, "agreement": None, "low_agreement": None,
    "extent_mm": {"head_foot": 1.0, "front_back": 1.0, "left_right": 1.0},
}  # fmt: skip
LESION = {
    "lesion": 1, "volume_ml": None, "visible_ml": 0.2, "touches_border": True, "longest_mm": 9.1,
    "perpendicular_mm": 8.0, "mean_hu": 40.0, "sd_hu": 3.0, "host_organ": "liver",
    "nearest_organ": None, "nearest_mm": None, "slices": [3, 5],
}  # fmt: skip
RECORD = {label.name: LABEL for label in LABELS} | {
    TUMOR.name: LABEL | {"lesions": [LESION]},
    "about": {"case": "a", "label_map_sha256": "ab"},
}


def test_no_mutant_of_a_record_ends_the_tables(tmp_path: Path):
    case_file(tmp_path, "a").parent.mkdir()
    kept = 0
    for seed in range(60):
        case_file(tmp_path, "a").write_bytes(mutant(RECORD, seed))
        write_tables(tmp_path, ["a"])
        kept += (tmp_path / "statistics.csv").read_text().count("\na,liver,")
    assert 2 < kept < 50


@pytest.mark.parametrize(
    "change",
    [
        {"about": {}},
        {"about": None},
        {"liver": None},
        {"liver": LABEL | {"cut_by": "top"}},
        {"liver": LABEL | {"extent_mm": [1, 2, 3]}},
        {"tumor": LABEL},
        {"tumor": LABEL | {"lesions": [LESION | {"slices": [3]}]}},
    ],
)
def test_a_damaged_record_is_none(tmp_path: Path, change: dict[str, object]):
    case_file(tmp_path, "a").parent.mkdir()
    case_file(tmp_path, "a").write_text(json.dumps(RECORD))
    assert read_case(tmp_path, "a") == RECORD
    case_file(tmp_path, "a").write_text(json.dumps(RECORD | change))
    assert read_case(tmp_path, "a") is None
