import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from cfseg.cli.evaluate import evaluate as command
from cfseg.cli.evaluate import score_table
from cfseg.errors import InputError, ResourceError, UsageError
from cfseg.evaluation.flare import evaluate, summarize
from cfseg.evaluation.pairs import find_pairs
from cfseg.labels import LABELS

AFFINE = np.array([[-2.0, 0, 0, 30], [0, -2.5, 0, 40], [0, 0, 3, -50], [0, 0, 0, 1]])
MOVED = AFFINE + 3 * np.eye(4, k=1) * [[0], [0], [1], [0]]


def volume(shift=0):
    ids = np.zeros((14, 12, 10), dtype=np.uint8)
    ids[2:7, 2:8, 1:6] = 1
    ids[8:12, 2:8, 2:8] = 5
    ids[3 + shift : 6 + shift, 9:11, 3:6] = 14
    return ids


def save(path, ids=None, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume() if ids is None else ids, affine), path)
    return path


def turned(image, orientation):
    """The same label map with its axes stored in another order."""
    here = nib.io_orientation(image.affine)
    there = nib.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(nib.orientations.ornt_transform(here, there))


@pytest.fixture
def folders(tmp_path):
    """Four references, predictions for three of them, named in every way that pairs."""
    for case in "abcd":
        save(tmp_path / "ref" / f"{case}.nii.gz")
    save(tmp_path / "pred" / "a.nii.gz")
    save(tmp_path / "pred" / "b_0000.nii.gz", volume(1))
    save(tmp_path / "pred" / "c.nii")
    save(tmp_path / "pred" / "other.nii.gz")
    return tmp_path / "pred", tmp_path / "ref", tmp_path / "out"


def test_pairs_by_name_and_counts_a_missing_prediction_as_zero(folders):
    summary = evaluate(*folders)
    assert [(c.case, c.state) for c in summary.cases] == [
        ("a", "scored"),
        ("b", "scored"),
        ("c", "scored"),
        ("d", "missing"),
    ]
    assert summary.unpaired == ("other.nii.gz",)
    assert summary.means["Liver_DSC"] == 0.75
    assert summary.means["Lesion_DSC"] == round((1 + 2 / 3 + 1) / 4, 4)
    assert set(summary.cases[3].dsc.values()) == {0.0}
    assert summary.exit_code == 3


def test_writes_its_files_and_nothing_else(folders):
    summary = evaluate(*folders)
    out = folders[2]
    assert sorted(p.name for p in out.iterdir()) == [
        "lesions.csv",
        "scores.csv",
        "scores.json",
        "scores.txt",
        "tables.csv",
        "tables.md",
    ]
    lines = (out / "scores.txt").read_text().splitlines()
    assert lines[0] == "Liver_DSC: 0.7500"
    assert len(lines) == 30
    assert lines[-1] == f"Organ_NSD: {summary.means['Organ_NSD']:.4f}"
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert len(rows) == 4 * 14
    tumor = rows[14 + 13]
    assert (tumor["case"], tumor["state"], tumor["label"]) == ("b", "scored", "tumor")
    assert (tumor["dsc"], tumor["nsd"], tumor["hd95_mm"]) == ("0.6667", "1.0", "2.0")
    # 3 x 2 x 3 voxels of 2 x 2.5 x 3 mm.
    assert float(tumor["volume_ml"]) == float(tumor["reference_ml"]) == pytest.approx(0.27)
    record = json.loads((out / "scores.json").read_text())
    assert record["mode"] == "flare23"
    assert record["counts"] == {"scored": 3, "missing": 1, "refused": 0, "failed": 0}
    assert record["means"]["Lesion_DSC"] == summary.means["Lesion_DSC"]
    assert record["sds"]["Liver_DSC"] == 0.5
    assert record["cases"][1]["dsc"]["tumor"] == 0.6667
    assert record["cases"][3]["code"] == "E_MISSING"
    assert {"cfseg", "numpy", "scipy"} <= set(record["versions"])


