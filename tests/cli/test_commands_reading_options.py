"""Options of reading reach every command that reads scans, and stand in what it writes."""

import inspect
import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli import app
from cfseg.cli.findings import findings
from cfseg.cli.predict import predict
from cfseg.cli.reading import OF_FOLDERS, OF_SCANS, OF_SERIES
from cfseg.io import ReadingOptions

ALL = {**OF_SCANS, **OF_SERIES, **OF_FOLDERS}


@pytest.fixture
def cohort(tmp_path):
    """One scan that lacks its intercept, without labels but for a liver where it is asked for."""
    rng = np.random.default_rng(0)
    hu = np.full((24, 24, 24), -1000, dtype=np.int16)
    hu[3:-3, 3:-3] = rng.normal(40, 30, (18, 18, 24))
    liver = np.zeros(hu.shape, dtype=np.uint8)
    liver[8:16, 8:16, 8:16] = 1
    for path, array in (("imagesTr/a_0000", hu + 1024), ("labelsTr/a", liver)):
        (tmp_path / "cohort" / path).parent.mkdir(parents=True)
        image = nib.Nifti1Image(array, np.diag([-4.0, -4.0, 4.0, 1.0]))
        nib.save(image, tmp_path / "cohort" / f"{path}.nii.gz")
    (tmp_path / "cohort" / "manifest.json").write_text(json.dumps({"a": [1]}))
    return tmp_path / "cohort"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_flags_are_those_of_the_options_with_the_same_defaults():
    given = {name: default for name, (_, default) in ALL.items()}
    assert ReadingOptions(**given) == ReadingOptions()
    assert set(given) == set(ReadingOptions.__dataclass_fields__)
    assert set(inspect.signature(predict).parameters) >= set(given)
    assert "options" not in inspect.signature(findings).parameters
    assert "all_series" not in inspect.signature(findings).parameters


def test_findings_are_measured_in_hu(cohort, tmp_path):
    words = ("findings", cohort / "imagesTr", cohort / "labelsTr", "-o", tmp_path / "out")
    assert run(*words).exit_code == 4
    assert run(*words, "--hu-offset", "-1024").exit_code == 0
    record = json.loads((tmp_path / "out" / "statistics" / "a.json").read_text())
    assert record["liver"]["intensity"] == pytest.approx(40, abs=5)
    assert record["about"]["reading"] == {"hu_offset": -1024}


def test_a_check_finds_good_what_can_be_read_so(cohort, tmp_path):
    words = ("dataset", "check", cohort, "-o", tmp_path / "out")
    assert run(*words).exit_code == 4
    assert run(*words, "--hu-offset", "-1024").exit_code == 0
    record = json.loads((tmp_path / "out" / "check.json").read_text())
    assert (record["good"], record["reading"]) == (1, {"hu_offset": -1024})


def test_pseudo_labels_count_the_options_among_their_settings(cohort, tmp_path, tiny_bundle):
    words = ("pseudo-label", cohort, "-m", tiny_bundle, "-o", tmp_path / "out", "--step", 1,
             "--threads", 1, "--device", "cpu")  # fmt: skip
    assert run(*words).exit_code == 4
    first = run(*words, "--hu-offset", "-1024")
    assert first.exit_code == 0, first.output
    status = json.loads((tmp_path / "out" / "status" / "a.json").read_text())
    assert status["settings"]["reading"] == {"hu_offset": -1024}
    assert "done before" in run(*words, "--hu-offset", "-1024").output
    other = run(*words, "--hu-offset", "-1025")
    assert other.exit_code == 0
    assert "done before" not in other.output


def test_an_option_that_none_can_have_is_a_wrong_call(cohort, tmp_path):
    result = run("dataset", "check", cohort, "--nonfinite", "water")
    assert "refuse or air" in str(result.exception)
