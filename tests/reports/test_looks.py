from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.image import imread

from cfseg.errors import ResourceError
from cfseg.labels import IGNORE, by_name
from cfseg.reports.figures import OPACITY, overlay
from cfseg.reports.looks import (
    MOST_CASES,
    MOST_WINDOWS,
    ValidationLook,
    draw_validation,
    draw_windows,
    validation_figure,
    windows_figure,
)

LIVER, SPLEEN, TUMOR = by_name("liver"), by_name("spleen"), by_name("tumor")
SHAPE, SPACING_MM = (16, 30, 40), (4.0, 1.5, 2.0)
LEVEL = 8 / 255
"""Colors are written in steps of this size."""


def window():
    """Tissue with liver at the patient's right and spleen at the left; x runs to the left."""
    scan = np.full(SHAPE, -7, dtype=np.float32)
    scan[:, 4:26, 3:37] = 0
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[4:13, 6:22, 5:18] = LIVER.id
    labels[4:11, 10:24, 26:34] = SPLEEN.id
    return scan, labels


SCAN, LABELS = window()


def case(name="case_1", score=0.5, labels=LABELS):
    found = np.where(labels == SPLEEN.id, 0, labels).astype(np.uint8)
    return ValidationLook(name, 40 + 100 * SCAN, labels, found, SPACING_MM, score)


def tinted(label):
    return (1 - OPACITY) * 0.5 + OPACITY * np.array(label.color) / 255


GRAY = np.full(3, 0.5)


def panel(figure, label):
    (found,) = (axes for axes in figure.axes if axes.get_label() == label)
    return found


def pixel(figure, picture, label, x, y):
    """The color that a file has at a pixel of a panel's slice."""
    across, up = panel(figure, label).transData.transform((x, y))
    return picture[picture.shape[0] - 1 - int(up), int(across), :3]


def same(color):
    return pytest.approx(color, abs=1.1 * LEVEL)


def windows_of(tmp_path, scan, labels):
    """One window as a figure and as the picture in the file."""
    arguments = scan[None], labels[None], ["step 1, sample 1: a"], SPACING_MM
    file = tmp_path / "new" / "windows.png"
    draw_windows(file, *arguments)
    assert [it.name for it in file.parent.iterdir()] == [file.name]
    figure = windows_figure(*arguments)
    figure.draw_without_rendering()
    return figure, imread(file)


def test_windows_show_labels_in_their_colors_at_their_places(tmp_path):
    figure, picture = windows_of(tmp_path, SCAN, LABELS)
    # Slices through the middle of the organs of z = 7: y = 15, x = 17. Axial: x right, y down.
    assert [axes.get_title() for axes in figure.axes] == [
        "axial, z = 7", "coronal, y = 15", "sagittal, x = 17",
    ]  # fmt: skip
    for x, y, color in (
        (10, 12, tinted(LIVER)), (30, 18, tinted(SPLEEN)), (22, 8, GRAY), (1, 1, 0 * GRAY),
    ):  # fmt: skip
        assert pixel(figure, picture, "0 axial", x, y) == same(color)
    # Coronal: z is up, and the liver reaches higher.
    for x, z, color in (
        (10, 11, tinted(LIVER)), (30, 11, GRAY), (30, 6, tinted(SPLEEN)), (10, 14, GRAY),
    ):  # fmt: skip
        assert pixel(figure, picture, "0 coronal", x, z) == same(color)


