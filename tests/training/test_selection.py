import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cfseg.errors import InputError, ModelError, UsageError
from cfseg.geometry import Box, Geometry
from cfseg.inference.packed_memory import PackedMemory
from cfseg.inference.predictor import Stage
from cfseg.learning import checkpoints
from cfseg.recipes.recipe import Cascade
from cfseg.training.candidates import Candidate, candidates_of, role_of
from cfseg.training.selection import dsc_of, select
from cfseg.training.trained import write_plan
from cfseg.volume import LabelMap
from reading_networks import PLACES, SHAPE, Reader, reader, write_reading_case

CASCADE = Cascade.model_validate({"region": {"min_organs_ml": 0}})
ALL_BLIND = tuple(range(1, 14))
PLAN = reader("coarse", "coarse").plan


class Shelf:
    """Candidates whose networks can be counted afterwards."""

    def __init__(self) -> None:
        self.loaded: dict[str, Stage] = {}

    def candidate(self, network: str, epoch: int, blind: tuple[int, ...] = ()) -> Candidate:
        digest = f"{network}-{epoch}"

        def load() -> Stage:
            assert digest not in self.loaded, "loaded twice"
            self.loaded[digest] = reader(role_of(network), network, blind)
            return self.loaded[digest]

        return Candidate(f"kept_{epoch:08d}", epoch, digest, load)

    def passes(self, digest: str) -> int:
        network = self.loaded[digest].network
        assert isinstance(network, Reader)
        return network.passes


def one_of_each(shelf: Shelf) -> dict[str, list[Candidate]]:
    return {name: [shelf.candidate(name, 50)] for name in ("coarse", "tumor_1", "tumor_2", "organ")}


@pytest.fixture
def cases(tmp_path: Path):
    return [write_reading_case(tmp_path, name, PLACES) for name in ("a", "b")]


def test_each_network_wins_by_its_own_class(cases, tmp_path: Path) -> None:
    shelf = Shelf()
    candidates = {
        "coarse": [shelf.candidate("coarse", 50, ALL_BLIND), shelf.candidate("coarse", 100)],
        # The one that knows tumors wins although it knows no organ.
        "tumor_1": [
            shelf.candidate("tumor_1", 50, (14,)),
            shelf.candidate("tumor_1", 100, ALL_BLIND),
        ],
        "tumor_2": [shelf.candidate("tumor_2", 50, (14,))],
        "organ": [shelf.candidate("organ", 50), shelf.candidate("organ", 100, (3,))],
    }
    lines: list[str] = []
    found = select(candidates, CASCADE, cases, tmp_path / "selection", lines.append)
    epochs = {name: candidate.epoch for name, candidate in found.chosen.items()}
    assert epochs == {"coarse": 100, "tumor_1": 100, "tumor_2": 50, "organ": 50}
    assert [row.network for row in found.rows] == ["coarse"] * 2 + ["tumor_1"] * 2 + ["organ"] * 2
    assert [row.chosen for row in found.rows] == [False, True, False, True, True, False]
    tumor = [row.tumor_dsc for row in found.rows if row.network == "tumor_1"]
    assert tumor == [0.0, 1.0]
    assert sum("(chosen)" in line for line in lines) == 3
    assert json.loads(json.dumps(found.as_dict()))["chosen"]["organ"]["epoch"] == 50


def test_of_equals_the_best_by_validation_stays(cases, tmp_path: Path) -> None:
    shelf = Shelf()
    candidates = one_of_each(shelf) | {
        "organ": [shelf.candidate("organ", 200), shelf.candidate("organ", 100)]
    }
    found = select(candidates, CASCADE, cases[:1], tmp_path / "s", lambda _: None)
    assert found.chosen["organ"].epoch == 200


def test_what_does_not_depend_on_a_candidate_is_not_predicted_again(cases, tmp_path: Path) -> None:
    shelf = Shelf()
    candidates = one_of_each(shelf) | {
        "tumor_2": [shelf.candidate("tumor_2", epoch) for epoch in (50, 100, 150)],
        "organ": [shelf.candidate("organ", epoch) for epoch in (50, 100)],
    }
    select(candidates, CASCADE, cases, tmp_path / "s", lambda _: None)
    passes = {digest: shelf.passes(digest) for digest in shelf.loaded}
    assert len(passes) == 7
    # All look at boxes of one or two windows: as often as the coarse model at the body, at most.
    assert len(set(passes.values())) <= 2
    assert max(passes.values()) == passes["coarse-50"]


def test_scores_are_not_made_twice(cases, tmp_path: Path) -> None:
    def candidates(shelf: Shelf) -> dict[str, list[Candidate]]:
        more = [shelf.candidate("organ", 100, (3,)), shelf.candidate("organ", 50)]
        return one_of_each(shelf) | {"organ": more}

    stopped = Shelf()
    gone = replace(cases[1], image=tmp_path / "imagesTr" / "b.txt")
    gone.image.write_text("not a scan")
    with pytest.raises(InputError):
        select(candidates(stopped), CASCADE, [cases[0], gone], tmp_path / "s", lambda _: None)
    assert stopped.passes("organ-100") > 0
    scores = json.loads((tmp_path / "s" / "scores.json").read_text())
    assert {score["case"] for score in scores.values()} == {"a"}
    assert len(scores) == 2

    first = select(candidates(Shelf()), CASCADE, cases, tmp_path / "s", lambda _: None)
    assert len(json.loads((tmp_path / "s" / "scores.json").read_text())) == 4
    again = Shelf()
    second = select(candidates(again), CASCADE, cases, tmp_path / "s", lambda _: None)
    assert again.loaded == {}
    assert second.rows == first.rows

    other = Shelf()
    wider = CASCADE.model_copy(update={"gaussian": True})
    select(candidates(other), wider, cases[:1], tmp_path / "s", lambda _: None)
    assert len(other.loaded) == 5


