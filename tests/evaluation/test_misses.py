"""No mean gets better by missing, and each says over how many cases it is; worked out by hand."""

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cfseg.evaluation.benchmark import tables as benchmark_tables
from cfseg.evaluation.cells import difference_cell, spread_cell
from cfseg.evaluation.comparison import METRICS, compare_methods
from cfseg.evaluation.efficiency import Efficiency
from cfseg.evaluation.flare import evaluate, score_case, summarize
from cfseg.evaluation.overview import estimates
from cfseg.evaluation.programs import Benchmark, Program, Run
from cfseg.evaluation.scores import CaseScores
from cfseg.evaluation.statistics import compare

SHAPE = (24, 12, 10)
SPACING_MM = (1.0, 2.0, 3.0)
DIAGONAL_MM = math.sqrt(24**2 + 24**2 + 30**2)
LIVER, AORTA, GALLBLADDER, TUMOR = 1, 5, 9, 14
NAN = math.nan


def block(label, i=(4, 8), j=(4, 8), k=(2, 6)):
    made = np.zeros(SHAPE, dtype=np.uint8)
    made[slice(*i), slice(*j), slice(*k)] = label
    return made


EMPTY = np.zeros(SHAPE, dtype=np.uint8)


@pytest.mark.parametrize(
    ("label", "pred", "ref", "hd95_mm", "with_misses_mm"),
    [
        (LIVER, EMPTY, EMPTY, NAN, NAN),
        (LIVER, EMPTY, block(LIVER), NAN, DIAGONAL_MM),
        (LIVER, block(LIVER), EMPTY, NAN, DIAGONAL_MM),
        (LIVER, block(LIVER, (7, 11)), block(LIVER), 3, 3),
        # The prediction has it, but not on the slices of the reference, which alone count.
        (AORTA, block(AORTA, k=(7, 9)), block(AORTA), NAN, DIAGONAL_MM),
        # One slice of a tubular organ: nothing is left to judge, so nothing is missed.
        (AORTA, block(AORTA, k=(3, 4)), block(AORTA, k=(3, 4)), NAN, NAN),
    ],
)
def test_a_miss_is_as_far_as_the_image_is_wide(label, pred, ref, hd95_mm, with_misses_mm):
    case = score_case(pred, ref, SPACING_MM)
    found = [case.value(label, metric) for metric in ("hd95_mm", "hd95_with_misses_mm")]
    assert found == pytest.approx([hd95_mm, with_misses_mm], nan_ok=True)


MASKS = arrays(np.uint8, (4, 3, 5), elements=st.sampled_from([0, 0, LIVER, GALLBLADDER]))


@given(MASKS, MASKS)
@settings(max_examples=60, deadline=None)
def test_missing_a_label_never_helps(pred, ref):
    """Nor does anything lie farther away than a miss does."""
    without = np.where(pred == LIVER, 0, pred).astype(np.uint8)
    kept, missed = (score_case(ids, ref, SPACING_MM, [1, 9]) for ids in (pred, without))
    if LIVER in ref:
        metric = "hd95_with_misses_mm"
        assert missed.value(LIVER, metric) >= kept.value(LIVER, metric)
        assert missed.value(GALLBLADDER, metric) == pytest.approx(
            kept.value(GALLBLADDER, metric), nan_ok=True
        )


def save(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1])
    nib.save(nib.Nifti1Image(ids, affine), path)


@pytest.fixture
def folders(tmp_path):
    """Livers off by 3 and 10 mm; ``misses`` lacks the far one, and adds a gallbladder to the other.

    A third case has no liver, and no method finds one there.
    """
    near, far = block(LIVER, (7, 11)), block(LIVER, (14, 18))
    maps = {
        "a": (near, near + block(GALLBLADDER, (0, 2), (0, 2)), block(LIVER)),
        "b": (far, EMPTY, block(LIVER)),
        "c": (EMPTY, EMPTY, EMPTY),
    }
    for case, three in maps.items():
        for folder, ids in zip(("finds", "misses", "ref"), three, strict=True):
            save(tmp_path / folder / f"{case}.nii.gz", ids)
    return [tmp_path / name for name in ("finds", "misses", "ref", "out")]