def test_damaged_files_and_other_grids_do_not_stop_the_others(folders):
    pred, ref, out = folders
    whole = (pred / "a.nii.gz").read_bytes()
    (pred / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    save(pred / "b_0000.nii.gz", affine=MOVED)
    (ref / "d.nii.gz").write_text("not an image")
    save(pred / "d.nii.gz")
    summary = evaluate(pred, ref, out)
    a, b, c, d = summary.cases
    assert (a.state, a.code) == ("refused", "E_CORRUPT")
    assert (b.state, b.code) == ("refused", "E_GRID")
    assert "origin (-50.00" in b.message
    assert "origin (-47.00" in b.message
    assert (d.state, d.code) == ("failed", "E_FORMAT")
    assert a.message.endswith("; it counts as 0")
    assert d.message.endswith("; the case does not count")
    assert c.state == "scored"
    # a and b count as 0, as a missing one would; d has no reference to be judged by.
    assert summary.means["Liver_DSC"] == round(1 / 3, 4)
    assert a.value(1, "volume_error_percent") == -100
    assert [lesion.found for lesion in a.lesions.lesions] == [False]
    assert summary.exit_code == 3


@pytest.mark.parametrize("mode", ["flare23", "corrected"])
@pytest.mark.parametrize(
    ("ids", "affine"),
    [
        (volume()[:-1], AFFINE),
        (volume(), np.diag([1.01, 1, 1, 1]) @ AFFINE),
        (volume(), MOVED),
    ],
)
def test_another_shape_spacing_or_place_is_refused(tmp_path, ids, affine, mode):
    ref = save(tmp_path / "ref.nii.gz")
    pred = save(tmp_path / "pred.nii.gz", ids, affine)
    summary = evaluate(pred, ref, tmp_path / "out", mode)
    assert (summary.cases[0].state, summary.cases[0].code) == ("refused", "E_GRID")
    assert "origin (-50.00" in summary.cases[0].message
    assert summary.exit_code == 4
    assert summary.means["Organ_DSC"] == 0


def test_without_a_reference_nothing_is_judged(tmp_path):
    pred = save(tmp_path / "pred.nii.gz")
    ref = tmp_path / "ref.nii.gz"
    ref.write_text("not an image")
    summary = evaluate(pred, ref, tmp_path / "out")
    assert (summary.cases[0].state, summary.cases[0].code) == ("failed", "E_FORMAT")
    assert summary.exit_code == 4
    assert math.isnan(summary.means["Organ_DSC"])
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["means"]["Liver_DSC"] is None


@pytest.mark.parametrize("mode", ["flare23", "corrected"])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "IPL", "PSL"])
def test_a_prediction_with_other_axes_is_turned(tmp_path, orientation, mode):
    ref = save(tmp_path / "ref.nii.gz")
    straight = nib.Nifti1Image(volume(1), AFFINE)
    nib.save(straight, tmp_path / "straight.nii.gz")
    nib.save(turned(straight, orientation), tmp_path / "turned.nii.gz")
    expected = evaluate(tmp_path / "straight.nii.gz", ref, tmp_path / "a", mode).cases[0]
    found = evaluate(tmp_path / "turned.nii.gz", ref, tmp_path / "b", mode).cases[0]
    assert (found.dsc, found.nsd) == (expected.dsc, expected.nsd)
    assert expected.notes == ()
    is_turned = mode == "flare23" and orientation != "LPS"  # the reference is stored so
    assert [note[:23] for note in found.notes] == ["prediction: turned onto"] * is_turned


@pytest.mark.parametrize(("orientation", "aorta"), [("LPS", 1.0), ("LPI", 0.8889)])
def test_slices_are_those_that_the_reference_is_stored_with(tmp_path, orientation, aorta):
    # The aorta has 6 slices and the prediction lacks the uppermost: the last one, which does not
    # count, only if stored from feet to head; else 4 of the 5 that count are there.
    ids = volume()
    ids[:, :, 7] = 0
    for name, labels in (("pred", ids), ("ref", volume())):
        image = turned(nib.Nifti1Image(labels, AFFINE), orientation)
        nib.save(image, tmp_path / f"{name}.nii.gz")
    both = tmp_path / "pred.nii.gz", tmp_path / "ref.nii.gz"
    case = evaluate(*both, tmp_path / "out").cases[0]
    assert case.dsc[5] == aorta
    assert case.dsc[1] == 1
    # Mended, all 6 slices count, however they are stored.
    assert evaluate(*both, tmp_path / "out", "corrected").cases[0].dsc[5] == pytest.approx(10 / 11)


def test_spacing_comes_from_the_header_along_the_stored_axes(tmp_path):
    # The tumor's tolerance is 2 mm; the voxel is 2, 2.5 and 3 mm, so only a shift along i agrees.
    ref = save(tmp_path / "ref.nii.gz")
    along_i = np.where(np.roll(volume(), 1, axis=0) == 14, 14, 0).astype(np.uint8)
    along_j = np.where(np.roll(volume(), 1, axis=1) == 14, 14, 0).astype(np.uint8)
    scores = []
    for name, ids in (("i", along_i), ("j", along_j)):
        pred = save(tmp_path / f"{name}.nii.gz", ids)
        scores.append(evaluate(pred, ref, tmp_path / "out").cases[0].nsd[14])
    assert scores[0] == 1
    assert scores[1] < 1


