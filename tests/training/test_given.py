"""A bundle in the place of the coarse model, for cohorts without one fully labelled case."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tiny_cohort
from cfseg.bundle.bundle import read_weights, write_bundle
from cfseg.bundle.manifest import digest, read_manifest
from cfseg.dataset.cases import read_cases
from cfseg.dataset.digests import Digests
from cfseg.errors import UsageError
from cfseg.geometry import Geometry
from cfseg.labelling.pseudo_labels import pseudo_file, read_pseudo_label
from cfseg.labels import ORGAN_IDS
from cfseg.plan import ROLES
from cfseg.segmenter import Segmenter
from cfseg.training.curriculum import Curriculum, Learner
from cfseg.training.given import GivenCoarse
from cfseg.training.pipeline import Pipeline
from cfseg.volume import LabelMap, Volume

CPU = torch.device("cpu")


def partly(folder):
    """Write the tiny cohort with no case that has all organs."""
    dataset = tiny_cohort.write(folder)
    said = json.loads((dataset / "manifest.json").read_text())
    said |= {"full_a": tiny_cohort.FIVE, "full_b": (6, 7), "tumor_a": (*tiny_cohort.FIVE, 14)}
    (dataset / "manifest.json").write_text(json.dumps(said))
    return dataset


@pytest.fixture
def dataset(tmp_path):
    return partly(tmp_path / "cohort")


def pipeline(dataset, work, **options):
    recipe = tiny_cohort.recipe(**{"organ_labels": "coarse", **options.pop("training", {})})
    return Pipeline(dataset, work, recipe, device=CPU, report=lambda line: None, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_bundle):
    """A cascade trained with a bundle's coarse model, its weights ranked on a selection set."""
    folder = tmp_path_factory.mktemp("given")
    found = pipeline(
        partly(folder / "cohort"), folder / "w", coarse=tiny_bundle, notice="Of tiny scans.",
        selection_set=_full(folder / "other"), training={"keep_every_epochs": 1},
    )  # fmt: skip
    found.run()
    return found


def _full(folder):
    dataset = tiny_cohort.write(folder)
    (dataset / "manifest.json").write_text(json.dumps({"full_a": list(ORGAN_IDS)}))
    for name in set(tiny_cohort.ANNOTATED) - {"full_a"}:
        (dataset / "imagesTr" / f"{name}_0000.nii.gz").unlink()
        (dataset / "labelsTr" / f"{name}.nii.gz").unlink(missing_ok=True)
    return dataset


def test_no_coarse_model_is_trained(made):
    names = [step.name for step in made.steps()]
    assert names == [
        "pseudo_labels", "tumor_data", "tumor_1", "tumor_2", "organ_data", "organ_1", "selection",
        "bundle",
    ]  # fmt: skip
    assert sorted(p.name for p in (made.work / "networks").iterdir()) == [
        "organ_1", "tumor_1", "tumor_2",
    ]  # fmt: skip


def test_its_cascade_completes_the_labels(made, tiny_bundle):
    cases = read_cases(made.dataset)
    case = next(case for case in cases if case.name == "full_b")
    ids = read_pseudo_label(pseudo_file(made.work / "pseudo_labels", case))
    steps = [f"step.{role}=0.5" for role in ROLES]  # the recipe's pseudo_label_step
    found = Segmenter(tiny_bundle, device="cpu", overrides=steps).segment(case.image).label_map
    assert np.array_equal(ids, found.ids)
    target = made.curriculum.organ.target(case, found.geometry)
    truth = np.isin(tiny_cohort.blocks(), (6, 7))
    assert np.array_equal(target[truth], tiny_cohort.blocks()[truth])
    filled = ~truth & ~np.isin(ids, (6, 7))
    assert ids[filled].any()
    assert np.array_equal(target[filled], ids[filled])


def test_it_gives_no_tumors_as_labels(tiny_bundle, monkeypatch):
    volume = Volume(np.zeros((2, 2, 2), np.float32), Geometry.from_spacing((2, 2, 2), (4, 4, 4)))
    ids = np.array([[[0, 1], [14, 13]], [[14, 14], [2, 0]]], dtype=np.uint8)
    asked = []

    def segment(volume, stages, cascade):
        asked.append(cascade.step.model_dump())
        return SimpleNamespace(label_map=LabelMap(ids, volume.geometry))

    monkeypatch.setattr("cfseg.training.given.segment_volume", segment)
    teacher = GivenCoarse(tiny_bundle).open("best", 0.75, CPU)
    assert teacher.label(volume).ids.tolist() == [[[0, 1], [0, 13]], [[0, 0], [2, 0]]]
    assert teacher.digest == digest(tiny_bundle)
    assert asked == [dict.fromkeys(ROLES, 0.75)]


