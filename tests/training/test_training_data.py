"""What a network learns from, on disk: stored once, renewed case by case, and whole or not used."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

import tiny_cohort
from cfseg.bundle.manifest import read_manifest
from cfseg.dataset.cases import read_cases
from cfseg.dataset.digests import Digests
from cfseg.dataset.label_names import IGNORE as READ_AS_IGNORED
from cfseg.errors import ModelError
from cfseg.feed.store import IGNORE
from cfseg.training import data as subject
from cfseg.training.curriculum import Curriculum
from cfseg.training.data import is_whole, origin_of, prepare, read_lesson, remove_unused

WINDOW = (-200, 300)  # else each stage has a range of its own, and so scans of its own


class Cohort:
    """The tiny cohort, whose networks all see the same range of HU."""

    def __init__(self, folder, reads):
        self.dataset, self.work = tiny_cohort.write(folder / "cohort"), folder / "w"
        self.reads, recipe = reads, tiny_cohort.recipe()
        training = recipe.training
        stages = {name: getattr(training, name) for name in ("coarse", "tumor", "organ")}
        stages = {k: stage.model_copy(update={"window_hu": WINDOW}) for k, stage in stages.items()}
        self.training = training.model_copy(update=stages | {"organ_labels": "coarse"})

    def learners(self):
        """Return the networks as another run has them."""
        return Curriculum(read_cases(self.dataset), self.work, self.training, Digests()).learners

    def learner(self, key):
        return next(it for it in self.learners() if it.key == key)

    def prepare(self, key):
        """Store a network's cases; return them by name and how often scans were read."""
        self.reads.clear()
        learner = self.learner(key)
        prepare(learner, print, jobs=1)
        lesson = read_lesson(learner)
        return {c.name: c for c in (*lesson.learned, *lesson.held_out)}, sorted(self.reads)

    def change_labels(self, name):
        """Exchange two labels, so that no HU, slice or range changes."""
        file = self.dataset / "labelsTr" / f"{name}.nii.gz"
        image = nib.load(file)
        table = np.arange(15, dtype=np.uint8)
        table[[1, 3]] = 3, 1
        nib.save(nib.Nifti1Image(table[np.asarray(image.dataobj)], image.affine), file)


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    reads, read_scan = [], subject.read_scan
    monkeypatch.setattr(
        subject, "read_scan", lambda file, case: reads.append(case) or read_scan(file, case=case)
    )
    return Cohort(tmp_path, reads)


def stored(case):
    hu = torch.empty(case.shape, dtype=torch.int16)
    labels = torch.empty(case.shape, dtype=torch.uint8)
    case.read((0, 0, 0), hu, labels)
    return hu.numpy(), labels.numpy()


def test_cases_are_read_once(cohort):
    first, reads = cohort.prepare("coarse")
    assert sorted(first) == ["full_a", "full_b"]
    assert reads == ["full_a", "full_a", "full_b", "full_b"]  # for the plan, then to be stored
    again, reads = cohort.prepare("coarse")
    assert (again, reads) == (first, [])
    assert np.array_equal(stored(first["full_a"])[1], tiny_cohort.blocks() % 14)


def test_all_cases_are_learned_from_or_held_out(cohort):
    cohort.prepare("organ")
    lesson = read_lesson(cohort.learner("organ"))
    learned, held_out = ({c.name for c in part} for part in (lesson.learned, lesson.held_out))
    assert (len(learned), len(held_out)) == (5, 1)
    assert learned | held_out == set(tiny_cohort.ANNOTATED)


def test_other_labels_are_stored_anew_and_the_scan_stays(cohort):
    before, _ = cohort.prepare("coarse")
    written = before["full_a"].hu.file.stat().st_mtime_ns
    cohort.change_labels("full_a")
    after, reads = cohort.prepare("coarse")
    assert set(reads) == {"full_a"}
    assert after["full_b"] == before["full_b"]
    assert after["full_a"].hu == before["full_a"].hu
    assert after["full_a"].hu.file.stat().st_mtime_ns == written
    ids, blocks = stored(after["full_a"])[1], tiny_cohort.blocks() % 14
    assert np.array_equal(ids == 3, blocks == 1)
    assert np.array_equal(ids == 1, blocks == 3)


def test_another_series_in_the_same_folder_is_another_scan(cohort):
    case, series = read_cases(cohort.dataset)[0], cohort.work / "series"
    origins = []
    for number in range(2):
        (series / "deep").mkdir(parents=True, exist_ok=True)
        (series / "deep" / f"{number}.dcm").write_bytes(b"a slice")
        origins.append(origin_of(cohort.learner("coarse"), replace(case, image=series)))
    assert origins[0].scan != origins[1].scan


def test_networks_that_agree_share_what_is_stored(cohort):
    coarse, _ = cohort.prepare("coarse")
    tumor, _ = cohort.prepare("tumor")
    organ, reads = cohort.prepare("organ")
    assert not {"full_a", "full_b"} & set(reads)
    assert organ["full_a"] == coarse["full_a"]
    assert organ["tumor_a"].hu == tumor["tumor_a"].hu
    assert organ["tumor_a"].labels.file != tumor["tumor_a"].labels.file


