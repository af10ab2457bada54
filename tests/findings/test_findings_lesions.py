import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cfseg.findings.lesions import contact_mm2, find_lesions
from cfseg.geometry import Box, Geometry
from cfseg.labels import ORGAN_IDS, TUMOR, by_name
from cfseg.volume import LabelMap, Volume

SHAPE = (24, 30, 40)
GEOMETRY = Geometry.from_spacing(SHAPE, (4.0, 2.0, 1.0))
LIVER, SPLEEN, STOMACH = by_name("liver"), by_name("spleen"), by_name("stomach")


def case():
    """Four lesions: deep in the liver, hanging on the spleen, apart from all, at the feet."""
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[4:18, 4:20, 4:18] = LIVER.id
    ids[6:12, 8:20, 28:34] = SPLEEN.id
    ids[8:12, 8:14, 8:14] = TUMOR.id
    ids[7:10, 10:14, 34:38] = TUMOR.id
    ids[20:22, 22:24, 22:25] = TUMOR.id
    ids[0, 25, 5] = TUMOR.id
    hu = np.full(SHAPE, 60, dtype=np.int16)
    hu[8:12, 8:14, 8:14] = 20
    hu[8:10, 8:14, 8:14] = 30
    return Volume(hu, GEOMETRY), LabelMap(ids, GEOMETRY)


def test_lesions_by_hand():
    deep, hanging, apart, cut = find_lesions(*case())
    assert [it.voxels for it in (deep, hanging, apart, cut)] == [144, 48, 12, 1]
    assert [it.number for it in (deep, hanging, apart, cut)] == [1, 2, 3, 4]
    assert deep.volume_ml == pytest.approx(144 * 8 / 1000)
    assert (deep.density.mean_hu, deep.density.sd_hu) == (25, 5)
    assert deep.box == Box((8, 8, 8), (12, 14, 14))
    assert deep.centroid == (9.5, 10.5, 10.5)
    # Six voxels of 2 mm by six of 1 mm: between the middles of the short sides' outermost edges.
    assert deep.diameters.longest_mm == pytest.approx(np.hypot(12, 5))
    assert deep.diameters.slice == 8
    assert (deep.host, deep.nearest, deep.nearest_mm) == ("liver", "liver", 0)
    assert cut.cut_by == ("feet",)
    assert cut.volume_ml is None
    assert cut.visible_ml == pytest.approx(0.008)


def test_the_ends_of_a_diameter_lie_in_the_scan_not_in_the_box():
    deep = find_lesions(*case())[0]
    (y0, x0), (y1, x1) = deep.diameters.ends
    assert {y0, y1} == {7.5, 13.5}
    assert {x0, x1} == {8, 13}


def test_host_is_the_organ_that_covers_enough_of_the_surface():
    hanging = find_lesions(*case())[1]
    # Faces of 3x4 voxels towards the spleen, 8 mm2 each; surface by the three pairs of sides.
    shares = 96 / (2 * (3 * 4 * 8 + 3 * 4 * 4 + 4 * 4 * 2))
    assert shares == pytest.approx(0.27, abs=0.01)
    assert hanging.host == "spleen"
    assert find_lesions(*case(), host_share=0.3)[1].host is None
    assert find_lesions(*case(), host_share=0.3)[1].nearest == "spleen"


def test_nearest_organ_of_a_lesion_apart():
    apart = find_lesions(*case())[2]
    # Liver ends at (17, 19, 17): 3 slices of 4 mm, 3 rows of 2 mm, 5 columns of 1 mm away.
    assert apart.host is None
    assert apart.nearest == "liver"
    assert apart.nearest_mm == pytest.approx(np.sqrt(12**2 + 6**2 + 5**2))


def test_without_organs_there_is_no_nearest():
    volume, label_map = case()
    ids = np.where(label_map.ids == TUMOR.id, label_map.ids, 0).astype(np.uint8)
    found = find_lesions(volume, LabelMap(ids, GEOMETRY))
    assert [(it.host, it.nearest, it.nearest_mm) for it in found] == [(None, None, None)] * 4


def test_lesions_that_touch_by_a_corner_are_one():
    ids = np.zeros((8, 8, 8), dtype=np.uint8)
    ids[3, 3, 3] = ids[4, 4, 4] = TUMOR.id
    grid = Geometry.from_spacing((8, 8, 8), (1.0, 1.0, 1.0))
    hu = np.zeros((8, 8, 8), dtype=np.int16)
    assert len(find_lesions(Volume(hu, grid), LabelMap(ids, grid))) == 1


def slow_contact(mask, ids, geometry):
    area = np.zeros(15)
    steps = [(s, a) for a in range(3) for s in (1, -1)]
    for place in np.argwhere(mask):
        for step, axis in steps:
            other = place.copy()
            other[axis] += step
            if (other < 0).any() or (other >= mask.shape).any() or mask[tuple(other)]:
                continue
            face = np.prod([mm for a, mm in enumerate(geometry.spacing_mm) if a != axis])
            area[ids[tuple(other)]] += face
    return area


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_contact_agrees_with_counting_faces(seed):
    rng = np.random.default_rng(seed)
    ids = rng.choice([0, 1, 3, 14], size=(4, 5, 6)).astype(np.uint8)
    geometry = Geometry.from_spacing((4, 5, 6), (3.0, 2.0, 0.5))
    mask = ids == TUMOR.id
    found = contact_mm2(mask, ids, geometry)
    assert found == pytest.approx(slow_contact(mask, ids, geometry))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_nearest_agrees_with_a_distance_transform(seed):
    rng = np.random.default_rng(seed)
    ids = np.zeros((9, 10, 11), dtype=np.uint8)
    for organ in rng.choice(ORGAN_IDS, size=3, replace=False):
        ids[tuple(rng.integers(0, 4, 3))] = organ
    ids[7:, 8:, 9:] = TUMOR.id
    grid = Geometry.from_spacing((9, 10, 11), (2.5, 1.0, 0.7))
    hu = np.zeros((9, 10, 11), dtype=np.int16)
    (lesion,) = find_lesions(Volume(hu, grid), LabelMap(ids, grid))
    organs = np.isin(ids, ORGAN_IDS)
    away = ndimage.distance_transform_edt(~organs, sampling=(2.5, 1.0, 0.7))
    assert lesion.nearest_mm == pytest.approx(away[ids == TUMOR.id].min())
