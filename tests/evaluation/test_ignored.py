"""Voxels that nobody annotated: what leaving them out means, worked out by hand."""

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest

from cfseg.cli import main
from cfseg.errors import UsageError
from cfseg.evaluation.comparison import compare_methods
from cfseg.evaluation.flare import evaluate, score_case
from cfseg.evaluation.ignored import ignored_value

UNIT = (1.0, 1.0, 1.0)
SHAPE = (20, 8, 8)
LIVER, AORTA, TUMOR, IGNORE = 1, 5, 14, 15
DIAGONAL_MM = math.sqrt(20**2 + 8**2 + 8**2)


def slab(label, start, stop, into=None):
    """Fill whole planes across the image, so that only their two faces are surfaces inside it."""
    made = np.zeros(SHAPE, dtype=np.uint8) if into is None else into.copy()
    made[start:stop] = label
    return made


def rod(label, start, stop, into=None):
    made = np.zeros(SHAPE, dtype=np.uint8) if into is None else into.copy()
    made[start:stop, 3:5, 3:5] = label
    return made


def judged(pred, ref, label=LIVER, mode="corrected", ignored=IGNORE):
    case = score_case(pred, ref, UNIT, mode=mode, ignored=ignored)
    return case.dsc[label], case.nsd[label], case.hd95_mm[label], case.hd95_with_misses_mm[label]


def test_what_the_prediction_says_there_does_not_count():
    ref = rod(LIVER, 4, 10, slab(IGNORE, 10, 14))
    # Right where the reference is known; in the ignored planes whatever it likes.
    for stop in (10, 12, 14):
        assert judged(rod(LIVER, 4, stop), ref) == (1, 1, 0, 0)
    # Beyond them it is wrong: 6 voxels of 4 are right, 2 more are not.
    dsc, *_ = judged(rod(LIVER, 4, 16), ref)
    assert dsc == pytest.approx(2 * 6 / (6 + 8))
    # Without the rule the planes are background, and the prediction wrong in them.
    assert judged(rod(LIVER, 4, 14), ref, ignored=None)[0] == pytest.approx(2 * 6 / (6 + 10))


def test_a_surface_that_touches_ignored_voxels_does_not_count():
    # The slabs end at 10 in the reference and at 8 in the prediction; both begin at 4.
    ref = slab(IGNORE, 10, 14, slab(LIVER, 4, 10))
    pred = slab(LIVER, 4, 8)
    pred_mm, ref_mm = distances(pred, ref)
    # The end of the prediction counts. The true one is at 10 or beyond, so 2 mm away at least.
    assert max(pred_mm) == 2
    # The end of the reference touches ignored voxels; what counts is up to 9, 1 mm away.
    assert max(ref_mm) == 1
    assert max(distances(pred, slab(LIVER, 4, 10), ignored=None)[1]) == 2


def distances(pred, ref, ignored=IGNORE):
    from cfseg.evaluation.metrics import surfaces

    unknown = None if ignored is None else ref == ignored
    found = surfaces(pred == LIVER, ref == LIVER, UNIT, unknown)
    return found.pred.distances_mm, found.ref.distances_mm


def test_the_nsd_is_the_share_of_what_counts():
    # One voxel each, 3 apart, with 8 elements of the same area. Four elements of the reference's
    # voxel touch the ignored plane; of the others, and of the prediction's, those on the near side
    # are 2 away from an element of the other, those on the far side 3.
    ref, pred = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    ref[4, 4, 4], pred[7, 4, 4] = TUMOR, TUMOR
    assert judged(pred, ref, TUMOR, ignored=None)[:3] == (0, 0.5, 3)
    ref[3] = IGNORE  # beside the far side of the reference's voxel
    assert judged(pred, ref, TUMOR)[:3] == (0, pytest.approx(8 / 12), 3)
    ref[3], ref[5] = 0, IGNORE  # beside its near side, which others may still be near to
    assert judged(pred, ref, TUMOR)[:3] == (0, pytest.approx(4 / 12), 3)


def test_without_a_surface_that_counts_there_is_no_distance():
    # Every element of the voxel touches one of the ignored ones around it.
    ref = np.full(SHAPE, IGNORE, dtype=np.uint8)
    ref[4, 4, 4] = LIVER
    dsc, nsd, hd95_mm, with_misses_mm = judged(ref, ref)
    assert dsc == 1
    assert all(map(math.isnan, (nsd, hd95_mm, with_misses_mm)))


def test_present_is_what_is_present_where_it_counts():
    ref = slab(IGNORE, 10, 14)
    found = judged(rod(LIVER, 10, 14), ref)
    assert found[:2] == (1, 1)
    assert math.isnan(found[3])
    found = judged(rod(LIVER, 9, 14), ref)
    assert found[:2] == (0, 0)
    assert found[3] == pytest.approx(DIAGONAL_MM)


def test_volumes_and_lesions_are_of_what_counts():
    ref = slab(IGNORE, 10, 14)
    case = score_case(rod(TUMOR, 9, 14), ref, UNIT, ignored=IGNORE)
    assert case.value(TUMOR, "volume_error_ml") == pytest.approx(4 / 1000)
    assert case.lesions.false_positives == 1
    assert score_case(rod(TUMOR, 11, 14), ref, UNIT, ignored=IGNORE).lesions.false_positives == 0


def test_a_tubular_organ_is_still_judged_on_its_slices():
    made = np.moveaxis(rod(AORTA, 2, 10), 0, 2)
    ref = np.moveaxis(rod(AORTA, 2, 8, slab(IGNORE, 8, 20)), 0, 2)
    assert judged(made, ref, AORTA, "flare23")[:2] == (1, 1)


