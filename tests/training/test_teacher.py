"""Organ labels for the organ model: the teacher's rounds, the cases left out, another's folder."""

import json
import time

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tiny_cohort
from cfseg.dataset.cases import read_cases
from cfseg.dataset.digests import Digests
from cfseg.errors import InputError, UsageError
from cfseg.geometry import Geometry
from cfseg.io import read_scan, write_json
from cfseg.labels import ORGAN_IDS
from cfseg.recipes.recipe import load
from cfseg.training.curriculum import Curriculum
from cfseg.training.pipeline import Pipeline
from cfseg.training.teacher import change, worst

IDS = hnp.arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 13))


def test_a_change_worked_by_hand():
    older, newer = np.array([0, 1, 2, 2, 0]), np.array([0, 1, 1, 2, 3])
    assert change(older, newer) == 2 / 4
    assert change(newer, np.zeros(5)) == 4


@settings(deadline=None)
@given(IDS, IDS)
def test_only_equal_labels_do_not_change(older, newer):
    assert (change(older, newer) == 0) == np.array_equal(older, newer)


def test_the_worst_are_left_out():
    changes = {"a": 0.1, "b": 0.5, "c": 0.3, "d": 0.5}
    assert worst(changes, 0.5) == ["b", "d"]
    assert worst(changes, 0.0) == []
    assert len(worst({str(i): i / 2000 for i in range(2000)}, 0.038)) == 76


def test_the_rounds_follow_each_other(tmp_path):
    dataset = tiny_cohort.write(tmp_path / "cohort")
    training = tiny_cohort.recipe().training
    curriculum = Curriculum(read_cases(dataset), tmp_path / "w", training, Digests())
    first, second = (learner for learner in curriculum.learners if learner.is_teacher)
    assert (first.networks, second.networks) == (("teacher_1",), ("teacher_2",))
    assert first.role == second.role == "organ"
    assert [c.name for c in first.cases] == ["full_a", "full_b", "tumor_a"]
    assert first.labels.name == "pseudo_labels"
    assert second.labels.labeller is first
    assert len(second.cases) == len(curriculum.organ.cases) == 6
    assert curriculum.tumor.labels is first.labels


def test_the_changes_of_a_later_round_do_not_count_for_fewer_rounds(tmp_path):
    cases = read_cases(tiny_cohort.write(tmp_path / "cohort"))

    def organ(rounds):
        training = tiny_cohort.recipe().training
        teacher = training.teacher.model_copy(update={"rounds": rounds})
        training = training.model_copy(update={"teacher": teacher})
        return Curriculum(cases, tmp_path / "w", training, Digests()).organ

    write_json(organ(2).labels.file, {"change": {case.name: 0.5 for case in cases}})
    assert len(organ(2).labels.left_out()) == 2
    assert organ(1).labels.left_out() == frozenset()


def test_a_cohort_of_the_papers_size_is_planned_without_reading_images(tmp_path):
    organs = [*ORGAN_IDS]
    groups = [(1800, []), (484, organs[:5]), (219, organs), (888, [*organs, 14])]
    groups += [(609, [1, 2, 3, 4, 13, 14])]
    manifest = {}
    for number, (cases, annotated) in enumerate(groups):
        for i in range(cases):
            case = f"g{number}_{i:04d}"
            label = f"labels/{case}.nii.gz" if annotated else None
            image = f"images/{case}.nii.gz"
            manifest[case] = {"image": image, "label": label, "annotated": annotated}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    start = time.perf_counter()
    pipeline = Pipeline(tmp_path / "manifest.json", tmp_path / "work", load("paper"), report=print)
    plan = "\n".join(pipeline.plan())
    assert time.perf_counter() - start < 10
    assert "coarse_data: prepare 219 of 4000 cases for the coarse model" in plan
    assert "pseudo_labels: pseudo-label 3781 cases" in plan
    assert "tumor_data: prepare 1497 of 4000 cases for the tumor model" in plan
    assert "organ_data: prepare 4000 cases for the organ model" in plan
    assert [name for name in ("coarse_1", "tumor_1", "tumor_2", "organ_1") if f"{name}:" in plan]
    assert not (tmp_path / "work").exists()


