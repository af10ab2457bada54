"""The anatomy is right: sides, neighbors, volumes, nothing missing, nothing outside of the body."""

import json

import numpy as np
import pytest
from realism import (
    LOWEST_HU,
    average_map,
    class_histograms,
    dice_from_average,
    dice_from_hu,
    foreground,
    mean_organ_dice,
    noise_sd,
)
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from cfseg.labels import NAMES, ORGAN_IDS
from cfseg.phantoms.phantom import Phantom, PhantomSpec, generate

# Range of each volume, ml: mean -+ 2.5 standard deviations between patients, or for lognormal
# ones (stomach, gallbladder) the range of the literature; tumors may replace part of an organ.
VOLUME_RANGE_ML = {
    "liver": (625, 2375),
    "right_kidney": (70, 270),
    "spleen": (40, 420),
    "pancreas": (17, 145),
    "right_adrenal_gland": (1.0, 7.5),
    "left_adrenal_gland": (1.0, 8.5),
    "stomach": (50, 1000),
    "duodenum": (10, 117),
    "left_kidney": (70, 270),
}


def centroid_mm(phantom: Phantom, name: str) -> np.ndarray:
    """Return (z, y, x) in mm: up, back, left."""
    ids = {n: i for i, n in NAMES.items()}
    at = np.argwhere(phantom.label_map.ids == ids[name])
    return at.mean(axis=0) * phantom.label_map.geometry.spacing_mm


def gap_mm(phantom: Phantom, first: int, second: int) -> float:
    """Return the shortest distance between the voxels of two labels."""
    ids = phantom.label_map.ids
    away = distance_transform_edt(ids != first, sampling=phantom.label_map.geometry.spacing_mm)
    return float(away[ids == second].min())


def test_sides(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        x = {name: centroid_mm(p, name)[2] for name in NAMES.values() if p.meta["volumes_ml"][name]}
        # x grows towards the patient's left.
        assert x["liver"] < x["aorta"] < x["spleen"]
        assert x["right_kidney"] < x["inferior_vena_cava"] < x["aorta"] < x["left_kidney"]
        assert x["right_adrenal_gland"] < x["left_adrenal_gland"]
        assert x["duodenum"] < x["stomach"]


def test_heights(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        z = {name: centroid_mm(p, name)[0] for name in NAMES.values() if p.meta["volumes_ml"][name]}
        assert z["right_adrenal_gland"] > z["right_kidney"]
        assert z["left_adrenal_gland"] > z["left_kidney"]
        assert z["esophagus"] > z["stomach"] > z["duodenum"]


def test_front_and_back(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        y = {name: centroid_mm(p, name)[1] for name in NAMES.values() if p.meta["volumes_ml"][name]}
        assert y["stomach"] < y["aorta"]
        assert y["pancreas"] < y["right_kidney"]
        assert y["duodenum"] < y["left_kidney"]


def test_neighbors(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        assert gap_mm(p, 12, 4) < 8, "the duodenum embraces the head of the pancreas"
        assert gap_mm(p, 10, 11) < 12, "the esophagus ends in the stomach"
        if p.meta["volumes_ml"]["gallbladder"]:
            assert gap_mm(p, 9, 1) < 12, "the gallbladder lies on the liver"


def test_volumes(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        for name, (low, high) in VOLUME_RANGE_ML.items():
            assert low <= p.meta["volumes_ml"][name] <= high, (p.meta["index"], name)


def test_no_organ_is_missing(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        present = set(np.unique(p.label_map.ids)) - {0, 14}
        assert present == set(ORGAN_IDS) - set(p.meta["absent"])


def test_meta_is_true(phantoms: list[Phantom]) -> None:
    for index, p in enumerate(phantoms):
        assert json.loads(json.dumps(p.meta)) == p.meta
        assert p.meta["volumes_ml"] == p.label_map.volumes_ml()
        assert bool(p.meta["tumors"]) == (index < 2) == bool((p.label_map.ids == 14).any())


def test_organs_are_inside_the_body(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        solid = p.volume.hu > -300
        body = np.stack([binary_fill_holes(plane) for plane in solid])
        labelled = p.label_map.ids > 0
        assert (body & labelled).sum() >= 0.995 * labelled.sum()


def test_tissues_differ_as_they_should(phantoms: list[Phantom]) -> None:
    for p in phantoms:
        hu, ids = p.volume.hu, p.label_map.ids
        median = {label: float(np.median(hu[ids == label])) for label in np.unique(ids)}
        assert 0 < median[1] < 160
        assert median[5] > 25
        assert hu.dtype == np.int16
        assert hu.min() >= LOWEST_HU
        assert hu.max() <= 3071
        assert 2 < noise_sd(p) < 45
        if p.meta["phase"] != "native":
            assert median[5] > median[1] > -20


def test_same_numbers_same_phantom(phantom: Phantom) -> None:
    first, second = phantom, generate(31, 0, PhantomSpec(tumor=True))
    np.testing.assert_array_equal(first.volume.hu, second.volume.hu)
    np.testing.assert_array_equal(first.label_map.ids, second.label_map.ids)
    assert first.meta == second.meta


def test_other_numbers_other_phantom(phantoms: list[Phantom]) -> None:
    share = [
        mean_organ_dice(a.label_map.ids, b.label_map.ids)
        for i, a in enumerate(phantoms)
        for b in phantoms[:i]
    ]
    assert max(share) < 0.6


def test_no_giveaway(phantoms: list[Phantom]) -> None:
    fitted, held_out = phantoms[:3], phantoms[3:]
    assert dice_from_hu(fitted, held_out) < 0.3
    assert dice_from_average(fitted, held_out) < 0.6
    figures = foreground(phantoms)
    assert figures.p005 < -400, "no gas in stomach, duodenum or esophagus"
    assert 40 < figures.median < 130


def test_figures_by_hand(phantoms: list[Phantom]) -> None:
    p = phantoms[0]
    counts = class_histograms([p])
    assert counts.sum() == p.label_map.ids.size
    assert counts[1].sum() == (p.label_map.ids == 1).sum()
    np.testing.assert_array_equal(average_map([p]), p.label_map.ids)
    assert mean_organ_dice(p.label_map.ids, p.label_map.ids) == pytest.approx(1)
    assert mean_organ_dice(np.zeros_like(p.label_map.ids), p.label_map.ids) == 0