def test_one_file_goes_with_one_file_or_with_a_folder(folders):
    pred, ref, out = folders
    alone = evaluate(pred / "other.nii.gz", ref / "a.nii.gz", out)
    assert [c.case for c in alone.cases] == ["a"]
    assert alone.exit_code == 0
    assert len(evaluate(pred, ref / "b.nii.gz", out).cases) == 1


def test_only_chosen_labels(folders):
    pred, ref, out = folders
    summary = evaluate(pred, ref / "b.nii.gz", out, labels=[1, 14])
    assert summary.labels == (1, 14)
    assert summary.means["Organ_DSC"] == 1
    assert (out / "scores.csv").read_text().count("\n") == 3


def test_wrong_calls(folders, tmp_path):
    pred, ref, out = folders
    with pytest.raises(UsageError, match="there is no"):
        evaluate(tmp_path / "nowhere", ref, out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no label map"):
        evaluate(pred, tmp_path / "empty", out)
    save(tmp_path / "strange" / "x.nii.gz")
    with pytest.raises(InputError, match="named like"):
        evaluate(tmp_path / "strange", ref, out)
    with pytest.raises(UsageError, match="mode"):
        evaluate(pred, ref, out, mode="flare99")
    save(ref / "a.nii")
    with pytest.raises(UsageError, match="same case"):
        evaluate(pred, ref, out)
    assert not out.exists()


def test_an_exact_name_goes_before_one_with_a_channel(tmp_path):
    for name in ("x.nii.gz", "x_0000.nii.gz"):
        save(tmp_path / "pred" / name)
        save(tmp_path / "ref" / name)
    pairs, unpaired = find_pairs(tmp_path / "pred", tmp_path / "ref")
    assert unpaired == []
    assert [pair.pred.name for pair in pairs] == [pair.ref.name for pair in pairs]


def test_an_output_that_cannot_be_written(folders):
    pred, ref, _ = folders
    with pytest.raises(ResourceError, match="cannot be written"):
        evaluate(pred, ref, ref / "a.nii.gz")


def test_progress_sees_every_case(folders):
    seen = []
    evaluate(*folders, progress=lambda case, done, of: seen.append((case.case, done, of)))
    assert seen == [("a", 1, 4), ("b", 2, 4), ("c", 3, 4), ("d", 4, 4)]


def run(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_command_prints_a_table_and_ends_with_the_exit_code(folders):
    pred, ref, out = folders
    result = run(pred, ref, "-o", out)
    assert result.exit_code == 3
    assert "right kidney" in result.output
    assert "d: missing: E_MISSING" in result.output
    assert "1 predictions without a reference" in result.output
    assert (out / "scores.txt").is_file()


def test_command_quiet_and_labels(folders):
    pred, ref, out = folders
    result = run(pred, ref / "a.nii.gz", "-o", out, "--labels", "1,14", "-q")
    assert (result.exit_code, result.output) == (0, "")
    assert run(pred, ref, "-o", out, "--labels", "liver").exit_code == 2
    assert isinstance(run(pred, ref, "-o", out, "--mode", "x").exception, UsageError)


def test_table_shows_mean_and_deviation(folders):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table(evaluate(*folders)))
    text = captured.get()
    assert "0.7500 ± 0.5000" in text
    assert "all organs" in text
    assert text.count("±") == 2 * (len(LABELS) + 1)


def test_table_of_one_case_has_no_deviation(folders):
    pred, ref, out = folders
    summary = evaluate(pred, ref / "a.nii.gz", out)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table(summary))
    assert "±" not in captured.get()
    assert summarize(summary.cases).means == summary.means


def test_cases_at_once_give_the_same_in_the_same_order(folders):
    seen = []
    alone = evaluate(*folders)
    together = evaluate(*folders, progress=lambda case, done, of: seen.append(done), jobs=3)
    assert repr(together.cases) == repr(alone.cases)  # NaN is not equal to itself
    assert together.means == alone.means
    assert seen == [1, 2, 3, 4]