def test_values_that_are_no_labels_are_noted():
    case = score_case(slab(63, 0, 2), slab(IGNORE, 10, 14), UNIT)
    assert [note.split(" and ")[0] for note in case.notes] == [
        "prediction: 63 is no label",
        "reference: 15 is no label",
    ]
    assert "--ignore" in case.notes[1]
    assert score_case(slab(1, 0, 2), slab(IGNORE, 10, 14), UNIT, ignored=IGNORE).notes == ()


def save(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(ids, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


@pytest.fixture
def folders(tmp_path):
    """One case that is perfect but for ignored voxels, and one without any."""
    save(tmp_path / "pred" / "a.nii.gz", rod(LIVER, 4, 14))
    save(tmp_path / "raw" / "labelsTr" / "a.nii.gz", rod(LIVER, 4, 10, slab(IGNORE, 10, 14)))
    for folder in (tmp_path / "pred", tmp_path / "raw" / "labelsTr"):
        save(folder / "b.nii.gz", rod(LIVER, 4, 10))
    return tmp_path / "pred", tmp_path / "raw" / "labelsTr", tmp_path / "out"


def describe(folder, ignore=IGNORE):
    labels = {"background": 0, "liver": 1, "ignore": ignore}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


@pytest.mark.parametrize("above", [False, True])
def test_the_description_beside_the_references_names_it(folders, above):
    pred, ref, out = folders
    assert evaluate(pred, ref, out, labels=[1]).means["Liver_DSC"] < 1
    describe(ref.parent if above else ref)
    summary = evaluate(pred, ref, out, labels=[1])
    assert (summary.ignored, summary.means["Liver_DSC"]) == (IGNORE, 1)
    assert evaluate(pred, ref / "a.nii.gz", out, labels=[1]).ignored == IGNORE
    assert evaluate(pred, ref, out, labels=[1], ignore=0).ignored is None
    assert evaluate(pred, ref, out, labels=[1], ignore=20).ignored == 20
    if above:  # what lies nearer says more
        describe(ref, 20)
        assert evaluate(pred, ref, out, labels=[1]).ignored == 20


def test_every_output_says_that_flare_has_no_such_rule(folders, monkeypatch, capfd):
    pred, ref, out = folders
    line = f"cfseg evaluate {pred} {ref} -o {out} --ignore 15 --jobs 1"
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    note = "gives 15 are left out of every figure; FLARE has no such rule."
    assert note in capfd.readouterr().err
    assert note in (out / "tables.md").read_text()
    record = json.loads((out / "scores.json").read_text())
    assert record["ignored"] == 15
    assert note in record["notes"][0]
    compare_methods(pred, pred, ref, out, labels=[1], ignore=15)
    assert note in (out / "comparison.md").read_text()
    assert json.loads((out / "comparison.json").read_text())["ignored"] == 15


def test_means_leave_out_what_nobody_knows_and_say_so(folders):
    pred, ref, out = folders
    ids = np.full(SHAPE, IGNORE, dtype=np.uint8)
    ids[4, 4, 4] = LIVER
    save(ref / "a.nii.gz", ids)
    summary = evaluate(pred, ref, out, labels=[1], ignore=15)
    assert (summary.means["Liver_DSC"], summary.counted["Liver_DSC"]) == (1, 2)
    assert (summary.means["Liver_NSD"], summary.counted["Liver_NSD"]) == (1, 1)
    assert (summary.means["Organ_NSD"], summary.counted["Organ_NSD"]) == (1, 1)
    assert "100.00 (n = 1)" in (out / "tables.md").read_text()


@pytest.mark.parametrize("value", [1, 14])
def test_a_label_to_be_judged_cannot_be_ignored(folders, value):
    describe(folders[1], value)
    with pytest.raises(UsageError, match="to be judged"):
        evaluate(*folders)
    others = [label for label in range(1, 15) if label != value]
    assert evaluate(*folders, labels=others).ignored == value


@pytest.mark.parametrize("value", ["15", 15.0, -1, 256, True, [15]])
def test_what_a_label_map_cannot_hold_is_refused(tmp_path, value):
    describe(tmp_path, value)
    with pytest.raises(UsageError, match=r"dataset\.json: the value to ignore is"):
        ignored_value(tmp_path, [2])


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 100_000])
def test_a_description_that_cannot_be_read_is_not_passed_over(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UsageError, match=r"dataset\.json cannot be read"):
        ignored_value(tmp_path, [2])
    assert ignored_value(tmp_path, [2], 0) is None


@pytest.mark.parametrize("text", ["{}", '{"labels": [1]}', '{"labels": {"liver": 1}}'])
def test_a_description_without_such_a_label_names_none(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    assert ignored_value(tmp_path, [2]) is None


def test_notes_of_reading_change_no_score(tmp_path):
    """An affine that is off the right angle by a hair is mended, which the scores tell."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    save(tmp_path / "straight.nii.gz", rod(LIVER, 4, 10))
    affine[0, 1] = 2e-4
    nib.save(nib.Nifti1Image(rod(LIVER, 4, 10), affine), tmp_path / "off.nii.gz")
    out = tmp_path / "out"
    case = evaluate(tmp_path / "off.nii.gz", tmp_path / "straight.nii.gz", out).cases[0]
    assert case.dsc[LIVER] == 1
    (note,) = case.notes
    assert note.startswith("prediction: affine_snapped: ")
    assert json.loads((out / "scores.json").read_text())["cases"][0]["notes"] == [note]
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert {row["notes"] for row in rows} == {note}
