import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import cfseg
from cfseg.cli.root import app
from cfseg.errors import InputError
from cfseg.findings.record import as_record
from cfseg.labels import LABELS, NAMES

REAL = Path(__file__).parents[3] / "shared" / "real-ct" / "ts-example"
AXES = ("LPS", "RAS", "SAL", "PIR")


def write_case(folder, name="a", axes="LPS"):
    """A CT of 20x16x12 voxels (x, y, z) with a liver, a spleen at the feet and one lesion."""
    hu = np.full((20, 16, 12), -1000, dtype=np.int16)
    ids = np.zeros((20, 16, 12), dtype=np.uint8)
    hu[1:19, 1:15] = 40
    ids[4:12, 4:12, 4:9] = 1
    ids[6:9, 5:9, 5:7] = 14
    hu[6:9, 5:9, 5:7] = 90
    ids[13:16, 6:9, 0:4] = 3
    (folder / "ct").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    paths = folder / "ct" / f"{name}_0000.nii.gz", folder / "labels" / f"{name}.nii.gz"
    for path, array in zip(paths, (hu, ids), strict=True):
        image = nib.Nifti1Image(array, np.diag([-2.0, -2.5, 4.0, 1.0]))
        start = nib.orientations.io_orientation(image.affine)
        turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(axes))
        nib.save(image.as_reoriented(turn), path)
    return paths