def test_means_with_their_numbers_of_cases(folders):
    _, misses, ref, out = folders
    summary = evaluate(misses, ref, out, labels=[LIVER, GALLBLADDER])
    liver = estimates(summary)["liver"]
    assert (liver["hd95_mm"].n, liver["hd95_mm"].mean) == (1, 3)
    with_misses = liver["hd95_with_misses_mm"]
    assert (with_misses.n, with_misses.mean) == (2, pytest.approx((3 + DIAGONAL_MM) / 2))
    # The volumes are 0.384 ml of 0.384 and 0 of 0.384; in c there is nothing to be a share of.
    assert (liver["volume_error_ml"].n, liver["volume_error_percent"].n) == (3, 2)
    assert liver["volume_error_percent"].mean == pytest.approx(-50)
    # What is found where there is none has no share either: it counts in ml.
    gallbladder = estimates(summary)["gallbladder"]
    assert gallbladder["volume_error_percent"].n == 0
    assert gallbladder["volume_error_ml"].mean == pytest.approx(2 * 2 * 4 * 6 / 1000 / 3)
    # Of the organs, a has the liver at 3 mm and a gallbladder too many.
    organs = estimates(summary)["organs"]["hd95_with_misses_mm"]
    assert organs.mean == pytest.approx(((3 + DIAGONAL_MM) / 2 + DIAGONAL_MM) / 2)


def test_files_say_over_how_many_cases_a_mean_is(folders):
    _, misses, ref, out = folders
    evaluate(misses, ref, out, labels=[LIVER, GALLBLADDER])
    text = (out / "tables.md").read_text()
    with_misses = [3, DIAGONAL_MM]
    spread = f"{np.mean(with_misses):.2f} ± {np.std(with_misses, ddof=1):.2f}"
    assert f"| 3.00 (n = 1) | {spread} (n = 2) |" in text
    assert "-50.00 ± 70.71 (n = 2) |" in text
    record = json.loads((out / "scores.json").read_text())
    assert record["estimates"]["liver"]["hd95_mm"]["n"] == 1
    assert record["estimates"]["liver"]["hd95_with_misses_mm"]["n"] == 2
    b = record["cases"][1]
    assert b["hd95_mm"]["liver"] is None
    assert b["hd95_with_misses_mm"]["liver"] == pytest.approx(DIAGONAL_MM)
    assert (b["missed"], b["absent"]) == (["liver"], ["gallbladder"])
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert float(rows[2]["hd95_with_misses_mm"]) == pytest.approx(DIAGONAL_MM)
    row = next(csv.DictReader((out / "tables.csv").read_text().splitlines()))
    assert (row["hd95_mm_n"], row["hd95_with_misses_mm_n"]) == ("1", "2")


def test_a_paired_difference_does_not_get_better_by_missing(folders):
    compared = compare_methods(*folders, labels=[LIVER, GALLBLADDER])
    found = {(c.metric, c.what): c for c in compared.labels}
    assert METRICS[2:] == ("hd95_mm", "hd95_with_misses_mm")
    # Only a is left, where both are the same: the far liver that B misses costs it nothing ...
    plain = found["hd95_mm", "liver"]
    assert (plain.found.n, plain.found.difference) == (1, 0)
    assert (plain.first.n, plain.first.mean, plain.second.n, plain.second.mean) == (2, 6.5, 1, 3)
    # ... but here it does, by the diagonal less the 10 mm of A.
    liver = found["hd95_with_misses_mm", "liver"]
    assert liver.found.n == 2
    assert liver.found.difference == pytest.approx((DIAGONAL_MM - 10) / 2)
    # A is right to find no gallbladder in a: 0 mm against the diagonal; b and c have none at all.
    gallbladder = found["hd95_with_misses_mm", "gallbladder"]
    assert (gallbladder.found.n, gallbladder.first.mean) == (1, 0)
    assert gallbladder.found.difference == pytest.approx(DIAGONAL_MM)
    text = (folders[3] / "comparison.md").read_text()
    assert "| liver (1 absent) | 6.50 ± 4.95 (n = 2) | 3.00 (n = 1) | +0.00 (n = 1) |" in text
    rows = list(csv.DictReader((folders[3] / "comparison.csv").read_text().splitlines()))
    hd95 = next(row for row in rows if (row["metric"], row["label"]) == ("hd95_mm", "liver"))
    assert [hd95[name] for name in ("cases", "n", "first_n", "second_n")] == ["3", "1", "2", "1"]