def test_its_coarse_network_goes_into_the_new_bundle_as_it_is(made, tiny_bundle):
    before, after = (read_manifest(path) for path in (tiny_bundle, made.bundle))
    assert [entry.name for entry in after.stages] == ["coarse", "tumor_1", "tumor_2", "organ"]
    given, ours = before.stages[0], after.stages[0]
    assert ours.plan == given.plan
    assert ours.provenance["from"] == {"bundle": "tiny", "sha256": digest(tiny_bundle)}
    one, other = (
        read_weights(path / entry.weights, entry.sha256)
        for path, entry in ((tiny_bundle, given), (made.bundle, ours))
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert after.provenance["coarse"] == digest(tiny_bundle)


def test_both_notices_are_carried_on(made):
    notice = "Of tiny scans.\nRandom weights. Not for clinical use."
    assert read_manifest(made.bundle).notice == notice


def test_the_selection_ranks_the_others_around_it(made):
    found = json.loads((made.work / "selection" / "selection.json").read_text())["chosen"]
    assert sorted(found) == ["coarse", "organ", "tumor_1", "tumor_2"]
    assert found["coarse"]["digest"] == read_manifest(made.bundle).stages[0].sha256


def test_the_new_bundle_predicts(made):
    case = read_cases(made.dataset)[0]
    found = Segmenter(made.bundle, device="cpu").segment(case.image)
    assert found.label_map.ids.shape == tiny_cohort.blocks().shape


def test_the_command_takes_it(dataset, tmp_path, tiny_bundle, cfseg, monkeypatch):
    monkeypatch.setattr("cfseg.training.outlook.sgemm_gflops", lambda device: 50.0)
    words = ("train", dataset, "-o", tmp_path / "w", "--recipe", "tiny", "--dry-run")
    ended = cfseg(*words, "--coarse", tiny_bundle)
    assert ended.code == 0, ended.err
    first = ended.out.splitlines()[0]
    assert first == "pseudo_labels: pseudo-label 6 cases with the bundle tiny"
    refused = cfseg(*words)
    assert refused.code == 2
    assert "give --coarse BUNDLE" in refused.err


def test_without_one_the_error_names_that_way(dataset, tmp_path):
    with pytest.raises(UsageError, match=r"no case has all 13 organs .* or give --coarse BUNDLE"):
        pipeline(dataset, tmp_path / "w")


def test_a_bundle_without_a_coarse_network_is_refused(dataset, tmp_path, tiny_bundle):
    entry = next(e for e in read_manifest(tiny_bundle).stages if e.role == "organ")
    weights = read_weights(tiny_bundle / entry.weights, entry.sha256)
    cascade = read_manifest(tiny_bundle).cascade.model_copy(update={"stages": ("organ",)})
    other = write_bundle(
        tmp_path / "organ", "organ", [("organ", entry.plan, weights, {})], cascade, {}, ""
    )
    with pytest.raises(UsageError) as caught:
        pipeline(dataset, tmp_path / "w", coarse=other)
    assert caught.value.message == (
        f"--coarse {other}: the bundle has no coarse network; give one that has"
    )


STAGE = tiny_cohort.recipe().training.organ.model_dump()


@pytest.mark.parametrize("name", ["tumor", "organ", "teacher"])
def test_a_start_from_the_coarse_model_is_refused(dataset, tmp_path, tiny_bundle, name):
    training = {name: STAGE | {"start": "coarse"}}
    if name == "teacher":
        training["organ_labels"] = "teacher"
    with pytest.raises(UsageError, match=rf"training\.{name}\.start = coarse, but with --coarse"):
        pipeline(dataset, tmp_path / "w", coarse=tiny_bundle, training=training)
    pipeline(dataset, tmp_path / "w", coarse=tiny_bundle, init=tiny_bundle, training=training)


def test_a_teacher_that_nobody_uses_may_say_anything(dataset, tmp_path, tiny_bundle):
    training = {"teacher": STAGE | {"start": "coarse"}}
    pipeline(dataset, tmp_path / "w", coarse=tiny_bundle, training=training)


def test_there_is_no_coarse_stage_to_train(dataset, tmp_path, tiny_bundle):
    made = pipeline(dataset, tmp_path / "w", coarse=tiny_bundle)
    with pytest.raises(UsageError, match="--stage coarse: with --coarse no coarse model is"):
        made.steps("coarse")
    assert [step.name for step in made.steps("tumor")][-1] == "tumor_2"


def test_a_teacher_learns_from_all_cases_where_none_is_full(dataset, tmp_path, tiny_bundle):
    training = tiny_cohort.recipe().training
    curriculum = Curriculum(
        read_cases(dataset), tmp_path, training, Digests(), given=GivenCoarse(tiny_bundle)
    )
    first = next(step for step in curriculum.steps if isinstance(step, Learner) and step.is_teacher)
    assert (first.key, len(first.cases)) == ("teacher_1", 6)