def table(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_record_by_hand(tmp_path):
    record = as_record(cfseg.measure(*write_case(tmp_path)))
    assert list(record) == [*NAMES.values(), "about"]
    liver, spleen, aorta, tumor = (record[n] for n in ("liver", "spleen", "aorta", "tumor"))
    assert liver["volume"] == (8 * 8 * 5 - 24) * 20
    assert liver["volume_ml"] == liver["visible_ml"] == pytest.approx(5.92)
    assert (liver["intensity"], liver["intensity_std"]) == (40, 0)
    assert liver["extent_mm"] == {"head_foot": 20, "front_back": 20, "left_right": 16}
    assert liver["bbox_vox"] == [[4, 11], [4, 11], [4, 8]]
    assert (spleen["volume"], spleen["volume_ml"], spleen["visible_ml"]) == (None, None, 0.72)
    assert (spleen["touches_border"], spleen["cut_by"]) == (True, ["feet"])
    assert (aorta["volume"], aorta["intensity"], aorta["n_voxels"]) == (0, None, 0)
    (lesion,) = tumor["lesions"]
    assert lesion["volume_ml"] == pytest.approx(0.48)
    assert lesion["mean_hu"] == 90
    assert lesion["host_organ"] == "liver"
    assert lesion["slices"] == [5, 6]
    assert lesion["longest_mm"] == pytest.approx(np.hypot(10, 4), abs=0.05)
    assert record["about"]["case"] == "a"


@pytest.mark.parametrize("axes", AXES)
def test_indices_are_those_of_the_file_whatever_its_axes(tmp_path, axes):
    ct, labels = write_case(tmp_path, axes=axes)
    record = as_record(cfseg.measure(ct, labels))
    ids = np.asarray(nib.load(labels).dataobj)
    for label in (1, 3, 14):
        where = np.argwhere(ids == label)
        entry = record[NAMES[label]]
        assert entry["bbox_vox"] == np.stack([where.min(0), where.max(0)], axis=1).tolist()
        assert entry["centroid_vox"] == pytest.approx(where.mean(0), abs=0.01)
    assert record["spleen"]["cut_by"] == ["feet"]
    assert record["liver"]["extent_mm"] == {"head_foot": 20, "front_back": 20, "left_right": 16}
    along_z = axes.replace("I", "S").index("S")
    assert record["tumor"]["lesions"][0]["slices"] == record["tumor"]["bbox_vox"][along_z]


def test_command_over_two_folders_writes_tables(tmp_path):
    for name in "ab":
        write_case(tmp_path, name)
    broken, _ = write_case(tmp_path, "c")
    broken.write_bytes(broken.read_bytes()[:100])
    out = tmp_path / "out"
    call = ["findings", str(tmp_path / "ct"), str(tmp_path / "labels"), "-o", str(out), "-q"]
    assert CliRunner().invoke(app, call).exit_code == 3
    rows = table(out / "statistics.csv")
    assert [(row["case"], row["label"]) for row in rows] == [
        (case, label.name) for case in "ab" for label in LABELS
    ]
    spleen = rows[2]
    assert (spleen["volume_ml"], spleen["visible_ml"], spleen["cut_by"]) == ("", "0.72", "feet")
    lesions = table(out / "lesions.csv")
    assert [row["case"] for row in lesions] == ["a", "b"]
    assert lesions[0]["host_organ"] == "liver"
    assert json.loads((out / "statistics" / "a.json").read_text())["liver"]["volume_ml"] == 5.92
    assert not (out / "statistics" / "c.json").exists()


def test_what_has_no_counterpart_is_named(tmp_path):
    for name in "ab":
        write_case(tmp_path, name)
    (tmp_path / "ct" / "a_0000.nii.gz").unlink()
    (tmp_path / "labels" / "c.nii.gz").write_bytes(b"")
    call = ["findings", str(tmp_path / "ct"), str(tmp_path / "labels"), "-o", str(tmp_path / "o")]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0
    assert "2 without a scan or a label map: a.nii.gz, c.nii.gz" in result.output


def test_a_case_for_which_memory_runs_out_does_not_cost_the_others(tmp_path, monkeypatch):
    from cfseg.findings import files

    for name in "ab":
        write_case(tmp_path, name)
    measure = files.measure

    def starve(ct, label_map, **settings):
        if label_map.name == "a.nii.gz":
            raise MemoryError
        return measure(ct, label_map, **settings)

    monkeypatch.setattr(files, "measure", starve)
    folders = tmp_path / "ct", tmp_path / "labels", tmp_path / "out"
    measured = files.measure_many(*folders)
    assert [found.case for found in measured.found] == ["b"]
    assert (measured.refused["a"].code, measured.exit_code) == ("E_OOM", 3)
    (tmp_path / "labels" / "b.nii.gz").unlink()
    assert files.measure_many(*folders).exit_code == 6


def test_one_pair_is_shown_and_lesions_too(tmp_path):
    ct, labels = write_case(tmp_path)
    result = CliRunner().invoke(app, ["findings", str(ct), str(labels), "-o", str(tmp_path / "o")])
    assert result.exit_code == 0
    assert "> 0.7" in result.output
    assert "in liver" in result.output


def test_another_grid_and_other_labels_are_refused(tmp_path):
    ct, labels = write_case(tmp_path)
    image = nib.load(labels)
    moved = image.affine.copy()
    moved[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), labels)
    with pytest.raises(InputError, match="grid") as caught:
        cfseg.measure(ct, labels)
    assert caught.value.code == "E_GRID"
    ids = np.asarray(image.dataobj).copy()
    ids[0, 0, 0] = 63
    nib.save(nib.Nifti1Image(ids, image.affine), labels)
    with pytest.raises(InputError, match="numbering"):
        cfseg.measure(ct, labels)


@pytest.mark.skipif(not REAL.exists(), reason="no real CT in shared/real-ct/ts-example")
def test_the_real_case_within_one_percent_and_its_cut_organs_marked():
    found = cfseg.measure(REAL / "ct.nii.gz", REAL / "label.nii.gz")
    image = nib.load(REAL / "label.nii.gz")
    ids, voxel_ml = np.asarray(image.dataobj), abs(np.linalg.det(image.affine[:3, :3])) / 1000
    top = set()
    for organ in found.organs:
        where = np.argwhere(ids == organ.label.id)
        assert organ.visible_ml == pytest.approx(len(where) * voxel_ml, rel=0.01)
        near = len(where) and ((where < 3) | (where >= np.array(ids.shape) - 3)).any()
        assert bool(organ.cut_by) == bool(near)
        top |= {organ.label.name} if organ.cut_by else set()
    assert {"liver", "spleen", "stomach", "aorta"} <= top
    assert {"right_kidney", "left_kidney", "pancreas"}.isdisjoint(top)
