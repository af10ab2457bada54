from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_cohort
import torch

from cfseg.dataset.cases import read_cases, read_labels
from cfseg.feed.chunked import Chunked
from cfseg.feed.crops import (
    Cohort,
    Crop,
    Mixture,
    ResidentCase,
    Sampling,
    cohort,
    label_voxels,
)
from cfseg.feed.planning import plan_stage
from cfseg.feed.randomness import generator
from cfseg.feed.store import ANNOTATED, IGNORE, Origin, Store, StoredCase, survey
from cfseg.io import read_scan
from cfseg.volume import LabelMap, Volume

AIR = -160
CPU = torch.device("cpu")
SHAPES = ((40, 70, 72), (20, 30, 90))
"""The second is smaller than the patch along two axes."""
PATCH, CROP = (24, 36, 40), (31, 48, 53)


def stored(folder: Path, name: str, shape, labels=(1, 14), *, ignored: bool = False) -> StoredCase:
    """Store a case whose HU say where a voxel is, with a cube of each label."""
    flat = np.arange(np.prod(shape)).reshape(shape)
    ids = np.zeros(shape, dtype=np.uint8)
    for number, label in enumerate(labels):
        ids[4:8, 4 + 10 * number : 10 + 10 * number, 60:66] = label
    if ignored:
        ids[:, :, :50] = IGNORE
    hu, map_ = folder / f"{name}.hu.b2nd", folder / f"{name}.labels.b2nd"
    Chunked.write(hu, (flat % 30_000).astype(np.int16))
    present = np.unique(ids).tolist()
    places = {label: np.flatnonzero(ids == label).astype(np.int32) for label in present if label}
    if ignored:
        places[ANNOTATED] = np.flatnonzero(ids != IGNORE).astype(np.int32)
    Chunked.write(map_, ids, {label: int((ids == label).sum()) for label in present}, places)
    found = [Chunked.find(file) for file in (hu, map_)]
    assert found[0] is not None
    assert found[1] is not None
    return StoredCase(name, found[0], found[1])


@pytest.fixture
def cases(tmp_path) -> list[StoredCase]:
    return [stored(tmp_path, f"case{i}", shape) for i, shape in enumerate(SHAPES)]


def sampling(oversample: float = 0.33, focus: float = 0.0, patch=PATCH) -> Sampling:
    return Sampling(patch, oversample, focus)


def equal(one: Crop, other: Crop) -> bool:
    return one[2:] == other[2:] and all(map(torch.equal, one[:2], other[:2]))


def drawn(source, steps: int = 60, shape=CROP) -> list[Crop]:
    """Return the crops of many steps, one after the other."""
    return [source.crop(5, step, sample, shape) for step in range(steps) for sample in range(4)]


def middles(crops: list[Crop]) -> Counter[int]:
    """Return how often each label is at the center of a crop of 4 x 4 x 4 voxels."""
    return Counter(int(crop.labels[2, 2, 2]) for crop in crops)


def test_a_crop_is_the_case_around_its_center_and_air_elsewhere(cases) -> None:
    shapes = {case.name: case.shape for case in cases}
    for hu, labels, name, center in drawn(Cohort(cases, sampling(), AIR), 10):
        assert (hu.dtype, labels.dtype) == (torch.int16, torch.uint8)
        start = [
            c - patch // 2 - (crop - patch) // 2
            for c, patch, crop in zip(center, PATCH, CROP, strict=True)
        ]
        z, y, x = np.meshgrid(
            *(a + np.arange(n) for a, n in zip(start, CROP, strict=True)), indexing="ij"
        )
        shape = shapes[name]
        inside = np.logical_and.reduce(
            [(v >= 0) & (v < n) for v, n in zip((z, y, x), shape, strict=True)]
        )
        flat = (z * shape[1] + y) * shape[2] + x
        assert np.array_equal(hu.numpy(), np.where(inside, flat % 30_000, AIR))
        assert not labels.numpy()[~inside].any()


