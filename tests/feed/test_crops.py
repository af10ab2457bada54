import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_cohort
import torch

from cfseg.dataset.cases import read_cases, read_labels
from cfseg.feed.chunked import Chunked
from cfseg.feed.crops import (
    Ahead,
    Cohort,
    Crops,
    Mixture,
    ResidentCase,
    Sampling,
    cohort,
    generator,
    label_voxels,
)
from cfseg.feed.planning import plan_stage
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


def sampling(oversample: float = 0.33, focus: float = 0.0, **sizes) -> Sampling:
    return Sampling(sizes.get("patch", PATCH), sizes.get("crop", CROP), oversample, focus)


def equal(one: Crops, other: Crops) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def drawn(source, steps: int = 60) -> Crops:
    """Return the crops of many steps, one after the other."""
    found = [source.crops(5, step, range(4)) for step in range(steps)]
    return Crops(
        *(torch.cat(part) for part in zip(*(vars(c).values() for c in found), strict=True))
    )


def test_a_crop_is_the_case_around_its_center_and_air_elsewhere(cases) -> None:
    found = drawn(Cohort(cases, sampling(), AIR), 10)
    assert found.hu.dtype == torch.int16
    assert found.labels.dtype == torch.uint8
    for hu, labels, number, center in zip(*vars(found).values(), strict=True):
        shape = cases[number].shape
        start = [
            int(c) - patch // 2 - (crop - patch) // 2
            for c, patch, crop in zip(center, PATCH, CROP, strict=True)
        ]
        z, y, x = np.meshgrid(
            *(a + np.arange(n) for a, n in zip(start, CROP, strict=True)), indexing="ij"
        )
        inside = np.logical_and.reduce(
            [(v >= 0) & (v < n) for v, n in zip((z, y, x), shape, strict=True)]
        )
        flat = (z * shape[1] + y) * shape[2] + x
        assert np.array_equal(hu.numpy(), np.where(inside, flat % 30_000, AIR))
        assert not labels.numpy()[~inside].any()


