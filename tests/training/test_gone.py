"""Part of a workspace is gone: it is made again, and nothing else is."""

import json
import shutil

import pytest
import torch

import tiny_cohort
from cfseg.training.pipeline import Pipeline


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace in which all is done."""
    folder = tmp_path_factory.mktemp("finished")
    tiny_cohort.write(folder / "cohort")
    run(folder)
    return folder


def run(folder):
    """Train the cascade, and return the steps that were not done before."""
    lines, recipe = [], tiny_cohort.recipe(organ_labels="coarse")
    pipeline = Pipeline(
        folder / "cohort", folder / "w", recipe, device=torch.device("cpu"), report=lines.append
    )
    pipeline.run()
    names = [step.name for step in pipeline.steps()]
    begun = [line for line in lines if line.startswith("[") and " took " not in line]
    return [
        name for name, line in zip(names, begun, strict=True) if not line.endswith(": done before")
    ]


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_finished_chain_does_nothing(finished):
    before = files(finished / "w" / "networks")
    assert run(finished) == []
    assert files(finished / "w" / "networks") == before


def stored(work, key, name, part):
    """Return the file that a network has of a case: its scan (0) or its labels (1)."""
    found = json.loads((work / "data" / key / "cases.json").read_text())
    rows = {name: files for name, *files in (*found["learned"], *found["held_out"])}
    return work / "cases" / rows[name][part]


@pytest.mark.parametrize(
    ("find", "step"),
    [
        (lambda work: stored(work, "coarse", "full_a", 0), "coarse_data"),
        (lambda work: stored(work, "tumor", "tumor_b", 1), "tumor_data"),
        (lambda work: work / "data" / "tumor" / "cases.json", "tumor_data"),
        (lambda work: work / "pseudo_labels" / "unlabelled.npz", "pseudo_labels"),
    ],
)
def test_data_that_are_gone_are_made_again_and_no_network_is(finished, find, step):
    networks, kept = files(finished / "w" / "networks"), files(finished / "w" / "cases")
    file = find(finished / "w")
    whole = file.read_bytes()
    file.unlink()
    assert run(finished) == [step]
    if file.suffix != ".npz":  # which has the time of day in it
        assert file.read_bytes() == whole
    assert files(finished / "w" / "networks") == networks
    stored = files(finished / "w" / "cases")
    renewed = {path.name.split(".")[0] for path in stored if stored[path] != kept[path]}
    assert renewed - {"grid"} <= {file.name.split(".")[0]}


def test_a_network_that_is_gone_is_trained_again(finished):
    shutil.rmtree(finished / "w" / "networks" / "tumor_1")
    assert run(finished) == ["tumor_1"]
    assert list((finished / "w" / "networks" / "tumor_1").glob("final_*.json"))
    assert not (finished / "w" / "replaced").exists()


def test_a_bundle_that_is_gone_is_written_again(finished):
    shutil.rmtree(finished / "w" / "bundle")
    assert run(finished) == ["bundle"]
    assert (finished / "w" / "bundle" / "bundle.json").is_file()
