"""T09: bad cases stop a training before any work, or are left out and named."""

import json

import nibabel as nib
import numpy as np
import pytest
import tiny_cohort
import torch

from cfseg.dataset import fitness
from cfseg.dataset.cases import read_cases
from cfseg.dataset.fitness import Fitness, check_fitness, readable_cases
from cfseg.dataset.problems import Problem
from cfseg.errors import InputError, UsageError
from cfseg.training.pipeline import Pipeline


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort.write(tmp_path / "cohort")


def spoil(cohort):
    """Damage the scan of one case and the label map of another."""
    (cohort / "imagesTr" / "unlabelled_0000.nii.gz").write_bytes(b"no scan")
    whole = (cohort / "labelsTr" / "tumor_b.nii.gz").read_bytes()
    (cohort / "labelsTr" / "tumor_b.nii.gz").write_bytes(whole[: len(whole) // 2])


def test_good_cases_are_those_of_the_cohort(cohort, tmp_path):
    found = check_fitness(cohort, tmp_path / "fitness.json")
    assert found.good == read_cases(cohort)
    assert found.problems == ()
    found.judge(print, skip_bad=False)


def test_without_a_manifest_what_is_present_is_annotated(cohort, tmp_path):
    (cohort / "manifest.json").unlink()
    memory = tmp_path / "fitness.json"
    for _ in range(2):
        assert check_fitness(cohort, memory).good == read_cases(cohort)


def test_a_file_is_read_once_and_again_when_it_changes(cohort, tmp_path, monkeypatch):
    memory, read = tmp_path / "fitness.json", []
    look = fitness.check_case
    monkeypatch.setattr(fitness, "check_case", lambda e: read.append(e.name) or look(e))
    check_fitness(cohort, memory)
    assert sorted(read) == sorted(tiny_cohort.ANNOTATED)
    read.clear()
    check_fitness(cohort, memory)
    assert read == []
    spoil(cohort)
    seen = []
    found = check_fitness(cohort, memory, on_case=lambda done, of: seen.append((done, of)))
    assert sorted(read) == ["tumor_b", "unlabelled"]
    assert seen == [(5, 6), (6, 6)]
    assert found.bad == {"tumor_b": "E_CORRUPT", "unlabelled": "E_FORMAT"}
    assert check_fitness(cohort, memory).bad == found.bad


def test_grids_are_remembered(cohort, tmp_path):
    memory = tmp_path / "fitness.json"
    image = nib.load(cohort / "imagesTr" / "full_a_0000.nii.gz")
    wide = nib.Nifti1Image(np.asarray(image.dataobj)[:20], np.diag([-1.0, -2.0, 5.0, 1.0]))
    nib.save(wide, cohort / "imagesTr" / "unlabelled_0000.nii.gz")
    first = check_fitness(cohort, memory).grids
    assert first["unlabelled"] == ((24, 24, 20), (5, 2, 1))
    assert first["full_a"] == ((24, 24, 24), (4, 4, 4))
    assert check_fitness(cohort, memory).grids == first
    spoil(cohort)
    assert check_fitness(cohort, memory).grids.keys() == first.keys() - {"tumor_b", "unlabelled"}


def test_it_is_the_same_cohort_by_a_relative_path(cohort, tmp_path, monkeypatch):
    memory, read = tmp_path / "fitness.json", []
    check_fitness(cohort, memory)
    monkeypatch.setattr(fitness, "check_case", read.append)
    monkeypatch.chdir(tmp_path)
    found = check_fitness(cohort.relative_to(tmp_path), memory)
    assert read == []
    assert len(found.good) == 6


def test_what_is_found_out_is_written_down_now_and_then(cohort, tmp_path, monkeypatch):
    written, write = [], fitness.write_json
    monkeypatch.setattr(
        fitness, "write_json", lambda file, found: written.append(len(found)) or write(file, found)
    )
    check_fitness(cohort, tmp_path / "a.json", jobs=1)
    assert written == [6]
    written.clear()
    monkeypatch.setattr(fitness, "_SAVE_EVERY_SECONDS", 0)
    check_fitness(cohort, tmp_path / "b.json", jobs=1)
    assert written == [1, 2, 3, 4, 5, 6]
    written.clear()
    check_fitness(cohort, tmp_path / "c.json", remember=False)
    assert written == []


def test_what_was_remembered_before_there_were_warnings_is_looked_at_again(cohort, tmp_path):
    memory = tmp_path / "fitness.json"
    said = json.loads((cohort / "manifest.json").read_text()) | {"full_a": [1, 2]}
    (cohort / "manifest.json").write_text(json.dumps(said))
    warned = check_fitness(cohort, memory).warnings
    assert [warning.code for warning in warned] == ["present_not_annotated"]
    assert check_fitness(cohort, memory).warnings == warned
    old = json.loads(memory.read_text())
    for record in old.values():
        del record["warnings"], record["voxels"]
        del record["files"][0]
    memory.write_text(json.dumps(old))
    assert check_fitness(cohort, memory).warnings == warned


def test_the_same_scan_twice_is_warned_of_however_it_is_known(cohort, tmp_path):
    scans = cohort / "imagesTr"
    (scans / "full_b_0000.nii.gz").write_bytes((scans / "full_a_0000.nii.gz").read_bytes())
    for _ in range(2):
        found = check_fitness(cohort, tmp_path / "fitness.json")
        (copy,) = found.warnings
        assert (copy.case, copy.code) == ("full_b", "duplicate_scan")
        assert "the scan of full_a" in copy.message


def test_many_warnings_are_cut_short(cohort):
    warnings = tuple(Problem(f"{n}", None, "situs", "x", "warning") for n in range(13))
    lines = []
    Fitness((), (), warnings).judge(lines.append, skip_bad=False)
    assert len(lines) == 11
    assert lines[-1] == "and 3 more warnings"


def test_all_bad_cases_are_listed_with_advice(cohort, tmp_path):
    spoil(cohort)
    with pytest.raises(InputError, match="--skip-bad") as caught:
        check_fitness(cohort, tmp_path / "fitness.json").judge(print, skip_bad=False)
    assert (caught.value.code, caught.value.exit_code) == ("E_BAD_CASES", 4)
    assert "2 of 6 cases" in caught.value.message
    for name in ("tumor_b: E_CORRUPT", "unlabelled: E_FORMAT"):
        assert name in " ".join(caught.value.details)


def test_the_others_are_read_even_without_a_manifest(cohort):
    spoil(cohort)
    (cohort / "manifest.json").unlink()
    names = [case.name for case in readable_cases(cohort)]
    assert names == sorted(set(tiny_cohort.ANNOTATED) - {"tumor_b"})
    with pytest.raises(InputError) as caught:
        readable_cases(cohort / "labelsTr")
    assert caught.value.code == "E_NO_CASES"


def pipeline(cohort, work, lines, *, skip_bad):
    return Pipeline(
        cohort,
        work,
        tiny_cohort.recipe(),
        device=torch.device("cpu"),
        report=lines.append,
        skip_bad=skip_bad,
    )


def test_training_stops_before_any_work(cohort, tmp_path):
    spoil(cohort)
    lines = []
    with pytest.raises(InputError, match="2 of 6 cases"):
        pipeline(cohort, tmp_path / "work", lines, skip_bad=False).run()
    assert lines == []
    assert not (tmp_path / "work" / "steps").exists()


def test_bad_cases_are_left_out_and_named(cohort, tmp_path):
    spoil(cohort)
    lines = []
    made = pipeline(cohort, tmp_path / "work", lines, skip_bad=True)
    made.check()
    assert [case.name for case in made.cases] == ["full_a", "full_b", "partial", "tumor_a"]
    assert made.left_out == {"tumor_b": "E_CORRUPT", "unlabelled": "E_FORMAT"}
    assert [line.partition(":")[0] for line in lines] == ["left out", "left out"]
    assert made._provenance()["left_out"] == made.left_out
    assert "prepare 4 cases for the organ model" in "\n".join(made.plan())


def test_what_is_left_has_to_suffice(cohort, tmp_path):
    for name in ("full_a", "full_b", "tumor_a"):
        (cohort / "imagesTr" / f"{name}_0000.nii.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="no case has all 13 organs"):
        pipeline(cohort, tmp_path / "work", [], skip_bad=True).check()


def test_labels_of_another_method_leave_no_path_in_the_provenance(cohort, tmp_path):
    import shutil

    given = shutil.copytree(cohort / "labelsTr", tmp_path / "given")
    for name in ("unlabelled", "partial"):
        shutil.copy(given / "full_a.nii.gz", given / f"{name}.nii.gz")
    made = Pipeline(
        cohort, tmp_path / "work", tiny_cohort.recipe(organ_labels=str(given)),
        device=torch.device("cpu"),
        report=print,
    )  # fmt: skip
    text = json.dumps(made._provenance())
    assert str(tmp_path) not in text
    assert "4 label maps of another method, sha256 " in text


def test_a_teacher_starts_from_a_bundle_with_an_organ_network(cohort, tmp_path, tiny_bundle):
    from cfseg.bundle.manifest import digest

    made = Pipeline(
        cohort, tmp_path / "work", tiny_cohort.recipe(), device=torch.device("cpu"), report=print,
        init=tiny_bundle,
    )  # fmt: skip
    assert {item.key: item.init for item in made.curriculum.learners} == dict.fromkeys(
        ("coarse", "tumor", "teacher_1", "teacher_2", "organ"), digest(tiny_bundle)
    )
