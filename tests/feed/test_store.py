import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfseg.dataset.label_names import IGNORE as READ_AS_IGNORED
from cfseg.errors import InputError, ResourceError
from cfseg.feed import store as subject
from cfseg.feed.chunked import Chunked, spans
from cfseg.feed.store import (
    ANNOTATED,
    IGNORE,
    Origin,
    Store,
    check_room,
    plan_bytes,
    prune,
    stored_hu,
    survey,
)
from cfseg.geometry import Geometry
from cfseg.plan import Architecture, Intensity, Resampling, StagePlan
from cfseg.preprocessing.prepare import network_shape, prepare
from cfseg.volume import LabelMap, Volume

SHAPE = (20, 24, 28)
MARGIN = 2
INTENSITY = Intensity(lower=-200, upper=300, mean=60, std=100)


def plan_of(**values) -> StagePlan:
    architecture = Architecture(
        features=(4, 8), kernel_sizes=((3, 3, 3),) * 2, strides=((1, 1, 1), (2, 2, 2)),
        n_conv_encoder=(1, 1), n_conv_decoder=(1,),
    )  # fmt: skip
    whole = {
        "spacing_mm": (4.0, 3.0, 3.0), "patch": (16, 16, 16), "labels": range(15),
        "architecture": architecture, "intensity": INTENSITY,
    }  # fmt: skip
    return StagePlan.model_validate(whole | values)


class Cases:
    """Cases that count how often they are read."""

    def __init__(self, names: str = "abc", *, ignored: bool = False) -> None:
        self.reads: list[str] = []
        self.ignored = ignored
        self.origins = [Origin(name, f"scan {name}", "truth", self.reader(name)) for name in names]

    def reader(self, name: str):
        def read() -> tuple[Volume, LabelMap]:
            self.reads.append(name)
            rng = np.random.default_rng(ord(name))
            geometry = Geometry.from_spacing(SHAPE, (3.0, 2.0, 2.0))
            ids = np.zeros(SHAPE, dtype=np.uint8)
            ids[6:14, 4:20, 4:12], ids[8:12, 6:18, 14:20] = 1, 14
            if self.ignored:
                ids[:, :, 22:] = READ_AS_IGNORED
            hu = rng.normal(50, 200, SHAPE).astype(np.float32)
            return Volume(hu, geometry), LabelMap(ids, geometry)

        return read

    def facts(self, folder: Path):
        return survey(self.origins, folder / "facts", MARGIN, jobs=1)

    def write(self, folder: Path, plan: StagePlan | None = None, **more):
        facts = self.facts(folder)
        return Store(folder / "data", plan or plan_of()).write(self.origins, facts, 1, **more)


def whole(case) -> tuple[np.ndarray, np.ndarray]:
    hu = torch.zeros(case.shape, dtype=torch.int16)
    labels = torch.zeros(case.shape, dtype=torch.uint8)
    case.read((0, 0, 0), hu, labels)
    return hu.numpy(), labels.numpy()


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("rule", [Resampling(), Resampling(normalize_first=False)])
def test_what_is_stored_is_what_inference_sees(transpose, rule) -> None:
    volume = Cases().reader("a")()[0]
    seen = Intensity(lower=-160.4, upper=301.7, mean=71.3, std=83.1)
    plan = plan_of(intensity=seen, transpose=transpose, resampling=rule)
    inferred = prepare(volume, plan).image * seen.std + seen.mean
    stored = torch.from_numpy(stored_hu(volume, plan))
    assert stored.dtype == torch.int16
    assert float((stored - inferred).abs().max()) <= 0.5 + 1e-3


def test_a_case_comes_back_cut_to_its_slices(tmp_path) -> None:
    cases, plan = Cases("a"), plan_of()
    case = cases.write(tmp_path, plan)[0]
    volume, _ = cases.reader("a")()
    cut = Volume(volume.hu[4:16], Geometry.from_spacing((12, *SHAPE[1:]), (3.0, 2.0, 2.0)))
    hu, ids = whole(case)
    assert np.array_equal(hu, stored_hu(cut, plan))
    assert case.shape == ids.shape == network_shape(cut.geometry, plan)
    assert set(np.unique(ids)) == {0, 1, 14}
    assert case.voxels == {label: int((ids == label).sum()) for label in (0, 1, 14)}
    for label in (1, 14):
        places = case.locations(label)
        assert len(places) == min(case.voxels[label], subject.LOCATIONS)
        assert len(set(places.tolist())) == len(places)
        assert (ids.ravel()[places] == label).all()


