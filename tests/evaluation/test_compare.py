import csv
import json

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cfseg.cli.compare import compare as command
from cfseg.evaluation.comparison import compare_labels, compare_methods, compare_summaries
from cfseg.evaluation.scores import CaseScores, summarize

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def case(name, liver, spleen, state="scored"):
    scores = {1: liver, 3: spleen}
    return CaseScores(name, scores, dict(scores), state)


def save(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(ids, AFFINE), path)


@pytest.fixture
def folders(tmp_path):
    """Six cases of a liver of 10 layers: A lacks 4 of them, B 2."""
    for number in range(6):
        ref = np.zeros((12, 5, 5), dtype=np.uint8)
        ref[1:11, 1:4, 1:4] = 1
        for name, lost in (("ref", 0), ("a", 4), ("b", 2)):
            ids = ref.copy()
            ids[1 : 1 + lost] = 0
            save(tmp_path / name / f"case_{number}.nii.gz", ids)
    return tmp_path / "a", tmp_path / "b", tmp_path / "ref", tmp_path / "out"


def test_labels_by_hand():
    first = [case("a", 0.5, 0.2), case("b", 0.6, float("nan"))]
    second = [case("a", 0.7, 0.1), case("b", 0.9, 0.4)]
    liver, spleen, organs = compare_labels(first, second, ["liver", "spleen", "organs"], "dsc")
    assert (liver.first.mean, liver.second.mean) == (pytest.approx(0.55), pytest.approx(0.8))
    assert liver.found.difference == pytest.approx(0.25)
    assert (spleen.found.n, spleen.found.difference) == (1, pytest.approx(-0.1))
    assert spleen.p_holm == pytest.approx(min(1, 2 * spleen.found.p))
    assert organs.found.difference == pytest.approx(((0.7 + 0.1) / 2 - 0.35 + 0.65 - 0.6) / 2)
    assert np.isnan(organs.p_holm)


def test_cases_that_were_not_judged_for_one_method_are_left_out():
    first = summarize([case("a", 0.5, 0.5), case("b", 0.1, 0.1)], [1, 3])
    second = summarize([case("a", 0.7, 0.7), CaseScores("b", {}, {}, "failed")], [1, 3])
    found = compare_summaries(("x", "y"), first, second)
    assert {c.found.n for c in found.labels if c.metric == "dsc"} == {1}
    assert found.exit_code == 3


def test_files(folders):
    found = compare_methods(*folders, labels=[1])
    out = folders[3]
    assert sorted(p.name for p in out.iterdir()) == [
        "comparison.csv",
        "comparison.json",
        "comparison.md",
    ]
    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    dsc = rows[0]
    assert (dsc["metric"], dsc["label"], dsc["n"]) == ("dsc", "liver", "6")
    assert float(dsc["first_mean"]) == 0.75
    assert float(dsc["difference"]) == pytest.approx(round(16 / 18, 4) - 0.75)
    # Six of six better: 2 of the 2^6 signs are as extreme.
    assert float(dsc["p"]) == pytest.approx(2 / 64)
    record = json.loads((out / "comparison.json").read_text())
    assert record["comparisons"][0]["found"]["n"] == 6
    assert record["methods"][1]["means"]["Liver_DSC"] == round(16 / 18, 4)
    text = (out / "comparison.md").read_text()
    assert "| liver | 75.00 ± 0.00 | 88.89 ± 0.00 | +13.89 [+13.89, +13.89] | 0.031 |" in text
    assert "B - A" in text
    assert found.exit_code == 0


def test_a_missing_prediction_counts_as_zero(folders):
    first, second, ref, out = folders
    (second / "case_0.nii.gz").unlink()
    found = compare_methods(first, second, ref, out, labels=[1])
    assert found.labels[0].found.n == 6
    assert found.labels[0].second.mean == pytest.approx(5 / 6 * round(16 / 18, 4))
    assert found.exit_code == 3


def test_the_exit_code_is_that_of_the_method_with_fewer_scores():
    scored = summarize([CaseScores("a", {1: 1.0}, {1: 1.0})], [1])
    refused = summarize([CaseScores("a", {1: 0.0}, {1: 0.0}, "refused", "E_GRID")], [1])
    starved = summarize([CaseScores("a", {}, {}, "failed", "E_OOM")], [1])
    for one, other, code in (
        (scored, scored, 0), (scored, refused, 4), (refused, scored, 4), (scored, starved, 6),
    ):  # fmt: skip
        assert compare_summaries(("A", "B"), one, other).exit_code == code


def test_command(folders):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [*map(str, folders[:3]), "-o", str(folders[3]), "--jobs", "1"])
    assert result.exit_code == 0
    assert "p (Holm)" in result.output
    assert "A: 6 scored" in result.output


def test_a_label_that_is_nowhere_is_absent_and_not_perfect(folders):
    compare_methods(*folders, labels=[1, 9])
    text = (folders[3] / "comparison.md").read_text()
    assert "| gallbladder (6 absent) | absent | absent | +0.00 [+0.00, +0.00] | 1.000 |" in text
    assert text.count("Absent: the reference does not have it") == 2  # DSC and NSD