def test_a_case_whose_process_is_killed_is_listed_and_does_not_count(folders, monkeypatch):
    from cfseg.evaluation import flare
    from cfseg.evaluation.workers import Lost

    def some_lost(function, tasks, jobs):
        for index, task in enumerate(tasks):
            yield index, Lost(-9) if index == 1 else function(task)

    monkeypatch.setattr(flare, "results", some_lost)
    summary = evaluate(*folders, jobs=2)
    assert (summary.cases[1].state, summary.cases[1].code) == ("failed", "E_KILLED")
    assert "killed by signal 9" in summary.cases[1].message
    assert summary.cases[1].message.endswith("; the case does not count")
    assert summary.means["Liver_DSC"] == round(2 / 3, 4)
    assert summary.exit_code == 3


def test_tables_in_the_shape_of_the_paper(folders):
    summary = evaluate(*folders)
    out = folders[2]
    text = (out / "tables.md").read_text()
    assert "| Target | DSC (%) | NSD (%) |" in text
    assert "| Liver | 75.00 ± 50.00 | 75.00 ± 50.00 |" in text
    assert "| Average of organs |" in text
    assert "| < 10 mm | 4 | 3 | 75.0 |" in text
    assert "| 10-20 mm | 0 | 0 | - | - |" in text
    # Of four lesions of 0.27 ml (8.02 mm) three are found: d has no prediction.
    assert "False positives per scan that was scored: 0.00 ± 0.00 (n = 3)" in text
    assert "missing" in text
    rows = {r["target"]: r for r in csv.DictReader((out / "tables.csv").read_text().splitlines())}
    assert list(rows) == [*(label.name for label in LABELS), "organs"]
    assert float(rows["liver"]["dsc_mean"]) == 0.75
    assert float(rows["liver"]["volume_error_percent_mean"]) == -25
    assert rows["liver"]["hd95_mm_n"] == "3"
    assert rows["spleen"]["hd95_mm_mean"] == ""
    record = json.loads((out / "scores.json").read_text())
    assert record["estimates"]["tumor"]["dsc"]["n"] == 4
    assert record["detection"]["sizes"][-1] | {"interval": 0} == {
        "size": "all", "lesions": 4, "found": 3, "interval": 0,
    }  # fmt: skip
    lesions = list(csv.DictReader((out / "lesions.csv").read_text().splitlines()))
    assert [row["found"] for row in lesions] == ["1", "1", "1", "0"]
    assert summary.cases[0].lesions.lesions[0].volume_ml == pytest.approx(0.27)


@pytest.fixture
def without_tumor(tmp_path):
    """Two cases without tumors, but for the second, in which the prediction has one if wanted."""

    def make(painted=False, missing=False):
        for case in "ab":
            ids = volume()
            ids[ids == 14] = 0
            save(tmp_path / "ref" / f"{case}.nii.gz", ids)
            if not (missing and case == "b"):
                save(tmp_path / "pred" / f"{case}.nii.gz", volume() if painted else ids)
        return evaluate(tmp_path / "pred", tmp_path / "ref", tmp_path / "out", labels=[1, 14])

    return make


def shown(summary):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table(summary))
    lines = captured.get().splitlines()
    (tumor,) = (line for line in lines if "tumor" in line)
    return [cell.strip() for cell in tumor.strip("│┃ ").split("│")], captured.get()


def test_what_is_nowhere_is_shown_as_absent_and_counts_as_1(without_tumor, tmp_path):
    summary = without_tumor()
    cells, text = shown(summary)
    assert cells == ["tumor (2 absent)", "absent", "absent"]
    assert "the reference does not have it" in " ".join(text.split())
    assert summary.means["Lesion_DSC"] == 1
    assert "Lesion_DSC: 1.0000" in (tmp_path / "out" / "scores.txt").read_text()
    assert "| Tumor (2 absent) | absent | absent |" in (tmp_path / "out" / "tables.md").read_text()


def test_what_only_the_predictions_have_is_no_absence(without_tumor):
    cells, _ = shown(without_tumor(painted=True))
    assert cells == ["tumor (2 absent)", "0.0000 ± 0.0000", "0.0000 ± 0.0000"]


def test_a_missing_prediction_of_an_absent_label_still_counts_as_0(without_tumor):
    cells, _ = shown(without_tumor(missing=True))
    assert cells == ["tumor (2 absent)", "0.5000 ± 0.7071", "0.5000 ± 0.7071"]


def test_a_table_without_absent_labels_has_no_note(folders):
    pred, ref, out = folders
    _, text = shown(evaluate(pred, ref, out, labels=[1, 14]))
    assert "absent" not in text.lower()