@pytest.fixture
def given_labels(tmp_path):
    """A cohort and a folder with the organs of its unfinished cases, stored upside down."""
    dataset = tiny_cohort.write(tmp_path / "cohort")
    folder = tmp_path / "labels"
    folder.mkdir()
    ids = np.where(tiny_cohort.blocks() == 14, 9, tiny_cohort.blocks()).astype(np.uint8)
    affine = np.diag([-4.0, -4.0, -4.0, 1.0])
    affine[2, 3] = 4.0 * (tiny_cohort.EDGE - 1)
    for name in ("partial", "tumor_a", "tumor_b", "unlabelled"):
        image = nib.Nifti1Image(ids[::-1].transpose(2, 1, 0).copy(), affine)
        nib.save(image, folder / f"{name}.nii.gz")
    return dataset, folder


def organ_learner(dataset, folder, work):
    training = tiny_cohort.recipe(organ_labels=str(folder), teacher=None).training
    return Curriculum(read_cases(dataset), work, training, Digests()).organ


def test_the_labels_of_another_method_are_turned_to_the_scans_axes(given_labels, tmp_path):
    dataset, folder = given_labels
    learner = organ_learner(dataset, folder, tmp_path / "w")
    case = next(c for c in learner.cases if c.name == "tumor_b")
    target = learner.target(case, read_scan(case.image).volume.geometry)
    blocks = tiny_cohort.blocks()
    assert np.array_equal(target, np.where(blocks == 14, 9, blocks))


def test_other_labels_of_the_same_name_are_other_inputs(given_labels, tmp_path):
    dataset, folder = given_labels
    before = organ_learner(dataset, folder, tmp_path / "w").inputs
    assert organ_learner(dataset, folder, tmp_path / "w").inputs == before
    image = nib.load(folder / "partial.nii.gz")
    nib.save(
        nib.Nifti1Image(np.asarray(image.dataobj) * 0, image.affine), folder / "partial.nii.gz"
    )
    assert organ_learner(dataset, folder, tmp_path / "w").inputs != before


def test_a_missing_label_map_is_named_before_training(given_labels, tmp_path):
    dataset, folder = given_labels
    (folder / "tumor_a.nii.gz").unlink()
    with pytest.raises(UsageError, match="1 of 4 cases that need one: tumor_a"):
        organ_learner(dataset, folder, tmp_path / "w")
    with pytest.raises(UsageError, match="there is no folder"):
        organ_learner(dataset, tmp_path / "nowhere", tmp_path / "w")


def test_labels_on_another_grid_are_refused(given_labels, tmp_path):
    dataset, folder = given_labels
    learner = organ_learner(dataset, folder, tmp_path / "w")
    case = next(c for c in learner.cases if c.name == "unlabelled")
    with pytest.raises(InputError, match="another grid") as error:
        learner.target(case, Geometry.from_spacing((24, 24, 24), (5.0, 4.0, 4.0)))
    assert error.value.code == "E_GRID"


def test_digests_are_remembered_until_a_file_changes(tmp_path):
    file, known = tmp_path / "a", tmp_path / "work" / "digests.json"
    file.write_text("one")
    digests = Digests(known)
    first = digests.of(file)
    digests.save()
    stored = json.loads(known.read_text())
    stored[str(file.resolve())][2] = "remembered"
    known.write_text(json.dumps(stored))
    assert Digests(known).of(file) == "remembered"
    file.write_text("other")
    assert Digests(known).of(file) not in ("remembered", first)
    known.write_text("{")
    assert len(Digests(known).of(file)) == 64