def test_a_patch_lies_within_a_case_that_is_large_enough(cases) -> None:
    patch = (38, 68, 70)  # two voxels smaller than the case
    for oversample in (0.0, 0.9):
        found = drawn(Cohort(cases[:1], sampling(oversample, patch=patch, crop=patch), AIR), 20)
        corners = found.center - torch.tensor([side // 2 for side in patch])
        assert all(set(side.tolist()) == {0, 1, 2} for side in corners.T)
    small = drawn(Cohort(cases[1:], sampling(0.5), AIR), 5)
    assert set(small.center[:, 0].tolist()) == {(20 - 24) // 2 + 12}  # in the middle


def test_labels_are_met_as_often_as_the_recipe_says(cases) -> None:
    size = {"patch": (4, 4, 4), "crop": (4, 4, 4)}
    held = ResidentCase(cases[0], CPU)

    def shares(oversample: float, focus: float) -> Counter[int]:
        found = drawn(Cohort([held], sampling(oversample, focus, **size), AIR), 250)
        return Counter(found.labels[:, 2, 2, 2].tolist())

    assert shares(0.0, 1.0)[0] > 980
    either = shares(1.0, 0.0)
    assert either[0] == 0
    assert either[14] == pytest.approx(500, abs=60)
    assert shares(1.0, 0.5)[14] == pytest.approx(750, abs=60)  # half of all, and half of the rest
    assert shares(1.0, 1.0)[1] == 0
    assert shares(0.33, 0.0)[0] == pytest.approx(670, abs=60)


def test_a_patch_is_centered_on_what_is_annotated_where_not_all_is(tmp_path) -> None:
    case = stored(tmp_path, "a", SHAPES[0], ignored=True)
    size = {"patch": (4, 4, 4), "crop": (4, 4, 4)}
    for held in (case, ResidentCase(case, CPU)):
        found = drawn(Cohort([held], sampling(0.2, **size), AIR))
        assert set(found.labels[:, 2, 2, 2].tolist()) == {0, 1, 14}


def test_a_case_without_labels_gives_crops_too(tmp_path) -> None:
    case = stored(tmp_path, "a", SHAPES[0], labels=())
    assert not drawn(Cohort([case], sampling(1.0), AIR), 3).labels.any()


def test_a_crop_depends_on_seed_step_and_sample_alone(cases) -> None:
    source = Cohort(cases, sampling(0.5, 0.5), AIR)
    whole = source.crops(3, 17, range(6))
    share = source.crops(3, 17, [5, 2])
    assert equal(share, Crops(*(part[[5, 2]] for part in vars(whole).values())))
    for other in (source.crops(4, 17, range(6)), source.crops(3, 18, range(6))):
        assert not equal(whole, other)
    draws = {tuple(generator(*key).integers(1 << 30, size=4)) for key in np.ndindex(3, 3, 3, 3)}
    assert len(draws) == 81


def test_memory_and_disk_give_the_same_crops(cases) -> None:
    rule = sampling(0.5, 0.5)
    budget = sum(case.held_bytes for case in cases) / 1e6
    with cohort(cases, rule, AIR, CPU, budget) as resident:
        assert isinstance(resident, Cohort)
        in_memory = drawn(resident, 8)
    with cohort(cases, rule, AIR, CPU, budget - 1e-6) as streamed:
        assert isinstance(streamed, Ahead)
        assert equal(drawn(streamed, 8), in_memory)
    assert equal(drawn(Cohort(cases, rule, AIR), 8), in_memory)


class Slow:
    """A source that notes which steps were asked for, and by whom."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.threads: set[int] = set()

    def crops(self, seed: int, step: int, samples) -> Crops:
        if step < 0:
            raise OSError(f"step {step}")
        self.steps.append(step)
        self.threads.add(threading.get_ident())
        return numbered(seed + step, samples)


def within_seconds(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.005)


def numbered(value: int, samples) -> Crops:
    found = Crops.empty(len(samples), (2, 2, 2), value, CPU)
    found.case[:] = torch.tensor(list(samples))
    return found


def test_the_coming_steps_are_made_ahead_each_once() -> None:
    slow = Slow()
    with Ahead(slow, 3) as source:
        for step in range(7, 12):
            found = source.crops(100, step, range(2))
            assert (found.hu == 100 + step).all()
            within_seconds(lambda: step + 3 in slow.steps)  # noqa: B023 - called at once
    assert sorted(slow.steps) == list(range(7, 15))
    assert threading.get_ident() not in slow.threads


def test_after_a_leap_the_right_step_comes() -> None:
    slow = Slow()
    with Ahead(slow, 2) as source:
        source.crops(0, 0, range(2))
        assert (source.crops(0, 90, range(2)).hu == 90).all()
        assert (source.crops(0, 91, range(3)).hu == 91).all()
        assert len(source.crops(0, 92, range(3)).hu) == 3


def test_an_error_of_a_thread_reaches_whoever_asks() -> None:
    with Ahead(Slow(), 2) as source, pytest.raises(OSError, match="step -5"):
        source.crops(0, -5, range(2))


class Made:
    """A source of made crops, as phantoms or rendered label maps are: all of one value."""

    def __init__(self, value: int) -> None:
        self.value = value

    def crops(self, seed: int, step: int, samples) -> Crops:
        return numbered(self.value, samples)


def test_sources_are_mixed_by_their_weights_sample_by_sample() -> None:
    source = Mixture([(Made(1), 3.0), (Made(2), 1.0), (Made(3), 0.0)])
    found = [source.crops(0, step, range(4)) for step in range(250)]
    counts = Counter(value for crops in found for value in crops.hu[:, 0, 0, 0].tolist())
    assert counts[1] == pytest.approx(750, abs=60)
    assert counts[3] == 0
    for step, crops in enumerate(found[:20]):
        assert crops.case.tolist() == [0, 1, 2, 3]  # in the order that was asked for
        alone = [int(source.crops(0, step, [sample]).hu[0, 0, 0, 0]) for sample in range(4)]
        assert alone == crops.hu[:, 0, 0, 0].tolist()


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
    rule = Sampling(plan.patch, (20, 20, 20), 1.0, tumor_focus=1.0)
    with cohort(cases, rule, plan.intensity.lower, CPU, budget_mb=0) as source:
        crops = drawn(source, 5)
    tumor = crops.hu[crops.labels == 14].float()
    assert float(tumor.mean()) == pytest.approx(-60 + 15 * 14, abs=1)
    assert crops.hu.min() >= round(plan.intensity.lower)
    assert crops.hu.max() <= round(plan.intensity.upper)