def test_a_few_voxels_stand_for_a_large_label(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(subject, "LOCATIONS", 50)
    case = Cases("a").write(tmp_path)[0]
    ids = whole(case)[1]
    places = case.locations(1)
    assert len(places) == 50
    z = np.unravel_index(places, case.shape)[0]
    inside = np.flatnonzero((ids == 1).any(axis=(1, 2)))
    assert (z.min(), z.max()) == (inside[0], inside[-1])  # drawn from all of it


def test_voxels_that_nobody_annotated_are_kept_apart(tmp_path) -> None:
    case = Cases("a", ignored=True).write(tmp_path)[0]
    ids = whole(case)[1]
    assert (ids == IGNORE).any()
    assert READ_AS_IGNORED not in ids
    annotated = ids.ravel()[case.locations(ANNOTATED)]
    assert set(annotated) == {0, 1, 14}
    assert case.voxels[IGNORE] == (ids == IGNORE).sum()


def test_a_second_run_reads_nothing(tmp_path) -> None:
    cases, told = Cases(), []
    first = cases.write(tmp_path, on_case=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]
    cases.reads.clear()
    assert cases.write(tmp_path) == first
    assert cases.reads == []


def test_a_stopped_run_goes_on(tmp_path, monkeypatch) -> None:
    cases = Cases()
    facts = cases.facts(tmp_path)
    store = Store(tmp_path / "data", plan_of())
    written = Chunked.write
    calls = []

    def stop_at_fourth(*args) -> None:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        written(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Chunked, "write", stop_at_fourth)
        with pytest.raises(KeyboardInterrupt):
            store.write(cases.origins, facts, 1)
    cases.reads.clear()
    assert [case.name for case in store.write(cases.origins, facts, 1)] == ["a", "b", "c"]
    assert "a" not in cases.reads


@pytest.mark.parametrize("harm", ["cut", "record", "gone"])
def test_a_damaged_case_is_stored_anew(tmp_path, harm) -> None:
    cases = Cases("ab")
    hu = cases.write(tmp_path)[1].hu
    before = hu.file.read_bytes()
    if harm == "cut":
        hu.file.write_bytes(before[:-7])
    elif harm == "record":
        hu.file.with_suffix(".json").write_text("{")
    else:
        hu.file.unlink()
    cases.reads.clear()
    cases.write(tmp_path)
    assert cases.reads == ["b"]
    assert hu.file.read_bytes() == before


def test_a_damaged_file_is_named(tmp_path) -> None:
    case = Cases("a").write(tmp_path)[0]
    contents = bytearray(case.hu.file.read_bytes())
    contents[len(contents) // 2] ^= 255
    case.hu.file.write_bytes(contents)
    with pytest.raises(InputError, match=r"a\..*hu\.b2nd is damaged") as caught:
        case.hu.verify()
    assert caught.value.code == "E_CORRUPT"
    case.labels.verify()
    case.labels.file.write_bytes(b"no array")
    with pytest.raises(InputError, match=r"labels\.b2nd is damaged"):
        whole(case)
    case.labels.file.unlink()
    with pytest.raises(InputError, match="gone"):
        case.locations(1)


def test_stages_that_agree_share_a_scan(tmp_path) -> None:
    cases = Cases("a")
    first = cases.write(tmp_path)[0]
    others = Cases("a")
    others.origins = [replace(origin, labels="merged") for origin in others.origins]
    wide = Intensity(lower=-200, upper=300, mean=1, std=2)  # mean and deviation do not count
    second = others.write(tmp_path, plan_of(intensity=wide, patch=(32, 32, 32)))[0]
    assert second.hu == first.hu
    assert second.labels.file != first.labels.file


@pytest.mark.parametrize(
    "values",
    [{"spacing_mm": (4.0, 3.0, 3.1)}, {"transpose": (1, 0, 2)},
     {"intensity": Intensity(lower=-150, upper=300, mean=60, std=100)},
     {"resampling": Resampling(order=1)}],
)  # fmt: skip
def test_stages_that_differ_do_not(tmp_path, values) -> None:
    assert Store(tmp_path, plan_of()).folder != Store(tmp_path, plan_of(**values)).folder


def test_only_what_no_stage_needs_is_removed(tmp_path) -> None:
    kept = Cases("a").write(tmp_path)
    gone = Cases("b").write(tmp_path)[0]
    freed = prune(tmp_path / "data", {kept[0].hu.file, kept[0].labels.file})
    assert freed == gone.hu.bytes + gone.labels.bytes
    assert not gone.hu.file.exists()
    kept[0].hu.verify()
    assert len(list((tmp_path / "data").glob("*/*"))) == 5  # two files, their records, grid.json


def test_what_it_takes_is_known_before(tmp_path) -> None:
    cases, plan = Cases(), plan_of()
    size = plan_bytes(cases.facts(tmp_path), plan)
    stored = cases.write(tmp_path, plan)
    voxels = int(np.prod(stored[0].shape))
    assert (size.cases, size.largest, size.held) == (3, voxels, 3 * 3 * voxels)
    assert size.held == sum(case.held_bytes for case in stored)


def test_a_disk_without_room_is_refused_before_anything_is_read(tmp_path, monkeypatch) -> None:
    cases = Cases()
    facts = cases.facts(tmp_path)
    size = plan_bytes(facts, plan_of())
    usage = type("Usage", (), {"free": size.stored - 1})
    monkeypatch.setattr(subject.shutil, "disk_usage", lambda _: usage)
    cases.reads.clear()
    with pytest.raises(ResourceError, match=r"3 cases take about .* are free") as caught:
        Store(tmp_path / "none" / "data", plan_of()).write(cases.origins, facts, 1)
    assert caught.value.code == "E_DISK"
    assert cases.reads == []
    usage.free = size.stored
    check_room(tmp_path, size)


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch) -> None:
    cases = Cases("a")
    facts = cases.facts(tmp_path)

    def full(self, _contents) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ResourceError, match="the disk is full"):
            Store(tmp_path / "data", plan_of()).write(cases.origins, facts, 1)
    assert list((tmp_path / "data").glob("*/*a.*")) == []
    assert len(cases.write(tmp_path)) == 1


