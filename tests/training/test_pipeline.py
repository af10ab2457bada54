"""The whole chain on a cohort of six tiny scans: seconds, but from files to a bundle."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch

import tiny_cohort
from cfseg.errors import ResourceError, UsageError
from cfseg.io import read_scan
from cfseg.labels import ORGAN_IDS
from cfseg.training.data import read_lesson
from cfseg.training.pipeline import Pipeline
from cfseg.training.start import start_of
from cfseg.training.trained import read_trained
from refusing_disk import refusing

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def known_speed(monkeypatch):
    """To measure the machine takes longer than all the rest."""
    monkeypatch.setattr("cfseg.training.outlook.sgemm_gflops", lambda **_: 100.0)


def pipeline(trained, work, lines, **training):
    recipe = tiny_cohort.recipe(**training)
    return Pipeline(trained.dataset, work, recipe, device=CPU, report=lines.append)


def manifest_file(trained):
    return trained.pipeline.bundle / "bundle.json"


def cases(learner):
    lesson = read_lesson(learner)
    return sorted(case.name for case in (*lesson.learned, *lesson.held_out))


def test_the_bundle_has_four_networks_and_predicts(trained):
    from cfseg.segmenter import Segmenter

    segmenter = Segmenter(trained.pipeline.bundle, device="cpu", threads=1)
    manifest = segmenter.manifest
    assert [entry.name for entry in manifest.stages] == ["coarse", "tumor_1", "tumor_2", "organ"]
    assert manifest.notice == "tiny"
    cases = manifest.provenance["cases"]
    assert (cases["all"], cases["pseudo_labelled"], cases["organ"]) == (6, 4, 5)
    assert str(trained.pipeline.work.parent) not in manifest_file(trained).read_text()
    assert (trained.pipeline.work / "cost.json").exists()
    found = segmenter.segment(trained.dataset / "imagesTr" / "full_a_0000.nii.gz")
    assert found.label_map.ids.shape == (tiny_cohort.EDGE,) * 3


def test_the_paper_decides_which_cases_teach_which_model(trained):
    curriculum, work = trained.pipeline.curriculum, trained.pipeline.work
    first, second = (it for it in curriculum.learners if it.is_teacher)
    assert cases(curriculum.coarse) == ["full_a", "full_b"]
    assert cases(curriculum.tumor) == ["tumor_a", "tumor_b"]
    assert cases(first) == ["full_a", "full_b", "tumor_a"]
    assert cases(second) == sorted(tiny_cohort.ANNOTATED)
    dropped = json.loads((work / "teacher" / "labels_2" / "changes.json").read_text())["dropped"]
    expected = sorted(tiny_cohort.ANNOTATED.keys() - {*dropped})
    assert (len(dropped), cases(curriculum.organ)) == (1, expected)


def test_cases_known_to_be_without_tumor_may_teach_the_tumor_model(trained, tmp_path):
    dataset = tiny_cohort.write(tmp_path / "cohort")

    def curriculum(**training):
        recipe = tiny_cohort.recipe(**training)
        return Pipeline(dataset, tmp_path / "w", recipe, report=print).curriculum

    before = curriculum()
    manifest = json.loads((dataset / "manifest.json").read_text())
    for name in ("full_a", "partial", "unlabelled"):
        manifest[name] = {"annotated": manifest[name], "absent": [14]}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    papers, ours = curriculum(), curriculum(tumor_cases="known")
    assert [c.name for c in papers.tumor.cases] == ["tumor_a", "tumor_b"]
    both = ["full_a", "partial", "tumor_a", "tumor_b", "unlabelled"]
    assert [c.name for c in ours.tumor.cases] == both
    assert papers.tumor.inputs != ours.tumor.inputs
    for role in ("coarse", "tumor", "organ"):  # what is known of tumors changes nothing by itself
        assert getattr(papers, role).inputs == getattr(before, role).inputs
    assert ours.coarse.inputs == papers.coarse.inputs
    assert [c.name for c in ours.unfinished] == [c.name for c in papers.unfinished]
    for case in (c for c in ours.tumor.cases if c.is_tumor_free):
        assert 14 not in ours.tumor.target(case, read_scan(case.image).volume.geometry)


def test_all_organs_may_teach_the_coarse_model(trained, tmp_path):
    everything = pipeline(trained, tmp_path, [], coarse_cases="all_organs")
    assert [c.name for c in everything.curriculum.coarse.cases] == ["full_a", "full_b", "tumor_a"]


def test_the_labels_that_each_model_learns(trained):
    truth, curriculum = tiny_cohort.blocks(), trained.pipeline.curriculum
    by_name = {case.name: case for case in trained.pipeline.cases}
    geometry = read_scan(by_name["tumor_a"].image).volume.geometry
    for learner, tumor in ((curriculum.tumor, 14), (curriculum.organ, 0)):
        target = learner.target(by_name["tumor_a"], geometry)
        assert np.array_equal(target[truth < 14], truth[truth < 14])
        assert (target[truth == 14] == 14).all() == (tumor == 14)
    partial = curriculum.organ.target(by_name["partial"], geometry)
    known = np.isin(truth, tiny_cohort.FIVE)
    assert np.array_equal(partial[known], truth[known])


def test_the_two_tumor_weights_differ(trained):
    from cfseg.bundle.bundle import read_manifest

    entries = {e.name: e for e in read_manifest(trained.pipeline.bundle).stages}
    assert entries["tumor_1"].sha256 != entries["tumor_2"].sha256
    assert entries["tumor_1"].plan == entries["tumor_2"].plan


def test_a_second_run_does_nothing(trained):
    before = len(trained.lines)
    trained.pipeline.run()
    again = trained.lines[before:]
    assert len(again) == len(trained.pipeline.steps())
    assert all(line.endswith("done before") for line in again)


def test_a_killed_run_goes_on_where_it_was(trained, tmp_path):
    stage = tiny_cohort.recipe().training.coarse.model_dump() | {"epochs": 3}
    lines: list[str] = []

    def killed(line: str) -> None:
        lines.append(line)
        if "epoch 2 of 3" in line:
            raise KeyboardInterrupt

    first = pipeline(trained, tmp_path, lines, coarse=stage)
    first.report = killed
    with pytest.raises(KeyboardInterrupt):
        first.run("coarse")
    rest: list[str] = []
    pipeline(trained, tmp_path, rest, coarse=stage).run("coarse")
    assert rest[0].endswith("done before")
    assert rest[2] == "  coarse_1: going on after step 4"
    assert [line for line in rest if "epoch 3 of 3" in line]
    assert not [line for line in rest if "epoch 1 of 3" in line]


def test_where_the_disk_refuses_it_says_so_and_goes_on_later(trained, tmp_path):
    lines: list[str] = []
    with (
        refusing(lambda path: "state_00000002" in path.name, errno.ENOSPC),
        pytest.raises(ResourceError) as caught,
    ):
        pipeline(trained, tmp_path, lines, save_every_epochs=1).run("coarse")
    assert (caught.value.code, caught.value.exit_code) == ("E_DISK", 6)
    pipeline(trained, tmp_path, lines, save_every_epochs=1).run("coarse")
    first = trained.pipeline.work / "networks" / "coarse_1"
    again = read_trained(tmp_path / "networks" / "coarse_1", "final")
    assert again.digest == read_trained(first, "final").digest


def test_other_inputs_start_anew_and_the_old_network_is_put_aside(trained, tmp_path):
    lines: list[str] = []
    pipeline(trained, tmp_path, lines).run("coarse")
    pipeline(trained, tmp_path, lines, seed=5).run("coarse")
    assert not [line for line in lines if line.endswith("done before")]
    assert len(list((tmp_path / "replaced").glob("coarse_1_1/final_*.safetensors"))) == 1
    assert any(line.startswith("[2/2] train the coarse model, again because") for line in lines)
    shelf = (tmp_path / "replaced" / "coarse_1_1").resolve()
    assert f"  inputs changed; the network trained before is now {shelf}" in lines


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"pseudo_label_step": 1.0}, "pseudo tumor teacher organ bundle"),
        ({"z_margin_slices": 1}, "coarse pseudo tumor teacher organ bundle"),
        ({"organ": {"epochs": 9}}, "organ_1 bundle"),
        ({"organ": {"window_hu": (-150.0, 250.0)}}, "organ bundle"),
        ({"tumor": {"patch": (32, 16, 16)}}, "tumor bundle"),
        ({"tumor": {"weights": 1}}, "bundle"),
        ({"tumor": {"tumor_dice_weight": 4.0}}, "tumor_1 tumor_2 bundle"),
        ({"tumor": {"hard_voxels": 0.1}}, "tumor_1 tumor_2 bundle"),
        ({"hard_voxels": 0.1}, "coarse_1 pseudo tumor teacher organ bundle"),
        ({"tumor_cases": "known"}, "bundle"),  # nothing is known of the others
        ({"teacher": {"drop_fraction": 0.5}}, "organ bundle"),
        ({"teacher": {"rounds": 1}}, "organ bundle"),
        (
            {"teacher": {"epochs": 2}},
            "teacher_1: teacher_1_labels teacher_2 organ bundle",  # the data of round 1 stay
        ),
        ({"organ_labels": "coarse"}, "organ bundle"),
        ({"organ_labels": "tumor"}, "tumor_labels organ bundle"),
        ({"organ_labels": "tumor", "tumor": {"epochs": 2}}, "tumor_1 tumor_2 tumor_l organ bundle"),
    ],
)
def test_only_what_depends_on_a_value_is_done_again(trained, change, again):
    values = tiny_cohort.recipe().training.model_dump()
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    for line in pipeline(trained, trained.pipeline.work, [], **values).plan():
        expected = line.startswith(tuple(again.split()))
        assert line.endswith("(done)") != expected, line


def test_a_stage_needs_its_own_steps_only(trained):
    names = [step.name for step in trained.pipeline.steps("organ")]
    rounds = [f"teacher_{n}{part}" for n in (1, 2) for part in ("_data", "", "_labels")]
    first = ["coarse_data", "coarse_1", "pseudo_labels"]
    assert names == [*first, *rounds, "organ_data", "organ_1"]
    assert [step.name for step in trained.pipeline.steps("coarse")] == names[:2]


def test_the_organ_model_needs_only_the_tumor_weight_that_labels_its_cases(trained, tmp_path):
    chain = pipeline(trained, tmp_path, [], organ_labels="tumor")
    first = ["coarse_data", "coarse_1", "pseudo_labels", "tumor_data", "tumor_1"]
    labelled = [*first, "tumor_labels", "organ_data", "organ_1"]
    assert [step.name for step in chain.steps("organ")] == labelled
    assert [step.name for step in chain.steps("tumor")] == [*first, "tumor_2"]
    lines = chain.plan()
    assert "tumor_labels: pseudo-label 4 cases with the tumor model" in lines


def test_the_organ_model_starts_from_the_first_tumor_model(trained, tmp_path):
    organ = tiny_cohort.recipe().training.organ.model_copy(update={"start": "tumor"})
    chain = pipeline(trained, tmp_path, [], organ_labels="coarse", organ=organ.model_dump())
    first = ["coarse_data", "coarse_1", "pseudo_labels", "tumor_data", "tumor_1"]
    assert [step.name for step in chain.steps("organ")] == [*first, "organ_data", "organ_1"]
    assert chain.curriculum.organ.start is chain.curriculum.tumor
    assert start_of(chain.curriculum.organ, 1, None, "final") is not None


def test_organs_of_the_tumor_model_complete_the_ground_truth(trained, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(trained.pipeline.work, work)
    lines: list[str] = []
    pipeline(trained, work, lines, organ_labels="tumor").run("organ")
    done = [line.partition("]")[0] for line in lines if line.endswith("done before")]
    assert done == [f"[{number}/8" for number in range(1, 6)]
    again = pipeline(trained, work, lines, organ_labels="tumor")
    assert [line for line in again.plan("organ") if not line.endswith("(done)")] == []
    learner, truth = again.curriculum.organ, tiny_cohort.blocks()
    for case in again.curriculum.unfinished:
        pseudo = np.load(work / "tumor_labels" / f"{case.name}.npz")["ids"]
        assert set(np.unique(pseudo)) <= {0, *ORGAN_IDS}
        target = learner.target(case, read_scan(case.image).volume.geometry)
        known = np.isin(truth, list(case.annotated - {14}))
        assert np.array_equal(target[known], truth[known])
        offered = np.isin(pseudo, [i for i in ORGAN_IDS if i not in case.annotated])
        unknown = ~known & ~np.isin(truth, list(case.annotated))
        expected = np.where(offered, pseudo, 0)
        assert np.array_equal(target[unknown], expected[unknown])


def test_the_plan_says_how_many_cases_each_step_has_and_how_long_it_takes(trained, tmp_path):
    plan = "\n".join(pipeline(trained, tmp_path, []).plan())
    assert "coarse_data: prepare 2 of 6 cases" in plan
    assert "pseudo_labels: pseudo-label 4 cases" in plan
    assert "teacher_1_data: prepare 3 of 6 cases for the teacher, round 1" in plan
    assert "organ_data: prepare 6 cases" in plan
    assert "(done)" not in plan
    done = "\n".join(trained.pipeline.plan())
    assert done.count(" of 2 steps, about ") == done.count(" seconds (done)") == 6


def test_a_bundle_to_start_from_decides_the_networks(trained, tmp_path):
    fine = Pipeline(
        trained.dataset, trained.pipeline.work, tiny_cohort.recipe(), report=print,
        init=trained.pipeline.bundle,
    )  # fmt: skip
    done = [line.partition(":")[0] for line in fine.plan() if line.endswith("(done)")]
    assert done == ["coarse_data"]


def test_networks_start_from_those_of_a_bundle(trained, tmp_path):
    lines: list[str] = []
    Pipeline(
        trained.dataset, tmp_path, tiny_cohort.recipe(), device=CPU, report=lines.append,
        init=trained.pipeline.bundle,
    ).run("coarse")  # fmt: skip
    assert any(line.startswith("  starting from coarse of bundle ") for line in lines)
    assert (tmp_path / "training.html").is_file()  # of a stage alone too, which ends in no bundle


def test_the_selection_comes_last_and_decides_the_weights(trained):
    lines: list[str] = []
    chosen = Pipeline(
        trained.dataset, trained.pipeline.work, tiny_cohort.recipe(), device=CPU,
        report=lines.append, selection_set=trained.dataset,
    )  # fmt: skip
    plan = chosen.plan()
    assert [line for line in plan if not line.endswith("(done)")] == plan[-2:]
    assert plan[-2] == "selection: rank the kept weights on 6 cases"
    chosen.select()
    kept = {chosen.checkpoint_of(*which) for which in (("coarse", 1), ("tumor", 2), ("organ", 1))}
    assert kept == {"kept_00000002"}
    assert trained.pipeline.checkpoint_of("organ", 1) == "best"


@pytest.mark.parametrize(
    ("missing", "message"), [("full", "no case has all 13 organs"), ("tumor", "has tumors")]
)
def test_a_cohort_that_cannot_teach_is_refused(trained, tmp_path, missing, message):
    dataset = tiny_cohort.write(tmp_path / "cohort")
    manifest = json.loads((dataset / "manifest.json").read_text())
    for name in manifest:
        manifest[name] = [] if name.startswith(missing) else manifest[name]
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=message):
        Pipeline(dataset, tmp_path / "w", tiny_cohort.recipe(), report=print)


def test_a_recipe_without_training_is_refused(trained, tmp_path):
    recipe = tiny_cohort.recipe().model_copy(update={"training": None})
    with pytest.raises(UsageError, match="training"):
        Pipeline(trained.dataset, tmp_path, recipe, report=print)
