from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cfseg.feed import phantoms as subject
from cfseg.feed.crops import Crop, Sampling
from cfseg.feed.phantoms import STEPS_EACH, Phantoms
from cfseg.feed.planning import plan_with
from cfseg.labels import IGNORE, TUMOR
from cfseg.phantoms.phantom import PhantomSpec, generate
from cfseg.plan import Intensity
from cfseg.recipes.training import StageTraining

PATCH = (16, 24, 24)
CT = Intensity(lower=-150, upper=250, mean=50, std=60)
STAGE = StageTraining(epochs=1, patch=PATCH, spacing_mm=(6, 6, 6), features=(4, 8))


@pytest.fixture(autouse=True)
def few(monkeypatch) -> list[int]:
    """Make only two phantoms for all tests, always with tumors, and note which were asked for."""
    asked: list[int] = []

    def made(seed: int, index: int):
        asked.append(index)
        return _ONES[index % 2]

    monkeypatch.setattr(subject, "generate", made)
    return asked


_ONES = [generate(990_021, index, PhantomSpec(tumor=True)) for index in range(2)]


def source(role="tumor", oversample: float = 1.0, focus: float = 1.0) -> Phantoms:
    plan = plan_with(role, STAGE, (6, 6, 6), CT)
    return Phantoms(plan, Sampling(PATCH, oversample, focus))


def equal(one: Crop, other: Crop) -> bool:
    return one[2:] == other[2:] and all(map(torch.equal, one[:2], other[:2]))


def test_a_crop_is_of_the_range_and_shape_that_a_network_sees() -> None:
    crop = source().crop(0, 0, 0, (20, 30, 30))
    assert crop.hu.shape == crop.labels.shape == (20, 30, 30)
    assert crop.hu.min() >= CT.lower
    assert crop.hu.max() <= CT.upper
    assert (crop.labels == TUMOR.id).any()


def test_voxels_of_tumors_are_ignored_where_a_network_does_not_know_them() -> None:
    labels = torch.stack([source("organ").crop(0, s, 0, (40, 50, 50)).labels for s in range(8)])
    assert not (labels == TUMOR.id).any()
    assert (labels == IGNORE).any()


def test_a_crop_depends_on_seed_step_and_sample_alone(few) -> None:
    one, keys = source(), [(3, 1, 0), (3, 2, 0), (3, STEPS_EACH, 0), (3, 1, 1)]
    once = [one.crop(*key, PATCH) for key in keys]
    other = source()
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda key: other.crop(*key, PATCH), keys))
    assert all(map(equal, once, again))
    assert [crop.case for crop in once] == [
        "phantom 3.0.0", "phantom 3.0.0", "phantom 3.1.0", "phantom 3.0.1",
    ]  # fmt: skip
    assert len(few) == 6  # three of each source, each once
    assert len(np.unique([crop.center for crop in once], axis=0)) > 1