def test_the_center_of_a_crop_does_not_depend_on_its_shape(cases) -> None:
    source = Cohort(cases, sampling(), AIR)
    for small, large in zip(drawn(source, 5, PATCH), drawn(source, 5), strict=True):
        z, y, x = (slice((c - p) // 2, (c - p) // 2 + p) for p, c in zip(PATCH, CROP, strict=True))
        assert equal(small, Crop(large.hu[z, y, x], large.labels[z, y, x], *large[2:]))


def test_a_patch_lies_within_a_case_that_is_large_enough(cases) -> None:
    patch = (38, 68, 70)  # two voxels smaller than the case
    for oversample in (0.0, 0.9):
        found = drawn(Cohort(cases[:1], sampling(oversample, patch=patch), AIR), 20, patch)
        corners = np.array([crop.center for crop in found]) - [side // 2 for side in patch]
        assert all(set(side.tolist()) == {0, 1, 2} for side in corners.T)
    small = drawn(Cohort(cases[1:], sampling(0.5), AIR), 5)
    assert {crop.center[0] for crop in small} == {(20 - 24) // 2 + 12}  # in the middle


def test_labels_are_met_as_often_as_the_recipe_says(cases) -> None:
    size = (4, 4, 4)
    held = ResidentCase.of(cases[0], CPU)

    def shares(oversample: float, focus: float) -> Counter[int]:
        return middles(drawn(Cohort([held], sampling(oversample, focus, size), AIR), 250, size))

    assert shares(0.0, 1.0)[0] > 980
    either = shares(1.0, 0.0)
    assert either[0] == 0
    assert either[14] == pytest.approx(500, abs=60)
    assert shares(1.0, 0.5)[14] == pytest.approx(750, abs=60)  # half of all, and half of the rest
    assert shares(1.0, 1.0)[1] == 0
    assert shares(0.33, 0.0)[0] == pytest.approx(670, abs=60)


def test_a_patch_is_centered_on_what_is_annotated_where_not_all_is(tmp_path) -> None:
    case = stored(tmp_path, "a", SHAPES[0], ignored=True)
    size = (4, 4, 4)
    for held in (case, ResidentCase.of(case, CPU)):
        assert set(middles(drawn(Cohort([held], sampling(0.2, patch=size), AIR), 60, size))) == {
            0, 1, 14,
        }  # fmt: skip


def test_a_case_without_labels_gives_crops_too(tmp_path) -> None:
    case = stored(tmp_path, "a", SHAPES[0], labels=())
    assert not any(crop.labels.any() for crop in drawn(Cohort([case], sampling(1.0), AIR), 3))


def test_a_crop_depends_on_seed_step_and_sample_alone(cases) -> None:
    source = Cohort(cases, sampling(0.5, 0.5), AIR)
    keys = [(3, 17, 5), (3, 17, 2), (4, 17, 5), (3, 18, 5)]
    once = [source.crop(*key, CROP) for key in keys]
    again = [source.crop(*key, CROP) for key in reversed(keys)]
    assert all(map(equal, once, reversed(again)))
    assert not any(equal(once[0], other) for other in once[1:])
    draws = {tuple(generator(*key).integers(1 << 30, size=4)) for key in np.ndindex(3, 3, 3, 3)}
    assert len(draws) == 81


def test_memory_and_disk_give_the_same_crops(cases) -> None:
    rule = sampling(0.5, 0.5)
    budget = sum(case.held_bytes for case in cases) / 1e6
    in_memory = drawn(cohort(cases, rule, AIR, CPU, budget), 8)
    files = [file for case in cases for file in (case.hu.file, case.labels.file)]
    streamed = cohort(cases, rule, AIR, CPU, budget - 1e-6)
    assert all(map(equal, drawn(streamed, 8), in_memory))
    resident = cohort(cases, rule, AIR, CPU, budget)
    for file in files:
        file.unlink()
    assert all(map(equal, drawn(resident, 8), in_memory))


class Made:
    """A source of made crops, as phantoms or rendered label maps are: all of one value."""

    def __init__(self, value: int) -> None:
        self.value = value

    def crop(self, seed: int, step: int, sample: int, shape) -> Crop:
        hu = torch.full(shape, self.value, dtype=torch.int16)
        return Crop(hu, torch.zeros(shape, dtype=torch.uint8), "made", (0, 0, 0))


def test_sources_are_mixed_by_their_weights_sample_by_sample() -> None:
    source = Mixture([(Made(1), 3.0), (Made(2), 1.0), (Made(3), 0.0)])
    counts = Counter(int(crop.hu[0, 0, 0]) for crop in drawn(source, 250, (2, 2, 2)))
    assert counts[1] == pytest.approx(750, abs=60)
    assert counts[3] == 0


def test_labels_are_counted_without_reading_them_again(cases) -> None:
    counts = label_voxels(cases, 15)
    assert counts[[1, 14]].tolist() == [2 * 4 * 6 * 6] * 2
    assert counts.sum() == sum(np.prod(shape) for shape in SHAPES)


def test_a_cohort_becomes_crops(tmp_path) -> None:
    """From files to what the network is fed: labels, grid and range fit each other."""
    recipe = tiny_cohort.recipe().training
    assert recipe is not None
    found = [c for c in read_cases(tiny_cohort.write(tmp_path / "cohort")) if c.has_tumor]

    def origin(case) -> Origin:
        def read() -> tuple[Volume, LabelMap]:
            return read_scan(case.image).volume, read_labels(case)

        return Origin(case.name, "scan", "truth", read)

    origins = [origin(case) for case in found]
    facts = survey(origins, tmp_path / "facts", recipe.z_margin_slices)
    plan = plan_stage("tumor", recipe.tumor, facts)
    cases = Store(tmp_path / "data", plan).write(origins, facts)
    rule = Sampling(plan.patch, 1.0, tumor_focus=1.0)
    source = cohort(cases, rule, plan.intensity.lower, CPU, budget_mb=0)
    crops = drawn(source, 5, (20, 20, 20))
    hu, labels = (torch.stack(parts) for parts in list(zip(*crops, strict=True))[:2])
    assert float(hu[labels == 14].float().mean()) == pytest.approx(-60 + 15 * 14, abs=1)
    assert hu.min() >= round(plan.intensity.lower)
    assert hu.max() <= round(plan.intensity.upper)
