"""Organs on the wrong side of each other: seen in any orientation, and never in a sound map."""

import itertools
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cfseg.geometry import Geometry
from cfseg.io import read_label_map
from cfseg.io.source import RAS_TO_ZYX
from cfseg.situs import RULES, misplaced
from cfseg.volume import LabelMap

REAL = Path(os.environ.get("CFSEG_REAL_LABELS", "/nowhere"))
ORIENTATIONS = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(scope="module")
def coarse(phantom):
    """The phantom's label map with every second voxel along each axis."""
    affine = phantom.label_map.geometry.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    ids = phantom.label_map.ids[::2, ::2, ::2].copy()
    return LabelMap(ids, Geometry(ids.shape, affine))


def as_stored(label_map):
    """Return a label map as a NIfTI image with the axes of an ordinary CT."""
    affine = np.linalg.inv(RAS_TO_ZYX) @ label_map.geometry.affine
    return nib.Nifti1Image(label_map.ids.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])


def read(image, folder):
    nib.save(image, folder / "labels.nii")
    return misplaced(read_label_map(folder / "labels.nii")[0])


def test_a_sound_map_is_sound_in_all_48_orientations_and_mirrored_in_none(coarse, tmp_path):
    image = as_stored(coarse)
    for orientation in ORIENTATIONS:
        turned = image.as_reoriented(orientation)
        assert read(turned, tmp_path) == ()
        for axis in range(3):
            mirrored = np.flip(np.asarray(turned.dataobj), axis)
            assert read(nib.Nifti1Image(mirrored, turned.affine), tmp_path)


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        (0, r"the right kidney is 1\d\d mm above the esophagus"),
        (1, r"the pancreas is \d\d mm behind the aorta"),
        (2, r"the liver is 1\d\d mm to the left of the spleen"),
    ],
)
def test_it_says_what_lies_where(coarse, axis, said):
    assert re.search(said, "; ".join(misplaced(flipped(coarse, axis))))


def flipped(label_map, axis):
    return LabelMap(np.flip(label_map.ids, axis).copy(), label_map.geometry)


def test_exchanged_kidneys_alone_are_said(coarse):
    table = np.arange(256, dtype=np.uint8)
    table[[2, 13]] = 13, 2
    exchanged = LabelMap(table[coarse.ids], coarse.geometry)
    (found,) = misplaced(exchanged)
    assert "right kidney" in found
    assert "to the left of the left kidney" in found


def test_an_oblique_map_is_judged_in_patient_coordinates(coarse):
    angle = np.radians(30)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique = Geometry(coarse.geometry.shape, turn @ coarse.geometry.affine)
    assert misplaced(LabelMap(coarse.ids, oblique)) == ()


def test_a_few_voxels_say_nothing():
    ids = np.zeros((10, 10, 10), np.uint8)
    ids[5, 5, 8], ids[5, 5, 2] = 1, 3
    for mm, count in ((5.0, 0), (11.0, 1)):
        found = misplaced(LabelMap(ids, Geometry.from_spacing(ids.shape, (mm, mm, mm))))
        assert len(found) == count


def test_every_rule_is_about_two_labels_and_a_distance():
    assert all(rule.first != rule.second and rule.slack_mm > 0 for rule in RULES)


@pytest.mark.skipif(not REAL.is_dir(), reason="CFSEG_REAL_LABELS names no folder")
def test_no_real_label_map_is_called_mirrored_and_every_mirror_is():
    for path in sorted(REAL.rglob("*.nii.gz")):
        found = read_label_map(path)[0]
        organs = LabelMap(np.where(found.ids <= 14, found.ids, 0).astype(np.uint8), found.geometry)
        assert misplaced(organs) == (), path.name
        if organs.ids.any():
            assert misplaced(flipped(organs, 2)), path.name
