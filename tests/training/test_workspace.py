"""What nnU-Net plans for a stage, by the recipe's numbers."""

import json

import numpy as np
import pytest
import tiny_cohort

from cfseg.errors import UsageError
from cfseg.geometry import Geometry
from cfseg.labels import TUMOR
from cfseg.preprocessing.prepare import prepare as prepare_for_network
from cfseg.recipes.recipe import load
from cfseg.training.network_size import read_plan
from cfseg.training.workspace import PLANS, StageFolder, prepare, write_case
from cfseg.volume import LabelMap, Volume

pytest.importorskip("nnunetv2", reason="training needs cfseg[train]")
pytestmark = pytest.mark.filterwarnings("ignore")  # nnU-Net's libraries warn at every turn


def a_volume() -> Volume:
    """Return blocks of 20 HU per label, in a grid whose Y has the largest voxels."""
    geometry = Geometry((24, 24, 24), np.diag([5.0, 6.0, 4.0, 1.0]))
    return Volume(20 * tiny_cohort.blocks().astype(np.float32), geometry)


def planned(folder: StageFolder, **values) -> dict:
    """Prepare two cases for a stage and return nnU-Net's plans."""
    training = tiny_cohort.recipe().training
    volume, ids = a_volume(), tiny_cohort.blocks()
    ids[ids == TUMOR.id] = 0
    for name in ("a", "b"):
        write_case(folder, name, volume, LabelMap(ids, volume.geometry), 10)
    prepare(folder, training, training.coarse.model_copy(update=values), (["a"], ["b"]))
    return json.loads((folder.preprocessed / f"{PLANS}.json").read_text())


def test_the_axes_of_a_network_are_zyx_whatever_the_voxels_are(tmp_path):
    folder = StageFolder(tmp_path, "coarse")
    plans = planned(folder, patch=(8, 16, 24), spacing_mm=(3.0, 4.0, 5.0))
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert plans["original_median_spacing_after_transp"] == [5.0, 6.0, 4.0]
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [8, 16, 24]
    assert plans["configurations"]["3d_fullres"]["spacing"] == [3.0, 4.0, 5.0]


def test_a_window_of_hu_is_what_the_network_sees_in_training_and_after(tmp_path):
    folder = StageFolder(tmp_path, "coarse")
    plans = planned(folder, window_hu=(50.0, 150.0), spacing_mm=(5.0, 6.0, 4.0))
    found = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (found["percentile_00_5"], found["percentile_99_5"]) == (50.0, 150.0)
    labels = tiny_cohort.blocks()
    inside = (20.0 * labels[(labels > 0) & (labels != TUMOR.id)]).clip(50, 150)
    assert found["mean"] == pytest.approx(inside.mean(), abs=2)  # nnU-Net looks at a sample
    assert found["std"] == pytest.approx(inside.std(), abs=2)
    plan = read_plan(plans, json.loads((folder.raw / "dataset.json").read_text()))
    seen = prepare_for_network(a_volume(), plan).array
    ends = [(hu - found["mean"]) / found["std"] for hu in (50, 150)]
    assert [seen.min(), seen.max()] == pytest.approx(ends, abs=1e-4)


def test_a_window_without_width_is_refused():
    with pytest.raises(UsageError, match=r"training.organ.window_hu.*the lower HU first"):
        load("paper", ("training.organ.window_hu=[100, 100]",))
