"""Maps of bones and organs get a body, maps of organs alone everything else, and nothing moves."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from cfseg.errors import InputError
from cfseg.geometry import Geometry
from cfseg.labels import ORGAN_IDS
from cfseg.phantoms import tissues as t
from cfseg.phantoms.anatomy import build
from cfseg.phantoms.atlas import UNKNOWN, Atlas, Ids, check, read_atlases
from cfseg.phantoms.body import with_body
from cfseg.phantoms.class_names import AMBIGUOUS
from cfseg.phantoms.completion import completed, donors, has_bones
from cfseg.phantoms.conversion import convert
from cfseg.phantoms.registration import fit_scale, register

MM = (6.0, 6.0, 6.0)
FIVE = (1, 3, 4, 11, 13)
BONES = (t.BONE, t.SPONGIOSA, t.DISC, t.CANAL)


def person(seed: int) -> Atlas:
    grid = Geometry.from_spacing((64, 60, 68), MM)
    tissue = build(np.random.default_rng(seed), grid).tissue
    return Atlas.of(f"p{seed}", np.where(tissue == t.TABLE, t.AIR, tissue), MM, f"source {seed}")


def only(atlas: Atlas, classes: tuple[int, ...], name: str = "part") -> Atlas:
    tissue = np.where(np.isin(atlas.tissue, classes), atlas.tissue, UNKNOWN).astype(np.uint8)
    return Atlas.of(name, tissue, MM, atlas.source)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.fixture(scope="module")
def whole() -> Atlas:
    return person(1)


@pytest.fixture(scope="module")
def other() -> Atlas:
    return person(2)


@pytest.fixture(scope="module")
def filled(whole: Atlas, other: Atlas) -> Atlas:
    return completed(only(whole, FIVE), donors([other]))


def own_part(filled: Atlas, part: Atlas) -> tuple[Ids, Ids]:
    """Return both maps cut to the slices and columns that hold the five organs."""
    crops = []
    for tissue in (filled.tissue, part.tissue):
        at = np.argwhere(np.isin(tissue, FIVE))
        low, high = at.min(axis=0), at.max(axis=0) + 1
        crops.append(tissue[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    return crops[0], crops[1]


def test_a_body_is_drawn_around_bones(whole: Atlas) -> None:
    part = only(whole, (*ORGAN_IDS, *BONES, t.LUNG))
    drawn = with_body(part)
    assert not (drawn.tissue == UNKNOWN).any()
    found = check(drawn)
    assert found.outside_share == 0
    known = part.tissue != UNKNOWN
    grown = zip(drawn.tissue.shape[1:], part.tissue.shape[1:], strict=True)
    rows, columns = (slice((new - old) // 2, (new + old) // 2) for new, old in grown)
    np.testing.assert_array_equal(drawn.tissue[:, rows, columns][known], part.tissue[known])
    middle = drawn.tissue[32]
    body = middle != t.AIR
    np.testing.assert_array_equal(binary_fill_holes(body), body)
    assert dice(middle[rows, columns] != t.AIR, whole.tissue[32] != t.AIR) > 0.85
    line = middle[:, middle.shape[1] // 2]
    layers = list(dict.fromkeys(line.tolist()))
    assert layers[:3] == [t.AIR, t.SUBCUTANEOUS, t.MUSCLE]


def test_organs_alone_get_all_the_rest(whole: Atlas, filled: Atlas) -> None:
    found = check(filled)
    assert found.unknown_share == found.outside_share == 0
    assert set(filled.organs) >= {2, 5, 6}
    assert has_bones(filled)
    assert set(np.unique(filled.labels)) <= {0, *ORGAN_IDS}
    assert filled.source == "source 1; source 2"


def test_its_own_organs_stay_as_they_are(whole: Atlas, filled: Atlas) -> None:
    ours, theirs = own_part(filled, only(whole, FIVE))
    for organ in FIVE:
        np.testing.assert_array_equal(ours == organ, theirs == organ)


def test_organs_from_another_fit_between_its_own(whole: Atlas, filled: Atlas) -> None:
    volumes = check(filled).volumes_ml
    assert volumes["right_kidney"] == pytest.approx(volumes["left_kidney"], rel=0.35)
    assert volumes["aorta"] > 30
    assert check(filled).gaps_mm["duodenum - pancreas"] < 20


def test_a_missing_organ_takes_the_place_of_fat_alone(whole: Atlas, other: Atlas) -> None:
    part = only(whole, tuple(set(np.unique(whole.tissue)) - {2, t.AIR}))
    ready = completed(part, donors([other]))
    before = with_body(part)
    changed = ready.tissue != before.tissue
    assert set(np.unique(ready.tissue[changed])) == {2}
    assert set(np.unique(before.tissue[changed])) == {t.VISCERAL}


def test_two_organs_in_one_class_are_told_apart(whole: Atlas, other: Atlas) -> None:
    tissue = np.where(np.isin(whole.tissue, (11, 12)), AMBIGUOUS, whole.tissue)
    tissue[(tissue == 10) | (tissue == t.AIR)] = UNKNOWN
    part = Atlas.of("part", tissue.astype(np.uint8), MM, "s")
    ready = completed(part, donors([other]))
    before = with_body(
        Atlas.of("whole", np.where(tissue == AMBIGUOUS, whole.tissue, tissue), MM, "")
    )
    union = np.isin(before.tissue, (11, 12))
    np.testing.assert_array_equal(np.isin(ready.tissue, (11, 12)), union)
    for organ in (11, 12):
        assert (ready.tissue == organ)[before.tissue == organ].mean() > 0.6
    assert 10 in ready.organs
    assert ready.labels.max() <= 13


def test_a_field_of_bones_alone_gets_a_body_and_no_organ(whole: Atlas, other: Atlas) -> None:
    ready = completed(only(whole, BONES), [other])
    assert ready.organs == ()
    assert not np.isin(ready.tissue, (UNKNOWN, t.VISCERAL)).any()
    assert ready.labels.max() == 0


def test_nothing_to_fit_to_is_refused(whole: Atlas, other: Atlas) -> None:
    with pytest.raises(InputError, match="neither bones nor two organs") as error:
        completed(only(whole, (1,)), [other])
    assert error.value.code == "E_ORGANS"


def test_who_gives(whole: Atlas, other: Atlas) -> None:
    cut = Atlas.of("cut", other.tissue[:30], MM, "s")
    given = donors([only(whole, FIVE), cut, whole])
    assert [it.name for it in given] == ["p1"]
    assert [it.name for it in donors([cut])] == ["phantom"]


def test_scale_by_hand() -> None:
    target = np.array([[0, 0, 0], [10, 10, 10], [20, 20, 20.0]])
    scale, offset = fit_scale(target, target * [1.2, 1, 9] + [5, 0, 0])
    np.testing.assert_allclose(scale, [1.2, 1, 1.33])
    np.testing.assert_allclose((target * scale + offset).mean(axis=0), [17, 10, 90])


def test_registration_brings_organs_together(whole: Atlas, other: Atlas) -> None:
    index = register(whole, other)
    z, y, x = np.moveaxis(np.clip(index, 0, np.array(other.tissue.shape) - 1), -1, 0)
    warped = other.tissue[z, y, x]
    for organ, least in ((1, 0.85), (3, 0.75), (13, 0.7), (11, 0.5)):
        before = dice(whole.tissue == organ, other.tissue == organ)
        after = dice(whole.tissue == organ, warped == organ)
        assert after > max(before, least), organ


def test_completed_once(tmp_path: Path, whole: Atlas, other: Atlas) -> None:
    for name, atlas in (("a", only(whole, FIVE)), ("b", other)):
        ids = np.where(np.isin(atlas.tissue, (UNKNOWN, t.VISCERAL)), 0, atlas.tissue)
        (tmp_path / "maps").mkdir(exist_ok=True)
        image = nib.Nifti1Image(ids.transpose(2, 1, 0), np.diag([-6.0, -6.0, 6.0, 1.0]))
        nib.save(image, tmp_path / "maps" / f"{name}.nii.gz")
    names = {"liver": 1, "right kidney": 2, "spleen": 3, "pancreas": 4, "aorta": 5, "IVC": 6,
             "RAG": 7, "LAG": 8, "gallbladder": 9, "esophagus": 10, "stomach": 11, "duodenum": 12,
             "left kidney": 13, "bone": 23, "marrow": 36, "disc": 29, "lung": 24, "muscle": 22,
             "bowel": 25, "vein": 26, "heart": 27, "canal": 28, "colon": 37,
             "subcutaneous": 20}  # fmt: skip
    table = tmp_path / "classes.json"
    table.write_text(json.dumps(names))

    def make() -> list[str | None]:
        made = convert(
            [tmp_path / "maps"], table, tmp_path / "out", source="s", spacing_mm=6.0, complete=True
        )
        return [it.error and it.error.message for it in made]

    assert make() == [None, None]
    assert all((it.tissue != UNKNOWN).all() for it in read_atlases(tmp_path / "out"))
    file = tmp_path / "out" / "a.nii.gz"
    first = file.stat().st_mtime_ns
    assert make() == [None, None]
    assert file.stat().st_mtime_ns == first
    (tmp_path / "out" / "a.json").write_text("{}")
    assert make() == [None, None]
    assert file.stat().st_mtime_ns > first
