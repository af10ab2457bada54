import numpy as np
import pytest

from cfseg.findings.organs import find_organs, sides_cut
from cfseg.geometry import Box, Geometry
from cfseg.labels import LABELS, by_name
from cfseg.volume import LabelMap, Volume

SHAPE = (20, 24, 28)
GEOMETRY = Geometry.from_spacing(SHAPE, (5.0, 2.0, 1.0))
LIVER, SPLEEN, AORTA = by_name("liver"), by_name("spleen"), by_name("aorta")


def case():
    """Liver of 4x6x5 voxels of 10 mm3 at 50 and 70 HU, a spleen cut at the head, no aorta."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[5:9, 6:12, 10:15] = LIVER.id
    hu[5:7, 6:12, 10:15], hu[7:9, 6:12, 10:15] = 50, 70
    ids[15:18, 10:14, 20:24] = SPLEEN.id
    hu[15:18, 10:14, 20:24] = 100
    return Volume(hu, GEOMETRY), LabelMap(ids, GEOMETRY)


def organ(name, **values):
    return next(it for it in find_organs(*case(), **values) if it.label.name == name)


def test_a_whole_organ_by_hand():
    liver = organ("liver")
    assert liver.voxels == 120
    assert liver.volume_ml == liver.visible_ml == pytest.approx(1.2)
    assert (liver.density.mean_hu, liver.density.sd_hu) == (60, 10)
    assert (liver.density.least_hu, liver.density.most_hu) == (50, 70)
    assert liver.box == Box((5, 6, 10), (9, 12, 15))
    assert liver.extent_mm == (20, 12, 5)
    assert liver.centroid == (6.5, 8.5, 12)
    assert liver.cut_by == ()


def test_what_reaches_into_the_outer_slices_has_no_volume():
    spleen = organ("spleen")
    assert spleen.cut_by == ("head",)
    assert spleen.volume_ml is None
    assert spleen.visible_ml == pytest.approx(0.48)
    assert organ("spleen", border_slices=2).volume_ml == pytest.approx(0.48)


def test_an_absent_organ_has_no_volume_and_no_density():
    aorta = organ("aorta")
    assert (aorta.voxels, aorta.volume_ml, aorta.density, aorta.box) == (0, 0.0, None, None)


def test_every_label_is_listed_in_order():
    assert [it.label for it in find_organs(*case())] == list(LABELS)


@pytest.mark.parametrize(
    ("start", "stop", "sides"),
    [
        ((2, 5, 5), (9, 9, 9), ("feet",)),
        ((3, 5, 5), (18, 9, 9), ("head",)),
        ((3, 3, 3), (17, 21, 25), ()),
        ((3, 2, 3), (9, 22, 9), ("front", "back")),
        ((3, 5, 0), (9, 9, 28), ("right", "left")),
    ],
)
def test_sides(start, stop, sides):
    assert sides_cut(Box(start, stop), SHAPE) == sides


def test_volumes_of_an_oblique_scan_are_those_of_its_voxels():
    volume, label_map = case()
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    affine = GEOMETRY.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    oblique = Geometry(SHAPE, affine)
    found = find_organs(Volume(volume.hu, oblique), LabelMap(label_map.ids, oblique))
    assert found[0].volume_ml == pytest.approx(1.2)
    assert found[0].extent_mm == pytest.approx((20, 12, 5))
