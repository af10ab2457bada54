import numpy as np
import pytest
from matplotlib.image import imread

from cfseg.errors import ResourceError
from cfseg.geometry import Geometry
from cfseg.labels import LABELS, by_name
from cfseg.reports.figures import DPI, OPACITY, draw_montage, montage, overlay
from cfseg.reports.places import viewpoint
from cfseg.volume import LabelMap, Volume

SHAPE = (20, 30, 40)
GEOMETRY = Geometry.from_spacing(SHAPE, (5.0, 2.0, 1.5))
LIVER, SPLEEN, TUMOR = by_name("liver"), by_name("spleen"), by_name("tumor")


def case():
    """A patient of soft tissue with liver on the right, spleen on the left, a tumor in the liver.

    x runs to the patient's left, so the liver has small x.
    """
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:26, 3:37] = 40
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[4:16, 6:22, 5:18] = LIVER.id
    ids[4:14, 10:24, 26:34] = SPLEEN.id
    ids[8:13, 10:16, 8:14] = TUMOR.id
    return Volume(hu, GEOMETRY), LabelMap(ids, GEOMETRY)


def pixel(figure, image, row, plane, x, y):
    """The color in the file at a pixel of a panel's slice."""
    figure.canvas.draw()
    (axes,) = [a for a in figure.axes if a.get_label() == f"{row} {plane}"]
    across, up = axes.transData.transform((x, y)) * DPI / figure.dpi
    return image[image.shape[0] - 1 - int(up), int(across), :3]


def tinted(label, hu=40):
    gray = (hu - (40 - 200)) / 400
    return (1 - OPACITY) * gray + OPACITY * np.array(label.color) / 255


def test_file_shows_labels_in_their_colors_at_their_places(tmp_path):
    volume, reference = case()
    prediction = LabelMap(np.where(reference.ids == SPLEEN.id, 0, reference.ids), GEOMETRY)
    path = tmp_path / "new" / "montage.png"
    montage(volume, prediction, reference, path, title="case 1")
    assert [p.name for p in path.parent.iterdir()] == ["montage.png"]
    image = imread(path)
    figure = draw_montage(volume, prediction, reference, "case 1")
    plain = np.full(3, 0.5)
    for row, in_spleen in (("reference", tinted(SPLEEN)), ("prediction", plain)):
        # Axial, from below: x to the right, y down.
        look = {
            (15, 18): tinted(LIVER),
            (10, 12): tinted(TUMOR),
            (30, 18): in_spleen,
            (22, 20): plain,
            (1, 1): np.zeros(3),
        }
        for (x, y), color in look.items():
            assert pixel(figure, image, row, "axial", x, y) == pytest.approx(color, abs=0.01)
        # Coronal and sagittal: z upwards, so slice 6 lies under the tumor.
        assert pixel(figure, image, row, "coronal", 10, 10) == pytest.approx(
            tinted(TUMOR), abs=0.01
        )
        assert pixel(figure, image, row, "coronal", 10, 6) == pytest.approx(tinted(LIVER), abs=0.01)
        assert pixel(figure, image, row, "sagittal", 18, 10) == pytest.approx(
            tinted(LIVER), abs=0.01
        )


def test_panels_are_turned_and_marked_as_radiologists_expect():
    volume, reference = case()
    figure = draw_montage(volume, reference, reference)
    figure.canvas.draw()
    assert len(figure.axes) == 6
    for axes in figure.axes:
        plane = axes.get_label().split()[1]
        marks = {t.get_text(): t.get_window_extent().x0 for t in axes.texts}
        first, second = ("A", "P") if plane == "sagittal" else ("R", "L")
        assert marks[first] < marks[second]
        (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
        assert x1 > x0
        # The back is at the bottom of an axial slice, the head at the top of the others.
        assert (y1 < y0) == (plane == "axial")


def test_panels_have_the_true_proportions_in_mm():
    volume, reference = case()
    figure = draw_montage(volume, reference, None)
    figure.canvas.draw()
    assert [axes.get_label() for axes in figure.axes] == [
        "prediction axial",
        "prediction coronal",
        "prediction sagittal",
    ]
    sizes_mm = {"axial": (40 * 1.5, 30 * 2), "coronal": (40 * 1.5, 20 * 5), "sagittal": (60, 100)}
    for axes in figure.axes:
        box = axes.get_window_extent()
        width_mm, height_mm = sizes_mm[axes.get_label().split()[1]]
        assert box.width / box.height == pytest.approx(width_mm / height_mm, rel=0.01)


def test_legend_names_the_labels_that_are_present():
    volume, reference = case()
    (legend,) = draw_montage(volume, reference, None).legends
    assert [text.get_text() for text in legend.get_texts()] == ["liver", "spleen", "tumor"]


def test_an_empty_prediction_is_drawn_without_a_legend(tmp_path):
    volume, _ = case()
    empty = LabelMap.empty(GEOMETRY)
    assert draw_montage(volume, empty, None).legends == []
    montage(volume, empty, None, tmp_path / "m.png")
    assert imread(tmp_path / "m.png").std() > 0.05


def test_viewpoint_is_the_largest_tumor_of_the_reference_first():
    _, reference = case()
    empty = LabelMap.empty(GEOMETRY)
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[2, 2:5, 2:5] = TUMOR.id
    ids[15:18, 20:25, 30:35] = TUMOR.id
    prediction = LabelMap(ids, GEOMETRY)
    assert viewpoint(reference, prediction) == (10, 12, 10)
    assert viewpoint(empty, prediction) == (16, 22, 32)
    organs = np.where(reference.ids == TUMOR.id, 0, reference.ids).astype(np.uint8)
    assert viewpoint(LabelMap(organs, GEOMETRY), prediction) != (16, 22, 32)
    assert viewpoint(empty, empty) == (10, 15, 20)


def test_viewpoint_without_a_tumor_shows_most_organs():
    _, reference = case()
    organs = np.where(reference.ids == TUMOR.id, LIVER.id, reference.ids).astype(np.uint8)
    organs[5, 25, 20] = by_name("aorta").id
    z, y, x = viewpoint(LabelMap(organs, GEOMETRY))
    assert z == 5
    assert 12 <= y <= 16
    assert 15 <= x <= 22


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.name)
def test_overlay_draws_opaque_outlines_around_translucent_labels(label):
    ids = np.zeros((9, 9), dtype=np.uint8)
    ids[2:7, 2:7] = label.id
    picture = overlay(np.full((9, 9), 40, dtype=np.int16), ids)
    color = np.array(label.color) / 255
    assert picture[2, 4] == pytest.approx(color)
    assert picture[4, 4] == pytest.approx(tinted(label))
    assert picture[0, 0] == pytest.approx([0.5] * 3)


@pytest.mark.parametrize(("hu", "gray"), [(-1000, 0), (-160, 0), (40, 0.5), (240, 1), (3000, 1)])
def test_window_is_40_400(hu, gray):
    picture = overlay(np.full((1, 1), hu, dtype=np.float32), np.zeros((1, 1), dtype=np.uint8))
    assert picture[0, 0] == pytest.approx([gray] * 3)


def test_refuses_another_grid_and_says_where_it_cannot_write(tmp_path):
    volume, reference = case()
    with pytest.raises(ValueError, match="shape"):
        montage(
            volume, reference, LabelMap.empty(Geometry.from_spacing((2, 2, 2), (1, 1, 1))), tmp_path
        )
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        montage(volume, reference, None, tmp_path / "file" / "m.png")
