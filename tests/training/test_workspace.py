"""What nnU-Net plans for a stage, by the recipe's numbers."""

import json

import numpy as np
import pytest
import tiny_cohort

from cfseg.geometry import Geometry
from cfseg.training.workspace import PLANS, StageFolder, prepare, write_case
from cfseg.volume import LabelMap, Volume

pytest.importorskip("nnunetv2", reason="training needs cfseg[train]")


@pytest.mark.filterwarnings("ignore")  # nnU-Net's libraries warn at every turn
def test_the_axes_of_a_network_are_zyx_whatever_the_voxels_are(tmp_path):
    training = tiny_cohort.recipe().training
    stage = training.coarse.model_copy(update={"patch": (8, 16, 24), "spacing_mm": (3.0, 4.0, 5.0)})
    folder = StageFolder(tmp_path, "coarse")
    geometry = Geometry((24, 24, 24), np.diag([5.0, 6.0, 4.0, 1.0]))  # Y has the largest voxels
    ids = tiny_cohort.blocks()
    ids[ids > 13] = 0
    hu = (20 * ids).astype(np.float32)
    for name in ("a", "b"):
        write_case(folder, name, Volume(hu, geometry), LabelMap(ids, geometry), 10)
    prepare(folder, training, stage, (["a"], ["b"]))
    plans = json.loads((folder.preprocessed / f"{PLANS}.json").read_text())
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert plans["original_median_spacing_after_transp"] == [5.0, 6.0, 4.0]
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [8, 16, 24]
    assert plans["configurations"]["3d_fullres"]["spacing"] == [3.0, 4.0, 5.0]
