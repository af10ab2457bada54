"""Output folders that can no longer be written, for every command that writes: E_DISK, exit 6."""

import errno
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from cfseg.bundle.bundle import write_bundle
from cfseg.bundle.manifest import read_manifest
from cfseg.errors import ResourceError
from cfseg.phantoms import cohort
from cfseg.recipes.recipe import Cascade
from refusing_disk import refusing
from tiny_ct import ct

CPU = ("--device", "cpu", "--threads", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scan, its label map, and a cohort of both."""
    place = tmp_path_factory.mktemp("refused")
    scan = ct(place / "scans" / "a_0000.nii.gz")
    ids = np.zeros(nib.load(scan).shape, dtype=np.uint8)
    ids[5:20, 5:20, 5:20] = 1
    (place / "maps").mkdir()
    nib.save(nib.Nifti1Image(ids, nib.load(scan).affine), place / "maps" / "a.nii.gz")
    shutil.copytree(place / "scans", place / "cohort" / "imagesTr")
    (place / "cohort" / "manifest.json").write_text(json.dumps({"a": []}))
    return place


def calls(place, out, bundle):
    scans, maps, cohort_ = place / "scans", place / "maps", place / "cohort"
    return {
        "predict": (scans, "-o", out, "-m", bundle, *CPU),
        "report": (out, "--images", scans),
        "evaluate": (maps, maps, "-o", out, "--jobs", 1),
        "compare": (maps, maps, maps, "-o", out, "--jobs", 1),
        "findings": (scans, maps, "-o", out),
        "figure": (scans, maps, "--masks", f"one={maps}", "-o", out),
        "pseudo-label": (cohort_, "-m", bundle, "-o", out, *CPU, "--step", 1),
        "dataset check": (cohort_, "-o", out),
        "dataset groups": (cohort_, "-o", out),
        "phantom": (out, "--cases", 1),
    }


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC], ids=["read-only", "full"])
def test_a_folder_that_was_written_before_and_now_refuses(
    place, tmp_path, tiny_bundle, cfseg, monkeypatch, number
):
    monkeypatch.setattr(cohort, "in_processes", lambda write, jobs, _: map(write, jobs))
    monkeypatch.setattr(cohort, "_write_case", lambda job, **_: cohort.write_json(job.folder, {}))
    for verb in calls(place, tmp_path, tiny_bundle):
        out = tmp_path / verb
        if verb in ("predict", "report"):
            out = tmp_path / "masks"
            assert cfseg("predict", *calls(place, out, tiny_bundle)["predict"]).code == 0
        out.mkdir(exist_ok=True)
        with refusing(out, number):
            ended = cfseg(*verb.split(), *calls(place, out, tiny_bundle)[verb])
        assert ended.code == 6, (verb, ended.err)
        last = ended.err.splitlines()[-1]
        assert last.startswith(f"cfseg: E_DISK: {out}"), (verb, last)
        assert "the disk is full; free" in last or "choose another folder" in last, last


def test_a_bundle_is_not_half_written(tmp_path, tiny_bundle):
    manifest = read_manifest(tiny_bundle)
    plan = manifest.stages[0].plan
    full = refusing(lambda path: path.suffix == ".json", errno.ENOSPC)
    with full, pytest.raises(ResourceError, match="the disk is full") as caught:
        write_empty(tmp_path / "made", plan)
    assert caught.value.code == "E_DISK"
    assert not list(tmp_path.iterdir())


def write_empty(path, plan):
    from cfseg.networks.build import build_network

    state = build_network(plan).state_dict()
    weights = {k: v for k, v in state.items() if "all_modules" not in k}
    weights = {k: v for k, v in weights.items() if not k.startswith("decoder.encoder.")}
    return write_bundle(path, "x", [("coarse", plan, weights, {})], Cascade(), {}, "")


def test_the_workspace_of_training_refuses(tmp_path):
    from cfseg.training.steps import alone_in

    with refusing(tmp_path), pytest.raises(ResourceError, match="choose another folder") as caught:
        alone_in(tmp_path).__enter__()
    assert caught.value.code == "E_DISK"