def test_a_damaged_file_of_scores_is_no_obstacle(cases, tmp_path: Path) -> None:
    shelf = Shelf()
    (tmp_path / "scores.json").write_text('{"half')
    more = [shelf.candidate("organ", 100), shelf.candidate("organ", 50)]
    select(one_of_each(shelf) | {"organ": more}, CASCADE, cases[:1], tmp_path, lambda _: None)
    assert len(json.loads((tmp_path / "scores.json").read_text())) == 2


def test_without_a_choice_nothing_is_run(tmp_path: Path) -> None:
    shelf = Shelf()
    found = select(one_of_each(shelf), CASCADE, [], tmp_path / "s", lambda _: None)
    assert (shelf.loaded, found.rows) == ({}, ())
    assert set(found.chosen) == {"coarse", "tumor_1", "tumor_2", "organ"}
    assert not (tmp_path / "s").exists()


def test_wrong_calls_are_refused(cases, tmp_path: Path) -> None:
    shelf = Shelf()
    two = one_of_each(shelf) | {"organ": [shelf.candidate("organ", e) for e in (1, 2)]}
    for given, these, message in (
        (two, [], "no cases"),
        (two, [replace(cases[0], label=None)], "a has no label map"),
        (one_of_each(shelf) | {"organ": []}, cases, "organ has no weights"),
    ):
        with pytest.raises(UsageError, match=message):
            select(given, CASCADE, these, tmp_path / "s", lambda _: None)
    with pytest.raises(ValueError, match="tumor_3"):
        role_of("tumor_3")


def test_labels_on_another_grid_are_refused(cases, tmp_path: Path) -> None:
    shelf = Shelf()
    other = tmp_path / "other"
    small = {1: [Box((1, 1, 1), (5, 5, 5))]}
    moved = write_reading_case(other, "a", small)
    label = nib.load(moved.label)
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj)[:-1], label.affine), moved.label)
    more = [shelf.candidate("organ", 100), shelf.candidate("organ", 50)]
    with pytest.raises(InputError, match="different grids"):
        select(one_of_each(shelf) | {"organ": more}, CASCADE, [moved], tmp_path, lambda _: None)


def test_dsc_by_hand() -> None:
    geometry = Geometry.from_spacing((1, 1, 6), (1.0, 1.0, 1.0))
    found = LabelMap(np.array([[[1, 1, 2, 0, 14, 0]]], np.uint8), geometry)
    truth = LabelMap(np.array([[[1, 0, 3, 0, 14, 14]]], np.uint8), geometry)
    organs, tumor = dsc_of(found, truth)
    # Liver 2/3; 2 and 3 in one map only: 0; the other ten in neither: 1.
    assert organs == pytest.approx((2 / 3 + 10) / 13)
    assert tumor == pytest.approx(2 / 3)


def test_a_packed_memory_gives_back_what_went_in() -> None:
    memory = PackedMemory()
    ids = np.random.default_rng(0).integers(0, 15, SHAPE).astype(np.uint8)
    key = (("coarse",), Box.whole(SHAPE))
    memory[key] = LabelMap(ids, Geometry.from_spacing(SHAPE, (4.0, 4.0, 4.0)))
    assert (memory[key].ids == ids).all()
    assert memory[key].ids.flags.writeable
    assert list(memory) == [key]
    del memory[key]
    assert len(memory) == 0


def write_weights(folder: Path, kind: str, epoch: int, score: float | None = None) -> None:
    """Write weights as a training keeps them, or its last ones."""
    values = {"epoch": epoch, "score": score}
    if kind == "final":
        history = [{"epoch": n + 1, "loss": 1.0, "lr": 0.1, "score": None} for n in range(epoch)]
        values = {"state": {"history": history}}
    write_plan(folder, PLAN)
    checkpoints.write(folder, kind, 10 * epoch, {"w": torch.tensor([float(epoch)])}, values)


def test_candidates_are_the_kept_weights_best_first(tmp_path: Path) -> None:
    for epoch, score in ((50, 0.5), (100, 0.8), (150, 0.7), (200, None)):
        write_weights(tmp_path, "kept", epoch, score)
    write_weights(tmp_path, "final", 250)
    found = candidates_of(tmp_path, "tumor_1", torch.device("cpu"))
    assert [candidate.epoch for candidate in found] == [100, 150, 50, 200]
    assert found[0].checkpoint == "kept_00001000"
    assert len({candidate.digest for candidate in found}) == 4


def test_where_none_was_kept_there_is_one_candidate(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not trained to its end"):
        candidates_of(tmp_path, "coarse", torch.device("cpu"), fallback="best")
    write_weights(tmp_path, "final", 7)
    (found,) = candidates_of(tmp_path, "coarse", torch.device("cpu"), fallback="best")
    assert (found.checkpoint, found.epoch) == ("final_00000070", 7)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    write_weights(tmp_path, "kept", 5, 0.5)
    (tmp_path / "kept_00000050.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"kept_00000050\.safetensors: damaged"):
        candidates_of(tmp_path, "coarse", torch.device("cpu"))
