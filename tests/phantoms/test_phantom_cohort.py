"""Cohorts: layout, proportions, geometry on disk, resuming. The phantoms themselves are stubs."""

import json
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cfseg.errors import UsageError
from cfseg.geometry import Geometry
from cfseg.labels import NAMES, ORGAN_IDS
from cfseg.phantoms import cohort
from cfseg.phantoms.cohort import apportion, assign_patterns, plan, write_cohort
from cfseg.phantoms.phantom import Phantom, PhantomSpec
from cfseg.volume import LabelMap, Volume

SPACING_MM = (3.0, 2.5, 2.0)


def stub(seed: int, index: int, spec: PhantomSpec) -> Phantom:
    """Return a tiny phantom: every label once, the liver on the patient's right."""
    hu = np.random.default_rng([seed, index]).integers(-100, 100, (5, 6, 7)).astype(np.int16)
    ids = np.zeros(hu.shape, dtype=np.uint8)
    ids.flat[100:114] = np.arange(1, 15)
    ids[0, 0, 0] = 1
    if spec.tumor is False:
        ids[ids == 14] = 0
    grid = Geometry.from_spacing((5, 6, 7), SPACING_MM)
    label_map = LabelMap(ids, grid)
    meta = {"seed": seed, "index": index, "volumes_ml": label_map.volumes_ml()}
    return Phantom(Volume(hu, grid), label_map, meta)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put the stub in place of the generator; return the indices that were asked for."""
    asked: list[int] = []

    def counted(seed: int, index: int, spec: PhantomSpec) -> Phantom:
        asked.append(index)
        return stub(seed, index, spec)

    monkeypatch.setattr(cohort, "generate", counted)
    return asked


def read_zyx(path: Path) -> np.ndarray:
    """Read a file as (z up, y back, x left), by its affine alone."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]


@pytest.mark.parametrize("spacing", ["3mm", "row"])
def test_files_lie_right_in_space(tmp_path: Path, calls: list[int], spacing: str) -> None:
    write_cohort(tmp_path, 24, 3, spacing)
    codes = set()
    for index in range(24):
        case = f"phantom_3_{index:04d}"
        image = nib.load(tmp_path / "imagesTr" / f"{case}_0000.nii.gz")
        label = nib.load(tmp_path / "labelsTr" / f"{case}.nii.gz")
        codes.add("".join(nib.aff2axcodes(image.affine)))
        expected = stub(3, index, PhantomSpec())
        np.testing.assert_array_equal(
            read_zyx(tmp_path / "imagesTr" / f"{case}_0000.nii.gz"), expected.volume.hu
        )
        np.testing.assert_array_equal(
            read_zyx(tmp_path / "labelsTr" / f"{case}.nii.gz"), expected.label_map.ids
        )
        np.testing.assert_allclose(image.affine, label.affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
        assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
    assert (len(codes) > 1) == (spacing == "row")


def test_dataset_json(tmp_path: Path, calls: list[int]) -> None:
    write_cohort(tmp_path, 2, 0, selection=1, test=1)
    described = json.loads((tmp_path / "dataset.json").read_text())
    assert described["channel_names"] == {"0": "CT"}
    assert described["file_ending"] == ".nii.gz"
    assert described["numTraining"] == 2
    assert described["labels"] == {"background": 0} | {n: i for i, n in NAMES.items()}
    for folder in ("selection", "test"):
        assert len(list((tmp_path / folder / "labelsTr").glob("*.nii.gz"))) == 1
        assert (tmp_path / folder / "dataset.json").exists()
    assert len(set(calls)) == 4, "no phantom is in two sets"


def test_groups_keep_only_annotated_labels(tmp_path: Path, calls: list[int]) -> None:
    write_cohort(tmp_path, 16, 2, groups=True, selection=1)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert len(manifest) == 16
    free = {case: said["absent"] for case, said in manifest.items() if isinstance(said, dict)}
    assert len(free) > 2
    assert all(absent == [14] for absent in free.values())
    for case, said in manifest.items():
        annotated = said["annotated"] if case in free else said
        assert (case in free) == (bool(annotated) and 14 not in annotated)
        path = tmp_path / "labelsTr" / f"{case}.nii.gz"
        assert path.exists() == bool(annotated)
        truth = read_zyx(tmp_path / "truth" / "labelsTr" / path.name)
        assert set(ORGAN_IDS) <= set(np.unique(truth))
        assert case not in free or 14 not in truth
        if annotated:
            kept = read_zyx(path)
            assert set(np.unique(kept)) - {0} == set(annotated)
            np.testing.assert_array_equal(kept, np.where(np.isin(truth, annotated), truth, 0))


def test_resumes_and_refuses_to_mix(tmp_path: Path, calls: list[int]) -> None:
    write_cohort(tmp_path, 3, 7)
    made = len(calls)
    (tmp_path / "meta" / "phantom_7_0001.json").unlink()
    write_cohort(tmp_path, 3, 7)
    assert calls[made:] == [1]
    with pytest.raises(UsageError, match="other values"):
        write_cohort(tmp_path, 3, 8)
    assert not list(tmp_path.rglob("*tmp-*"))


def test_progress_counts_every_case(tmp_path: Path, calls: list[int]) -> None:
    seen: list[tuple[int, int]] = []
    write_cohort(tmp_path, 2, 1, test=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_proportions_of_the_published_cohort() -> None:
    found = Counter(assign_patterns(4000, seed=0))
    everything = (*ORGAN_IDS, 14)
    five = (1, 2, 3, 4, 13)
    assert found[()] == 1800
    assert found[ORGAN_IDS] == 219
    assert found[everything] == 888
    assert abs(found[(*five, 14)] - 592) <= 1
    assert found[five] == 438
    assert sum(n for pattern, n in found.items() if 14 in pattern) == 1497


@given(cases=st.integers(8, 300), seed=st.integers(0, 5))
def test_every_group_has_a_case(cases: int, seed: int) -> None:
    patterns = assign_patterns(cases, seed)
    assert len(patterns) == cases
    assert () in patterns
    assert ORGAN_IDS in patterns
    assert any(14 in p for p in patterns)
    assert any(p and 14 not in p and p != ORGAN_IDS for p in patterns)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=6), st.integers(0, 500))
