"""The report in a headless Chromium with WebGL by software."""

import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import distance_transform_edt
from small_outputs import LIVER_AT, SPACING_MM, SPLEEN_AT, small_output
from typer.testing import CliRunner

from cfseg.cli.root import app
from cfseg.labels import by_name
from cfseg.reports.report import write_report

pytest.importorskip("websocket", reason="websocket-client is not installed")
from browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
OPACITY = 0.45
HOSTILE = '"><img src=x onerror=alert(1)>'

PIXELS = """
(() => {
  const nv = window.shown;
  nv.drawScene();
  const { width, height } = nv.gl.canvas;
  const rgba = new Uint8Array(4 * width * height);
  nv.gl.readPixels(0, 0, width, height, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, rgba);
  return { width, height, rgba };
})()
"""


def place(index):
    """Return a voxel's millimeters as NIfTI has them: right, front, up."""
    x, y, z = (SPACING_MM * i for i in index)
    return [-x, -y, z]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    out = small_output(folder, notes=[HOSTILE], notice=HOSTILE)
    return write_report(out, folder / "reference").pages["one"]


@pytest.fixture(scope="module")
def browser(page):
    with Browser(900, 700) as tab:
        open_viewer(tab, page)
        yield tab


@pytest.fixture
def axial(browser):
    """The viewer with one axial slice through liver and spleen, reference hidden."""
    browser.run("document.querySelector('[data-layout=axial]').click()")
    go_to(browser, (20, 12, 12))
    check(browser, "[data-map=reference]", on=False)
    return browser


def open_viewer(tab, page):
    tab.open(page)
    assert tab.run("cfsegViewer.then(nv => { window.shown = nv; return nv !== null; })")


def go_to(tab, index):
    go_to_mm(tab, place(index))


def go_to_mm(tab, mm):
    tab.run(f"shown.scene.crosshairPos = shown.mm2frac({mm}), shown.createOnLocationChange()")


def check(tab, selector, *, on):
    wanted = str(on).lower()
    tab.run(
        f"(box => {{ if (box.checked !== {wanted}) box.click(); }})"
        f"(document.querySelector('{selector}'))"
    )


def canvas_of(tab) -> np.ndarray:
    """Return what the canvas shows, (H, W, 3), 0..1, the first row at the top."""
    found = tab.run(PIXELS.replace("rgba };", "rgba: Array.from(rgba) };"))
    rgba = np.array(found["rgba"], dtype=float).reshape(found["height"], found["width"], 4)
    return rgba[::-1, :, :3] / 255


def pixel_of(tab, index) -> tuple[int, int]:
    """Return the canvas pixel (row, column) that the viewer's own hit test puts at a voxel."""
    column, row = tab.run(
        f"""(() => {{
          const target = shown.mm2frac({place(index)});
          let best = [0, 0], least = Infinity;
          for (let y = 0; y < shown.gl.canvas.height; y += 2)
            for (let x = 0; x < shown.gl.canvas.width; x += 2) {{
              const frac = shown.canvasPos2frac([x, y]);
              const away = Math.hypot(...[0, 1, 2].map(i => frac[i] - target[i]));
              if (frac[0] >= 0 && away < least) {{ least = away; best = [x, y]; }}
            }}
          return best;
        }})()"""
    )
    return row, column


def tinted(name: str) -> np.ndarray:
    """Return 40 HU in the window 40/400, under a label's color."""
    return (1 - OPACITY) * 0.5 + OPACITY * np.array(by_name(name).color) / 255


def test_the_canvas_is_not_blank(axial):
    shown = canvas_of(axial)
    assert shown.std() > 0.1
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20


def test_a_known_label_has_its_color_at_a_known_place(axial):
    shown = canvas_of(axial)
    for name, index in (("liver", LIVER_AT), ("spleen", SPLEEN_AT)):
        row, column = pixel_of(axial, index)
        assert shown[row, column] == pytest.approx(tinted(name), abs=0.06)


def test_right_is_on_the_left_and_marked(axial):
    """By color, not by the viewer's own coordinates: the liver of this patient is on the right."""
    shown = canvas_of(axial)
    columns = {}
    for name in ("liver", "spleen"):
        near = np.abs(shown - tinted(name)).max(axis=2) < 0.06
        assert near.sum() > 200
        columns[name] = np.nonzero(near)[1].mean()
    middle = shown.shape[1] / 2
    assert columns["liver"] < middle < columns["spleen"]
    assert axial.run("shown.opts.isRadiologicalConvention && shown.opts.isOrientationTextVisible")


def test_toggling_a_label_takes_its_color_away_and_gives_it_back(axial):
    row, column = pixel_of(axial, LIVER_AT)
    before = canvas_of(axial)
    check(axial, '[data-label="1"]', on=False)
    without = canvas_of(axial)
    assert without[row, column] == pytest.approx([0.5] * 3, abs=0.04)
    spleen = pixel_of(axial, SPLEEN_AT)
    assert without[spleen] == pytest.approx(before[spleen])
    check(axial, '[data-label="1"]', on=True)
    assert canvas_of(axial)[row, column] == pytest.approx(before[row, column])


