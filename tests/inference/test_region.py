import numpy as np

from cfseg.geometry import Box, Geometry
from cfseg.inference.region import abdominal_region, cut_sides, near_liver
from cfseg.recipes.recipe import Region
from cfseg.volume import LabelMap

SHAPE = (20, 24, 28)
BODY = Box((0, 2, 2), (20, 22, 26))
GRID = Geometry.from_spacing(SHAPE, (10.0, 10.0, 10.0))


def label_map(**boxes: tuple[int, Box]) -> LabelMap:
    found = LabelMap.empty(GRID)
    for label, box in boxes.values():
        found.ids[box.slices] = label
    return found


LIVER = (1, Box((8, 8, 8), (14, 14, 14)))


def test_region_is_the_box_of_the_organs_with_a_margin() -> None:
    box, notes = abdominal_region(label_map(liver=LIVER), BODY, Region(margin_mm=20))
    assert box == Box((6, 6, 6), (16, 16, 16))
    assert notes == []


def test_ignored_organs_and_tumors_do_not_count() -> None:
    coarse = label_map(liver=LIVER, far=(12, Box((0, 0, 0), (2, 2, 2))))
    tumor = label_map(liver=LIVER, far=(14, Box((0, 0, 0), (2, 2, 2))))
    expected = Box((8, 8, 8), (14, 14, 14))
    assert abdominal_region(coarse, BODY, Region(margin_mm=0, ignore=(12,)))[0] == expected
    assert abdominal_region(tumor, BODY, Region(margin_mm=0))[0] == expected


def test_no_organ_no_region() -> None:
    box, (note,) = abdominal_region(LabelMap.empty(GRID), BODY, Region())
    assert box is None
    assert note.startswith("no_abdomen")


def test_an_implausible_mask_gives_the_body() -> None:
    tiny = label_map(liver=(1, Box((0, 5, 5), (1, 6, 14))))
    huge = label_map(liver=(1, BODY))
    for coarse in (tiny, huge):
        box, (note,) = abdominal_region(coarse, BODY, Region())
        assert box == BODY
        assert note.startswith("region_implausible")


def test_parts_far_from_the_liver_can_be_dropped() -> None:
    coarse = label_map(liver=LIVER, far=(3, Box((0, 0, 24), (2, 2, 28))))
    kept = near_liver(coarse.ids > 0, coarse, (60.0, 60.0, 60.0))
    assert Box.around(kept) == LIVER[1]
    assert near_liver(coarse.ids > 0, coarse, (900.0, 900.0, 900.0)).sum() == 6**3 + 16
    without = label_map(far=(3, Box((0, 0, 24), (2, 2, 28))))
    assert near_liver(without.ids > 0, without, (1.0, 1.0, 1.0)).sum() == 16


def test_region_grows_only_on_cut_sides_and_within_the_body() -> None:
    region = Box((8, 8, 8), (14, 14, 14))
    ids = np.zeros(region.shape, dtype=np.uint8)
    assert cut_sides(ids, region, BODY) is None
    ids[0, 3, 3] = 1
    ids[3, 3, -1] = 1
    assert cut_sides(ids, region, BODY) == Box((5, 8, 8), (14, 14, 17))


def test_a_mask_that_ends_with_the_body_is_not_cut() -> None:
    ids = np.ones(BODY.shape, dtype=np.uint8)
    assert cut_sides(ids, BODY, BODY) is None