def test_a_case_that_could_not_be_judged_is_told_and_not_only_left_out(folders):
    folders[2].joinpath("c.nii.gz").write_text("not an image")
    compare_methods(*folders, labels=[LIVER])
    head = (folders[3] / "comparison.md").read_text().splitlines()[2]
    assert "2 cases (1 more could not be judged)" in head


def test_a_prediction_that_is_not_there_has_no_false_positives(folders):
    _, misses, ref, out = folders
    for case in "ab":
        save(misses / f"{case}.nii.gz", block(TUMOR))
    (misses / "c.nii.gz").unlink()
    evaluate(misses, ref, out, labels=[TUMOR])
    # One in a and in b; c would bring the mean from 1 down to 2 / 3.
    assert "per scan that was scored: 1.00 ± 0.00 (n = 2)" in (out / "tables.md").read_text()
    record = json.loads((out / "scores.json").read_text())
    assert record["cases"][2]["false_positives"] is None
    assert record["detection"]["false_positives"] == {"n": 2, "mean": 1.0, "sd": 0.0}


def test_cells_say_where_fewer_cases_entered():
    assert spread_cell([0.5, 0.7]) == "60.00 ± 14.14"
    assert spread_cell([0.5, NAN, 0.7]) == "60.00 ± 14.14 (n = 2)"
    assert spread_cell([0.5, NAN], scale=1, digits=1) == "0.5 (n = 1)"
    assert spread_cell([NAN, NAN]) == "-"
    found = compare([0.5, 0.5, NAN], [0.6, 0.7, 0.1])
    assert difference_cell(found) == "+15.00"
    assert difference_cell(found, of=3) == "+15.00 (n = 2)"


def test_official_means_are_of_all_cases_that_count():
    case = CaseScores("a", {1: 0.5}, {1: 0.5}, reference_ml={1: 1.0})
    gone = case.as_zero("missing", "E_MISSING", "")
    summary = summarize([case, gone], [1])
    assert (summary.means["Liver_DSC"], summary.counted["Liver_DSC"]) == (0.25, 2)
    assert case.missed == ()
    assert gone.missed == (1,)


def efficiency(seconds, work_seconds):
    return Efficiency(seconds, work_seconds, *[None] * 4, *[1.0] * 7)


def test_programs_that_fail_are_not_the_fast_ones():
    """A fails on the case that takes B 100 s, so its mean is lower: the table says why."""
    a, b = Program("A", ()), Program("B", ())
    runs = (
        Run("A", "one", (), figures=efficiency(10.0, None)),
        Run("A", "two", (), message="out of memory"),
        Run("B", "one", (), figures=efficiency(10.0, 4.0)),
        Run("B", "two", (), figures=efficiency(100.0, None)),
    )
    table = benchmark_tables(Benchmark((a, b), runs))[0]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Running Time (s)"] == ("10.00", "55.00 ± 63.64")
    assert rows["Running Time without start-up (s)"] == ("-", "4.00 (n = 1)")
    assert rows["cases measured"] == ("1 of 2", "2 of 2")
    assert "A run that failed is in no mean" in table.note