def test_apportion_is_off_by_less_than_one(weights: list[int], total: int) -> None:
    parts = apportion(weights, total)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - weight / sum(weights) * total) < 1


def test_plan_says_which_phantoms_have_tumors(tmp_path: Path) -> None:
    for job in plan(tmp_path, 40, 0, groups=True):
        assert job.tumor == ((14 in job.annotated) if job.annotated else None)


def test_command(tmp_path: Path, calls: list[int]) -> None:
    import typer

    from cfseg.cli.phantom import phantom

    app = typer.Typer()
    app.command()(phantom)
    asked = [
        str(tmp_path / "made"),
        "--cases",
        "2",
        "--seed",
        "4",
        "--test",
        "1",
        "--quiet",
        "--jobs",
        "1",
    ]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "made" / "imagesTr").glob("*_0000.nii.gz"))) == 2
    assert len(list((tmp_path / "made" / "test" / "imagesTr").glob("*_0000.nii.gz"))) == 1


def test_a_small_cohort_may_ask_for_more_full_cases():
    patterns = assign_patterns(120, 0, full=10)
    assert len(patterns) == 120
    assert patterns.count(ORGAN_IDS) == 10
    others = [p for p in patterns if p != ORGAN_IDS]
    assert others.count(()) == round(110 * 1800 / 3781)
    assert assign_patterns(4000, 0, full=10) == assign_patterns(4000, 0)


def test_full_cases_alone_are_no_cohort():
    with pytest.raises(UsageError, match="leave none"):
        assign_patterns(20, 0, full=18)


@pytest.mark.slow
def test_several_processes_make_the_same_cohort(tmp_path: Path) -> None:
    for name, jobs in (("one", 1), ("two", 2)):
        write_cohort(tmp_path / name, 2, 6, jobs=jobs)
    made = {
        path.relative_to(tmp_path / "one"): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    assert len(made) == 8
    for name, contents in made.items():
        assert (tmp_path / "two" / name).read_bytes() == contents