def test_masks_windows_and_keys(axial):
    row, column = pixel_of(axial, LIVER_AT)
    press = "document.getElementById('canvas').focus();" + (
        "document.getElementById('canvas').dispatchEvent("
        "new KeyboardEvent('keydown', {key: '%s', bubbles: true, cancelable: true}))"
    )
    axial.run(press % "h")
    assert canvas_of(axial)[row, column] == pytest.approx([0.5] * 3, abs=0.04)
    axial.run(press % "3")  # bone: 40 HU is at (40 + 500) / 1800
    assert canvas_of(axial)[row, column] == pytest.approx([0.3] * 3, abs=0.04)
    axial.run(press % "1")
    axial.run(press % "h")
    assert canvas_of(axial)[row, column] == pytest.approx(tinted("liver"), abs=0.06)
    before = axial.run("document.getElementById('place').textContent")
    axial.run(press % "ArrowUp")
    after = axial.run("document.getElementById('place').textContent")
    assert (before.split(" · ")[0], after.split(" · ")[0]) == ("z = 12", "z = 13")


def test_the_readout_names_what_is_under_the_crosshair(axial):
    go_to(axial, LIVER_AT)
    text = axial.run("document.getElementById('place').textContent")
    assert text == "z = 12 · ≈ 40 HU · prediction: liver · reference: liver"
    go_to(axial, (29, 18, 12))
    text = axial.run("document.getElementById('place').textContent")
    assert text.endswith("prediction: – · reference: spleen")


def test_the_reference_is_an_outline(axial):
    """Where the prediction misses a part of the spleen, its reference shows only a border."""
    go_to(axial, (20, 12, 12))
    check(axial, "[data-map=reference]", on=True)
    shown = canvas_of(axial)
    border, inside = pixel_of(axial, (28, 18, 12)), pixel_of(axial, (30, 18, 12))
    # The spleen's violet has far more blue than green; inside there is only the gray of the CT.
    assert shown[border][2] - shown[border][1] > 0.1
    assert shown[inside] == pytest.approx([0.5] * 3, abs=0.04)


def test_no_request_leaves_and_nothing_is_refused(browser, page):
    others = [url for url in browser.asked_for if not url.startswith("data:")]
    assert others == [page.resolve().as_uri()]
    assert browser.complaints == []
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    assert not [it for it in browser.events if it["method"] == "Page.javascriptDialogOpening"]


def test_without_scripts_the_pictures_are_there(page):
    with Browser(900, 700, scripts=False) as tab:
        tab.open(page)
        assert tab.run("typeof window.cfsegViewer") == "undefined"
        assert tab.run("document.getElementById('viewer').offsetHeight") == 0
        widths = tab.run("Array.from(document.images).map(image => image.naturalWidth)")
        assert len(widths) == 3
        assert min(widths) > 300
        top = tab.run("document.images[0].getBoundingClientRect().top")
        tab.run(f"window.scrollTo(0, {top})")
        shown = imread(io.BytesIO(tab.screenshot()))
        assert shown[:400].std() > 0.1


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The folder that ``cfseg demo`` leaves, with the bundled model."""
    out = tmp_path_factory.mktemp("demo")
    result = CliRunner().invoke(app, ["demo", "-o", str(out), "--threads", "1"])
    assert result.exit_code == 0, result.output
    return out


def deep_inside(label_map: nib.Nifti1Image, name: str) -> list[float]:
    """Return where (mm: right, front, up) a label's mask is thickest."""
    depth = distance_transform_edt(np.asarray(label_map.dataobj) == by_name(name).id)
    voxel = np.unravel_index(np.argmax(depth), depth.shape)
    return [float(mm) for mm in (label_map.affine @ [*voxel, 1])[:3]]


def test_the_demo_shows_each_organ_in_its_color_and_on_its_side(demo):
    (page,) = (demo / "report" / "cases").glob("*.html")
    (mask,) = (demo / "prediction").glob("*.nii.gz")
    label_map = nib.load(mask)
    with Browser(900, 700) as tab:
        open_viewer(tab, page)
        tab.run("document.querySelector('[data-layout=axial]').click()")
        check(tab, "[data-map=reference]", on=False)
        columns = {}
        for name in ("liver", "spleen"):
            go_to_mm(tab, deep_inside(label_map, name))
            text = tab.run("document.getElementById('place').textContent")
            assert f"prediction: {name} · reference: {name}" in text
            toggle = f'[data-label="{by_name(name).id}"]'
            colored = canvas_of(tab)
            check(tab, toggle, on=False)
            plain = canvas_of(tab)
            check(tab, toggle, on=True)
            changed = np.abs(colored - plain).max(axis=2) > 0.02
            assert changed.sum() > 500
            columns[name] = np.nonzero(changed)[1].mean()
            # color = (1 - opacity) * gray + opacity * label's
            hue = (colored - (1 - OPACITY) * plain)[changed] / OPACITY
            assert np.median(hue, axis=0) == pytest.approx(
                np.array(by_name(name).color) / 255, abs=0.06
            )
        assert columns["liver"] < colored.shape[1] / 2 < columns["spleen"]
        others = [url for url in tab.asked_for if not url.startswith("data:")]
        assert others == [page.resolve().as_uri()]
        assert tab.complaints == []
