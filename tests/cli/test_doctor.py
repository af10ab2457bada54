"""``cfseg doctor`` says what predict then does."""

import json
from pathlib import Path

import nibabel as nib
import pytest
from typer.testing import CliRunner

from cfseg import doctor
from cfseg.batch import predict_many
from cfseg.cli import app
from cfseg.segmenter import Segmenter
from tiny_ct import ct


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("p1", "p2"):
        ct(tmp_path / "scans" / name / "ct.nii.gz", seed=ord(name[1]))
    turned = nib.load(ct(tmp_path / "scans" / "turned.nii.gz"))
    turned.set_sform(None, code=0)
    turned.set_qform(None, code=0)
    nib.save(nib.Nifti1Image(turned.get_fdata(), None, turned.header), turned.get_filename())
    (tmp_path / "scans" / "text.nii.gz").write_text("words")
    (tmp_path / "scans" / "notes.txt").write_text("words")
    return tmp_path / "scans"


def run(*args: object):
    return CliRunner().invoke(app, ["doctor", *map(str, args)])


def test_what_it_says_is_what_predict_does(scans, tiny_bundle, tmp_path):
    said = run(scans, "-m", tiny_bundle, "--json")
    checkup = json.loads(said.stdout)
    summary = predict_many([scans], tmp_path / "out", Segmenter(tiny_bundle, "cpu", 1))
    assert said.exit_code == checkup["exit_code"] == summary.exit_code == 3
    assert {case["case"]: case["code"] for case in checkup["cases"]} == {
        case.case: case.code for case in summary.cases
    } == {"text": "E_FORMAT", "turned": "E_ORIENTATION", "p1__ct": "", "p2__ct": ""}  # fmt: skip
    assert checkup["ignored"] == {"other file": [str(scans / "notes.txt")]}
    good = checkup["cases"][-1]
    assert len(good["shape"]) == len(good["spacing_mm"]) == 3
    assert good["memory_mb"] > 0
    assert good["seconds"] >= 1


def test_a_bug_or_a_lack_of_memory_costs_one_input(scans, tiny_bundle, monkeypatch):
    read = doctor.read_scan

    def failing(found, **options):
        if found.case == "p1__ct":
            raise MemoryError
        return read(found, **options)

    monkeypatch.setattr(doctor, "read_scan", failing)
    checkup = doctor.examine([scans / "p1", scans / "p2"], tiny_bundle)
    assert [case.code for case in checkup.cases] == ["E_OOM", ""]
    assert checkup.exit_code == 3


def test_lines_for_people_and_the_options_of_reading(scans, tiny_bundle):
    lines = run(scans, "-m", tiny_bundle, "--assume-orientation", "LAS").stdout
    assert "text: refused: E_FORMAT" in lines
    assert "turned: can be segmented" in lines
    assert "note: orientation_assumed: LAS" in lines
    assert lines.splitlines()[-2:] == [
        f"ignored: other file: {scans / 'notes.txt'}",
        "4 inputs, 1 refused; cfseg predict would exit with 3",
    ]
    assert run(scans / "notes.txt", "-m", tiny_bundle).exit_code == 4
    assert "can be" not in run(scans, "-m", tiny_bundle, "--quiet").stdout


def test_a_scan_that_needs_too_much_memory_is_told(scans, tiny_bundle, monkeypatch):
    monkeypatch.setattr(doctor, "limit_bytes", lambda: 50e6)
    (case,) = doctor.examine([scans / "p1"], tiny_bundle).cases
    assert case.code == "E_TOO_LARGE"


def test_a_series_tells_its_phase(tmp_path, tiny_bundle):
    pytest.importorskip("pydicom")
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
    try:
        from small_series import ALL, put, save
    finally:
        sys.path.pop(0)
    said = {
        "Abd PORTAL VENOUS 3.0": "portal venous (SeriesDescription: Abd PORTAL VENOUS 3.0)",
        "Thorax arteriell": "arterial (SeriesDescription: Thorax arteriell)",
        "NATIV 5mm": "without contrast (SeriesDescription: NATIV 5mm)",
        "late phase": "delayed (SeriesDescription: late phase)",
        "Abdomen 3.0": "unknown, with contrast (Iomeron)",
    }
    for number, (description, phase) in enumerate(said.items()):
        values = {"SeriesDescription": description, "ContrastBolusAgent": "Iomeron"}
        folder = save(tmp_path / str(number), put(ALL, **values))
        (case,) = doctor.examine([folder], tiny_bundle).cases
        assert (case.phase, case.files) == (phase, len(ALL))
