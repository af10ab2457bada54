"""N17, N18, N25, N27: which values can be Hounsfield units, over many rescalings of many CTs."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cfseg.errors import InputError
from cfseg.io import read_scan
from cfseg.io.hounsfield import check_hu

REAL = Path(os.environ.get("CFSEG_REAL_CT", "/nowhere"))
RANGES = [(0, 1), (-1, 1), (0, 255), (0.5, 255.5), (-128, 127), (-127.5, 127.5), (0, 65535)]
WINDOWS = {
    "whole": lambda hu: (hu.min(), hu.max()),
    "percentiles": lambda hu: tuple(np.percentile(hu, [0.5, 99.5])),
    "12 bits": lambda _: (-1024, 3071),
    "wide": lambda _: (-1000, 1000),
}


@pytest.fixture(scope="module")
def parts(phantom) -> dict[str, np.ndarray]:
    """A CT, and what is left of it where the field of view ends elsewhere."""
    hu, ids = phantom.volume.hu[::2, ::2, ::2], phantom.label_map.ids[::2, ::2, ::2]
    z, y, x = (slice(w.min(), w.max() + 1) for w in np.nonzero(ids == 1))
    middle = [int(w.mean()) for w in np.nonzero(ids == 1)]
    lung = np.random.default_rng(0).normal(-850, 60, (20, 30, 30))
    lung[:, ::7, ::5] = 40  # vessels
    return {
        "whole": hu,
        "upper end": hu[-12:],
        "box of the liver": hu[z, y, x],
        "inside the liver": hu[tuple(slice(m - 4, m + 4) for m in middle)],
        "lung": lung.round().astype(np.int16),
    }


def rescaled(hu: np.ndarray, window: tuple[float, float], to: tuple[float, float]) -> np.ndarray:
    low, high = window
    unit = (np.clip(hu.astype(np.float64), low, high) - low) / (high - low)
    return (unit * (to[1] - to[0]) + to[0]).astype(np.float32)


def verdict(values: np.ndarray) -> str:
    try:
        notes = check_hu(values)
    except InputError as error:
        return "refused" if error.code == "E_NOT_HU" else error.code
    return "noted" if any(note.startswith("narrow_window") for note in notes) else "accepted"


@pytest.mark.parametrize("part", ["whole", "upper end", "box of the liver", "lung"])
@pytest.mark.parametrize("window", WINDOWS)
def test_n18_a_rescaled_ct_is_refused(parts, part: str, window: str):
    hu = parts[part]
    for to in RANGES:
        values = rescaled(hu, WINDOWS[window](hu), to)
        whole = [np.rint(values)] if to[1] - to[0] > 2 else []
        for stored in (values, *whole):
            assert verdict(stored) == "refused", to


@pytest.mark.parametrize("part", ["whole", "upper end", "box of the liver", "inside the liver"])
@pytest.mark.parametrize("of", ["all voxels", "the body", "the body alone"])
def test_n18_z_scores_are_refused(parts, part: str, of: str):
    hu = parts[part].astype(np.float64)
    body = hu[hu > -500] if of != "all voxels" else hu
    scores = (hu - body.mean()) / body.std()
    if of == "the body alone":
        scores = np.where(hu > -500, scores, 0)
    assert verdict(scores.astype(np.float32)) == "refused"


def test_n18_the_ranges_that_once_passed(phantom):
    """What was measured on a CT: scores of the foreground, and bytes with a shift."""
    hu = phantom.volume.hu.astype(np.float64)
    scores = ((hu - 40) / 90).astype(np.float32)
    assert scores.min() < -11
    assert scores.max() > 5
    assert verdict(scores) == "refused"
    assert verdict(rescaled(hu, (-160, 240), (0, 255)) + np.float32(0.5)) == "refused"
    signed = rescaled(hu, (-1024, 1500), (-128, 127)).astype(np.int8).astype(np.int16)
    assert verdict(signed) == "refused"


@pytest.mark.parametrize("window", [(-128, 127), (-160, 240), (-150, 250), (-200, 300)], ids=str)
@pytest.mark.parametrize("part", ["whole", "upper end"])
def test_n18_a_clipped_ct_in_hu_is_noted(parts, part: str, window: tuple[int, int]):
    assert verdict(np.clip(parts[part], *window)) == "noted"


@pytest.mark.parametrize("window", [(-1000, 1000), (-1024, 600), (-900, 400)], ids=str)
def test_a_window_that_holds_air_is_wide_enough(parts, window: tuple[int, int]):
    assert verdict(np.clip(parts["whole"], *window)) == "accepted"


def test_n25_every_part_of_a_ct_is_accepted(parts):
    for name, hu in parts.items():
        assert verdict(hu) == "accepted", name
        assert verdict(hu.astype(np.float32) + np.float32(0.25)) == "accepted", name


@pytest.mark.parametrize("level", [-1024, -1000, 0, 40, 1000])
@pytest.mark.parametrize("noise", [0, 5, 20])
def test_n25_one_thing_and_noise_is_accepted(level: int, noise: int):
    rng = np.random.default_rng(level + 2000)
    assert verdict((level + rng.normal(0, noise, (30, 30, 30))).astype(np.float32)) == "accepted"


def test_n16_padding_of_one_value_is_no_reason(parts):
    for padding in (-2000, -3024, -32768):
        hu = parts["whole"].copy()
        hu[:, :, :60] = padding
        assert verdict(hu) == "accepted"


def test_n18_a_stretch_over_16_bits_is_no_padding(parts):
    for part in ("whole", "box of the liver"):
        hu = parts[part]
        assert verdict(rescaled(hu, WINDOWS["12 bits"](hu), (-32768, 32767))) == "refused"


@pytest.mark.parametrize("value", [3071, 3072, 20000])
def test_n27_an_implant_in_a_wide_field_of_view_is_noted(phantom, value: int):
    """1.5 % of what was scanned: clipped at 12 bits or not, and whatever lies around it."""
    hu = np.pad(phantom.volume.hu, ((0, 0), (40, 40), (40, 40)), constant_values=-1024)
    scanned = np.flatnonzero(hu > -1024)
    assert 0.015 * scanned.size < 0.01 * hu.size
    hu.ravel()[scanned[: int(0.015 * scanned.size)]] = value
    (note,) = (note for note in check_hu(hu) if note.startswith("metal_clamped"))
    assert "1.5% of the voxels at 3071 HU or above" in note


def test_a_large_volume_is_judged_by_a_part_of_its_voxels():
    rng = np.random.default_rng(0)
    small = np.where(rng.random((40, 40, 40)) < 0.5, -1000, 40) + rng.normal(0, 9, (40, 40, 40))
    large = np.tile(small.clip(-1024).astype(np.int16), (4, 4, 4))
    large[0, 0, 0] = -3000
    assert check_hu(large) == ("padding_clamped: 1 voxels below -1024 HU, the lowest -3000",)
    with pytest.raises(InputError):
        check_hu(np.tile(rescaled(small, (-1024, 300), (0, 255)), (4, 4, 4)))


@cache
def real(name: str) -> np.ndarray:
    return read_scan(REAL / name).volume.hu[:, ::3, ::3]


@pytest.mark.skipif(not REAL.is_dir(), reason="CFSEG_REAL_CT names no folder of real scans")
@pytest.mark.parametrize(
    "name", ["tcga-ov/ct_2mm.nii.gz", "ts-neck/ct.nii.gz", "ts-example/ct.nii.gz"]
)
def test_real_scans_are_accepted_and_rescaled_ones_are_not(name: str):
    hu = real(name)
    assert verdict(hu) == "accepted"
    for low, high in ((-128, 127), (-160, 240), (-200, 300)):
        assert verdict(np.clip(hu, low, high)) == "noted"
    for to in RANGES:
        for window in WINDOWS.values():
            assert verdict(rescaled(hu, window(hu), to)) == "refused"


@pytest.mark.skipif(not REAL.is_dir(), reason="CFSEG_REAL_CT names no folder of real scans")
def test_n25_a_real_head_is_accepted():
    assert verdict(real("ts-neck/ct.nii.gz")[60:]) == "accepted"