def test_panels_are_turned_as_radiologists_expect_and_true_in_mm(tmp_path):
    figure, picture = windows_of(tmp_path, SCAN, LABELS)
    assert picture.shape[:2] == figure.canvas.get_width_height()[::-1]
    sizes_mm = {"0 axial": (80, 45), "0 coronal": (80, 64), "0 sagittal": (45, 64)}
    scales = []
    for axes in figure.axes:
        (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
        # The patient's left is at the right; the back is down in an axial slice, the head up.
        assert x1 > x0
        assert (y1 < y0) == (axes.get_label() == "0 axial")
        marks = {it.get_text(): it.get_window_extent().x0 for it in axes.texts}
        first, second = ("A", "P") if axes.get_label() == "0 sagittal" else ("R", "L")
        assert marks[first] < marks[second]
        box, (width_mm, height_mm) = axes.get_window_extent(), sizes_mm[axes.get_label()]
        scales += [box.width / width_mm, box.height / height_mm]
    assert scales == pytest.approx([scales[0]] * 6, rel=0.01)


def test_slices_go_through_the_tumor_or_else_the_middle():
    with_tumor = LABELS.copy()
    with_tumor[8:11, 8:11, 8:11] = TUMOR.id
    for labels, titles in (
        (with_tumor, ["axial, z = 9", "coronal, y = 9", "sagittal, x = 9"]),
        (0 * LABELS, ["axial, z = 8", "coronal, y = 15", "sagittal, x = 20"]),
        (0 * LABELS + np.uint8(IGNORE), ["axial, z = 8", "coronal, y = 15", "sagittal, x = 20"]),
    ):
        figure = windows_figure(SCAN[None], labels[None], ["a"], SPACING_MM)
        assert [axes.get_title() for axes in figure.axes] == titles


@pytest.mark.parametrize(
    ("z_score", "gray"), [(-9, 0), (-2, 0), (0, 0.5), (1, 0.75), (2, 1), (9, 1)]
)
def test_gray_is_the_same_for_all_windows(tmp_path, z_score, gray):
    figure, picture = windows_of(tmp_path, np.full_like(SCAN, z_score), 0 * LABELS)
    assert pixel(figure, picture, "0 axial", 8, 8) == same([gray] * 3)


def test_what_is_ignored_is_striped():
    ids = np.full((24, 24), IGNORE, dtype=np.uint8)
    ids[8:16, 8:16] = LIVER.id
    picture = overlay(np.full((24, 24), -1000, dtype=np.int16), ids)
    stripes = picture[ids == IGNORE].any(-1)
    assert 0.1 < stripes.mean() < 0.25
    assert np.ptp(picture[ids == IGNORE], axis=-1).max() == 0  # gray
    assert picture[8, 8] == pytest.approx(np.array(LIVER.color) / 255)
    assert picture[12, 12] == pytest.approx(OPACITY * np.array(LIVER.color) / 255)


@pytest.mark.parametrize("ignored", [True, False])
def test_the_legend_names_what_is_there(ignored):
    labels = np.where(LABELS == 0, IGNORE * ignored, LABELS).astype(np.uint8)
    for figure in (
        windows_figure(SCAN[None], labels[None], ["a"], SPACING_MM),
        validation_figure([case(labels=labels)]),
    ):
        (legend,) = figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert names == ["liver", "spleen", *["ignored"] * ignored]


def test_reference_stands_beside_prediction(tmp_path):
    file = tmp_path / "validation.png"
    draw_validation(file, [case(), case("case_2", None)])
    figure, picture = validation_figure([case(), case("case_2", None)]), imread(file)
    figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "reference, axial, z = 7", "prediction, axial, z = 7",
        "reference, coronal, y = 15", "prediction, coronal, y = 15",
    ]  # fmt: skip
    for row in (0, 1):
        for plane, at in (("axial", (30, 18)), ("coronal", (30, 6))):
            for name, color in (("reference", tinted(SPLEEN)), ("prediction", GRAY)):
                label = f"{row} {name} {plane}"
                assert pixel(figure, picture, label, *at) == same(color)
                assert pixel(figure, picture, label, 10, 11) == same(tinted(LIVER))
    assert [figure.axes[at].get_ylabel() for at in (0, 4)] == ["case_1: score 0.500", "case_2"]


def test_a_small_case_beside_a_large_one_keeps_its_proportions():
    ids = LABELS[:8, :, :20]
    small = ValidationLook("small", SCAN[:8, :, :20], ids, ids, SPACING_MM, 1.0)
    figure = validation_figure([case(), small])
    figure.draw_without_rendering()
    for name in ("reference", "prediction"):
        box = panel(figure, f"1 {name} coronal").get_window_extent()
        assert box.width / box.height == pytest.approx(40 / 32, rel=0.01)


def test_pictures_are_small_and_show_no_more_than_a_few(tmp_path, phantom):
    hu, ids = phantom.volume.hu, phantom.label_map.ids
    mm = phantom.volume.geometry.spacing_mm
    file, count = tmp_path / "a.png", MOST_WINDOWS + 1
    scan = np.stack([(hu.clip(-900, 300) - 80) / np.float32(130)] * count)
    draw_windows(file, scan, np.stack([ids] * count), ["a"] * count, mm)
    assert 100_000 < file.stat().st_size < 300_000
    assert len(windows_figure(scan, np.stack([ids] * count), ["a"] * count, mm).axes) == 12
    cases = [ValidationLook("a", hu, ids, ids, mm, 1.0)] * (MOST_CASES + 1)
    draw_validation(file, cases)
    assert 100_000 < file.stat().st_size < 300_000
    assert len(validation_figure(cases).axes) == 12


def test_captions_of_others_are_shown_as_they_are_and_fit():
    hostile = "漢字 $x_{2$ \x1b[31m " + "long_name_" * 30
    for figure in (
        windows_figure(SCAN[None], LABELS[None], [hostile], SPACING_MM),
        validation_figure([case(hostile)]),
    ):
        figure.draw_without_rendering()
        caption = figure.axes[0].yaxis.label
        words = caption.get_text().split()
        assert words[:3] == [r"\u6f22\u5b57", "$x_{2$", r"\x1b[31m"]
        box = caption.get_window_extent()
        assert box.x0 >= 0
        assert box.height <= max(axes.get_window_extent().height for axes in figure.axes)


def test_threads_draw_the_same_picture(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda file: draw_validation(file, [case()]), files))
    assert len({file.read_bytes() for file in files}) == 1


def test_refuses_what_does_not_fit_and_says_where_it_cannot_write(tmp_path):
    file = tmp_path / "a.png"
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_validation(file, [])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_windows(file, SCAN[None][:0], LABELS[None][:0], [], SPACING_MM)
    with pytest.raises(ValueError, match="zip"):
        draw_windows(file, SCAN[None], LABELS[None], [], SPACING_MM)
    with pytest.raises(ValueError, match="shape"):
        draw_windows(file, SCAN[None, 1:], LABELS[None], ["a"], SPACING_MM)
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        draw_validation(tmp_path / "file" / "a.png", [case()])
    assert [it.name for it in tmp_path.iterdir()] == ["file"]
