"""Atlases as something that networks learn from: asked for, read, and counted among the inputs."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tiny_cohort
from cfseg.cli import app
from cfseg.dataset.cases import read_cases
from cfseg.dataset.digests import Digests
from cfseg.errors import UsageError
from cfseg.phantoms.atlas import Atlas, write_atlas
from cfseg.recipes.recipe import load
from cfseg.training.atlases import Atlases
from cfseg.training.curriculum import Curriculum
from cfseg.training.data import prepare, read_lesson
from cfseg.training.fit import atlases_of, feed_of

CPU = torch.device("cpu")


def write(folder, organ=1, name="one"):
    tissue = np.full((24, 24, 24), 21, np.uint8)
    tissue[6:-6, 6:-6, 6:-6] = organ
    folder.mkdir(exist_ok=True)
    write_atlas(
        folder / f"{name}.nii.gz", Atlas.of(name, tissue, (6.0, 6.0, 6.0), f"by {name}'s authors")
    )
    return folder


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort.write(tmp_path / "cohort")


def curriculum(cohort, place, **training):
    recipe = tiny_cohort.recipe(**training).training
    return Curriculum(
        read_cases(cohort), cohort.parent / "w", recipe, Digests(),
        atlases=Atlases.of(place, recipe),
    )  # fmt: skip


def test_a_share_of_the_windows_is_rendered_from_atlases(cohort, tmp_path):
    place = write(write(tmp_path / "maps"), organ=3, name="two")
    chain = curriculum(cohort, place, map_share=0.5, empty_share=0.0, batch_size=12)
    learner = chain.learners[0]
    prepare(learner, lambda line: None)
    learned = read_lesson(learner), learner.training, learner.stage
    with feed_of(*learned, 0, CPU, atlases_of(learner)) as feed:
        origins = [origin.split(",")[0].split(" ")[0] for origin in feed(0).origin]
    assert {"one", "two"} <= set(origins)
    assert 2 <= sum(origin in ("one", "two") for origin in origins) <= 10


def test_what_atlases_hold_decides_the_networks_and_not_their_data(cohort, tmp_path):
    place = write(tmp_path / "maps")
    before = curriculum(cohort, place, map_share=0.5).coarse.inputs
    write(place, organ=3)
    after = curriculum(cohort, place, map_share=0.5).coarse.inputs
    assert before["data"] == after["data"]
    assert before["network"] != after["network"]


def test_their_authors_are_known(tmp_path):
    place = write(write(tmp_path / "maps"), name="two")
    found = Atlases(place).sources
    assert found == {"one.nii.gz": "by one's authors", "two.nii.gz": "by two's authors"}


def test_a_recipe_that_wants_atlases_says_so():
    training = tiny_cohort.recipe(map_share=0.5).training
    with pytest.raises(UsageError, match="give --atlases FOLDER"):
        Atlases.of(None, training)


def test_atlases_that_nobody_wants_are_refused(cohort, tmp_path):
    result = CliRunner().invoke(
        app, ["train", str(cohort), "-o", str(tmp_path / "w"), "--recipe", "paper",
              "--atlases", str(write(tmp_path / "maps")), "--dry-run"],
    )  # fmt: skip
    assert isinstance(result.exception, UsageError)
    assert "training.map_share=0.5" in result.exception.message


def test_shares_are_no_more_than_all():
    with pytest.raises(UsageError, match="more than all windows"):
        load("paper", ["training.map_share=0.7", "training.phantom_share=0.4"])