def test_a_disk_that_loses_what_was_written_is_named(tmp_path, monkeypatch) -> None:
    cases = Cases("ab")
    facts = cases.facts(tmp_path)
    monkeypatch.setattr(Store, "_write", lambda *_: None)
    with pytest.raises(ResourceError, match="of a is gone") as caught:
        Store(tmp_path / "data", plan_of()).write(cases.origins, facts, 1)
    assert caught.value.code == "E_DISK"


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.integers(1, 90)] * 3), st.tuples(*[st.integers(-60, 60)] * 3),
    st.tuples(*[st.integers(1, 100)] * 3),
)  # fmt: skip
def test_a_box_anywhere_is_what_the_array_has_there(tmp_path_factory, shape, start, size) -> None:
    rng = np.random.default_rng(sum(shape))
    array = rng.integers(-900, 900, shape).astype(np.int16)
    array[: shape[0] // 2] = 0  # Blosc2 does not write chunks of zeros
    file = tmp_path_factory.getbasetemp() / "box.b2nd"
    Chunked.write(file, array)
    found = Chunked.find(file)
    assert found is not None
    out = np.full(size, 7, dtype=np.int16)
    found.read(start, out)
    places = [begin + np.arange(length) for begin, length in zip(start, size, strict=True)]
    inside = [(at >= 0) & (at < length) for at, length in zip(places, shape, strict=True)]
    expected = np.full(size, 7, dtype=np.int16)
    there = np.ix_(*(at[here] for at, here in zip(places, inside, strict=True)))
    expected[np.ix_(*inside)] = array[there]
    assert np.array_equal(out, expected)


def test_a_box_beside_the_array_touches_no_chunk() -> None:
    assert spans(-5, 5, 10, 4) == []
    assert spans(10, 3, 10, 4) == []
    assert [span.chunk for span in spans(-1, 30, 10, 4)] == [0, 1, 2]