def test_only_what_no_network_needs_is_removed(cohort):
    coarse, _ = cohort.prepare("coarse")
    cohort.prepare("organ")
    cohort.change_labels("full_a")
    renewed, _ = cohort.prepare("coarse")
    learners = cohort.learners()
    assert remove_unused(cohort.work, learners) == 0  # the organ model has not the new labels yet
    organ, _ = cohort.prepare("organ")
    freed = remove_unused(cohort.work, learners)
    assert freed == coarse["full_a"].labels.bytes
    assert not coarse["full_a"].labels.file.exists()
    for case in (*renewed.values(), *organ.values()):
        case.hu.verify()
        case.labels.verify()
    assert remove_unused(cohort.work, learners) == 0


def test_what_is_gone_of_another_network_keeps_nothing_from_being_removed(cohort):
    coarse, _ = cohort.prepare("coarse")
    tumor, _ = cohort.prepare("tumor")
    tumor["tumor_b"].labels.file.unlink()
    cohort.change_labels("full_a")
    cohort.prepare("coarse")
    remove_unused(cohort.work, cohort.learners())
    assert not coarse["full_a"].labels.file.exists()
    assert tumor["tumor_b"].hu.file.exists()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("plan.json", r"plan\.json: cannot be read; .*again"),
        ("cases.json", r"cases\.json: cannot be read; run cfseg train again"),
        ("hu", r"w/cases: what was stored of full_a is damaged or gone; run cfseg train again"),
        ("labels", r"what was stored of full_a is damaged or gone; run cfseg train again"),
    ],
)
@pytest.mark.parametrize("is_gone", [True, False])
def test_what_is_damaged_is_one_clear_error_and_is_made_again(cohort, harm, message, is_gone):
    before, _ = cohort.prepare("coarse")
    learner = cohort.learner("coarse")
    assert is_whole(learner)
    file = learner.folder / harm
    if harm in ("hu", "labels"):
        file = getattr(before["full_a"], harm).file
    whole = file.read_bytes()
    if is_gone:
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=message):
        read_lesson(learner)
    assert not is_whole(learner)
    after, reads = cohort.prepare("coarse")
    assert after == before
    assert set(reads) == ({"full_a"} if harm in ("hu", "labels") else set())
    assert file.read_bytes() == whole


# -- voxels that nobody annotated -----------------------------------------------------------------

UNKNOWN = np.s_[:, :, 18:]


@pytest.fixture
def ignoring(cohort):
    """The cohort, where nobody annotated one side of some cases; it says so by the value 200."""
    for name in ("full_a", "tumor_a", "partial"):
        file = cohort.dataset / "labelsTr" / f"{name}.nii.gz"
        image = nib.load(file)
        ids = np.asarray(image.dataobj).transpose(2, 1, 0).copy()
        ids[UNKNOWN] = 200
        nib.save(nib.Nifti1Image(ids.transpose(2, 1, 0), image.affine), file)
    said = json.loads((cohort.dataset / "manifest.json").read_text())
    (cohort.dataset / "manifest.json").write_text(json.dumps(said | {"ignore": 200}))
    return cohort


@pytest.mark.parametrize("key", ["coarse", "tumor", "organ"])
def test_unknown_voxels_are_stored_as_such(ignoring, key):
    cases, _ = ignoring.prepare(key)
    name = "tumor_a" if key == "tumor" else "full_a"
    ids = stored(cases[name])[1]
    assert (ids[UNKNOWN] == IGNORE).all()
    assert (ids[:, :, :18] != IGNORE).all()
    assert READ_AS_IGNORED not in ids
    assert cases[name].voxels[IGNORE] == ids[UNKNOWN].size
    assert (14 in ids) == (key == "tumor")


def test_unknown_voxels_are_no_agreement_between_rounds(ignoring):
    from cfseg.labelling.pseudo_labels import Teacher, label_cases
    from cfseg.training.teacher import FILE
    from cfseg.volume import LabelMap

    training = ignoring.training.model_copy(update={"organ_labels": "teacher"})
    curriculum = Curriculum(read_cases(ignoring.dataset), ignoring.work, training, Digests())
    rounds = [step for step in curriculum.steps if getattr(step, "name", "").startswith("teacher")]
    case = next(case for case in curriculum.unfinished if case.name == "partial")
    for number, labels in enumerate(rounds):
        labels.cases = (case,)

        def say(volume, number=number):
            ids = np.zeros(volume.geometry.shape, dtype=np.uint8)
            ids[0, 0, : 1 + number] = 5  # a second voxel in the second round
            ids[UNKNOWN] = 6  # nobody will look at it
            return LabelMap(ids, volume.geometry)

        label_cases([case], labels.folder, Teacher(say, str(number)), lambda done: None)
    curriculum.compare_rounds(rounds[-1])
    (change,) = json.loads((rounds[-1].folder / FILE).read_text())["change"].values()
    known = tiny_cohort.blocks()[:, :, :18]
    labelled = np.isin(known, tiny_cohort.FIVE).sum() + 2
    assert change == pytest.approx(1 / labelled, abs=1e-6)


def test_a_cohort_with_unknown_voxels_is_trained_on(ignoring, cfseg):
    words = ("train", ignoring.dataset, "-o", ignoring.work, "--recipe", "tiny", "--device", "cpu")
    keys = [f"training.{stage}.epochs=1" for stage in ("coarse", "tumor", "organ")]
    keys += ["training.iterations_per_epoch=1"]
    ended = cfseg(*words, "--threads", 1, *(word for key in keys for word in ("--set", key)))
    assert ended.code == 0, ended.err
    names = [entry.name for entry in read_manifest(ignoring.work / "bundle").stages]
    assert names == ["coarse", "tumor_1", "tumor_2", "organ"]
