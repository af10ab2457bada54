"""Atlases: labels follow from tissues, files give back what went in, bad maps are refused."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli.root import app
from cfseg.errors import InputError, UsageError
from cfseg.geometry import Geometry
from cfseg.labels import IGNORE, ORGAN_IDS
from cfseg.phantoms import tissues as t
from cfseg.phantoms.anatomy import build
from cfseg.phantoms.atlas import (
    UNKNOWN,
    Atlas,
    check,
    examine,
    labels_of,
    read_atlases,
    write_atlas,
)
from cfseg.phantoms.class_names import AMBIGUOUS, read_classes, tissue_of
from cfseg.phantoms.conversion import convert, resampled

MM = (6.0, 6.0, 6.0)
CLASSES = {
    "organs": {"101": "liver", "102": "Spleen", "103": "left kidney", "104": "kidney_right"},
    "context": {"20": "muscle", "21": "rib cartilage", "22": "stomach and duodenum together"},
}
TO_CLASSES = {1: 101, 3: 102, 13: 103, 2: 104, t.MUSCLE: 20, t.DISC: 21, 11: 22, 12: 22}


@pytest.fixture(scope="module")
def body() -> np.ndarray:
    grid = Geometry.from_spacing((48, 56, 64), MM)
    return build(np.random.default_rng(5), grid).tissue


@pytest.fixture
def folder(tmp_path: Path, body: np.ndarray) -> Path:
    """A map with ids of its own, and its class table."""
    ids = np.zeros_like(body)
    for tissue, number in TO_CLASSES.items():
        ids[body == tissue] = number
    save(tmp_path / "maps" / "one.nii.gz", ids)
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    return tmp_path


def save(file: Path, ids: np.ndarray, flip: int = 1) -> None:
    """Write (z, y, x) ids; with ``flip`` -1, the header says that left is right."""
    file.parent.mkdir(exist_ok=True)
    affine = np.diag([-6.0 * flip, -6.0, 6.0, 1.0])
    nib.save(nib.Nifti1Image(ids.transpose(2, 1, 0), affine), file)


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("liver", 1), ("postcava", 6), ("kidney_left", 13), ("tumor", None), ("widget", None),
        ("stomach and duodenum together", AMBIGUOUS), ("rib cartilage", t.DISC), ("rib_4", t.BONE),
        ("vertebrae_L1", t.BONE), ("bowel (colon and ileum together)", t.BOWEL), ("colon", t.COLON),
        ("portal and splenic vein", t.VEIN), ("portal_vein_and_splenic_vein", t.VEIN),
        ("artery, other", t.ARTERY), ("pulmonary_artery", t.ARTERY), ("iliac_vena_left", t.VEIN),
        ("urinary bladder", t.BLADDER), ("renal pelvis", t.FLUID), ("spinal_cord", t.CANAL),
        ("lung_upper_lobe_left", t.LUNG), ("heart", t.HEART), ("gluteus_maximus_left", t.MUSCLE),
        ("prostate or uterus", t.SOFT), ("intervertebral disc", t.DISC), ("kidney_cyst", t.FLUID),
    ],
)  # fmt: skip
def test_names_of_other_tables(name: str, tissue: int | None) -> None:
    assert tissue_of(name) == tissue


def test_ids_mean_nothing(tmp_path: Path) -> None:
    table = tmp_path / "classes.json"
    table.write_text('{"labels": {"background": 0, "bone": 1, "liver": 23}}')
    assert read_classes(table) == {0: UNKNOWN, 1: t.BONE, 23: 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"1": "widget"}', "what tissue widget is"), ('{"liver": 300}', "id 300"),
        ('{"liver": 1, "spleen": 1}', "same id"), ("[]", "repair it"),
    ],
)  # fmt: skip
def test_a_table_that_means_nothing_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_classes(tmp_path / "classes.json")


def test_unknown_is_ignored_where_an_organ_may_be() -> None:
    tissue = np.array([[[*ORGAN_IDS, t.MUSCLE, UNKNOWN]]], dtype=np.uint8)
    assert labels_of(tissue).tolist() == [[[*ORGAN_IDS, 0, 0]]]
    tissue[tissue == 7] = UNKNOWN
    assert labels_of(tissue)[0, 0, 6:].tolist() == [IGNORE, *ORGAN_IDS[7:], 0, IGNORE]


def test_files_give_back_what_went_in(tmp_path: Path, body: np.ndarray) -> None:
    tissue = np.where(body == 4, UNKNOWN, body).astype(np.uint8)
    atlas = Atlas.of("a", tissue, (5.0, 6.0, 7.0), "mine, CC0")
    write_atlas(tmp_path / "a.nii.gz", atlas)
    (read,) = read_atlases(tmp_path)
    assert (read.name, read.source, read.spacing_mm) == ("a", "mine, CC0", (5.0, 6.0, 7.0))
    np.testing.assert_array_equal(read.tissue, tissue)
    np.testing.assert_array_equal(read.labels, labels_of(tissue))
    assert json.loads((tmp_path / "a.json").read_text())["missing"] == ["pancreas"]


def test_what_is_no_atlas_is_refused(tmp_path: Path, body: np.ndarray) -> None:
    with pytest.raises(UsageError, match="no atlases"):
        read_atlases(tmp_path)
    save(tmp_path / "a.nii.gz", body)
    with pytest.raises(UsageError, match=r"a\.json cannot be read"):
        read_atlases(tmp_path)
    save(tmp_path / "a.nii.gz", np.full_like(body, 77))
    with pytest.raises(InputError, match=r"\[77\] are no tissue classes"):
        read_atlases(tmp_path)


def test_a_sound_body_passes_and_a_mirrored_one_does_not(body: np.ndarray) -> None:
    found = check(Atlas.of("a", body, MM, "s"))
    assert found.unknown_share == found.outside_share == 0
    assert found.gaps_mm["duodenum - pancreas"] <= 12
    assert 625 < found.volumes_ml["liver"] < 2375
    with pytest.raises(InputError, match="to the left of") as error:
        check(Atlas.of("a", body[:, :, ::-1].copy(), MM, "s"))
    assert error.value.code == "E_SITUS"


def test_organs_in_air_are_refused(body: np.ndarray) -> None:
    bare = np.where(body <= 13, body, t.AIR).astype(np.uint8)
    with pytest.raises(InputError, match="touches air") as error:
        check(Atlas.of("a", bare, MM, "s"))
    assert error.value.code == "E_BODY"


def test_gap_by_hand() -> None:
    tissue = np.full((3, 3, 9), t.VISCERAL, dtype=np.uint8)
    tissue[1, 1, 1], tissue[1, 1, 6] = 4, 12
    assert examine(Atlas.of("a", tissue, (3.0, 3.0, 2.0), "s")).gaps_mm == {
        "duodenum - pancreas": 10
    }


def test_surfaces_are_interpolated_between_slices() -> None:
    tissue = np.zeros((4, 20, 20), dtype=np.uint8)
    for index, reach in enumerate((4, 8, 12, 16)):  # a wedge in slices of 6 mm
        tissue[index, :, :reach] = 1
    finer, mm = resampled(tissue, (6.0, 2.0, 2.0), 2.0)
    assert (finer.shape, mm) == ((12, 20, 20), (2.0, 2.0, 2.0))
    steps = np.diff((finer == 1)[:, 10].sum(axis=1))
    assert steps.min() >= 0
    assert steps.max() <= 2


def test_a_map_becomes_an_atlas(folder: Path, body: np.ndarray) -> None:
    (made,) = convert(
        [folder / "maps"], folder / "classes.json", folder / "out", source="s", spacing_mm=6.0
    )
    assert made.error is None
    (atlas,) = read_atlases(folder / "out")
    assert atlas.organs == (1, 2, 3, 13)
    np.testing.assert_array_equal(atlas.tissue == 1, body == 1)
    np.testing.assert_array_equal(atlas.tissue == t.DISC, body == t.DISC)
    assert (atlas.labels[(body == 11) | (body == 4)] == IGNORE).all()
    assert (atlas.labels[body == t.MUSCLE] == 0).all()


def test_bad_maps_are_refused_one_by_one(folder: Path, body: np.ndarray) -> None:
    ids = nib.load(folder / "maps" / "one.nii.gz").get_fdata().astype(np.uint8).transpose(2, 1, 0)
    save(folder / "maps" / "mirrored.nii.gz", ids, flip=-1)
    save(folder / "maps" / "strange.nii.gz", np.full_like(ids, 9))
    (folder / "maps" / "torn.nii.gz").write_bytes(b"\x1f\x8b")
    words = [
        "dataset", "atlas", folder / "maps", "--classes", folder / "classes.json",
        "--source", "mine", "--spacing", "6", "-o", folder / "out",
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 3
    lines = dict(line.split(": ", 1) for line in result.output.splitlines())
    assert lines["mirrored"].startswith("E_SITUS: ")
    assert lines["strange"].startswith("E_LABELS: ")
    assert lines["torn"].startswith("E_")
    assert lines["one"].startswith("4 organs of ")
    assert [file.name for file in sorted((folder / "out").iterdir())] == ["one.json", "one.nii.gz"]


def test_two_maps_of_one_name_are_refused(folder: Path) -> None:
    places = [folder / "maps", folder / "maps" / "one.nii.gz"]
    with pytest.raises(UsageError, match="are called one"):
        convert(places, folder / "classes.json", folder / "out", source="s")
