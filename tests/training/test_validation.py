"""How good a network is so far, on whole cases; the one here reads labels off the HU."""

import signal

import numpy as np
import pytest
import torch
from reading_networks import PLACES, SHAPE, Reader, reader, volume_of

from cfseg.feed.store import IGNORE
from cfseg.inference.predictor import Windows
from cfseg.learning.stopping import Stop
from cfseg.training import validation as subject
from cfseg.training.validation import Validation, label_scores, mean_of_means

ORGANS = {label: PLACES[label] for label in (1, 3)}


class HeldCase:
    """A case in memory, as the store has it."""

    def __init__(self, name, places=ORGANS):
        volume, labels = volume_of(places)
        self.name, self.shape = name, SHAPE
        self.hu = torch.from_numpy(volume.hu.astype(np.int16))
        self.labels = torch.from_numpy(labels.ids.copy())

    def read(self, start, hu, labels):
        assert start == (0, 0, 0)
        hu.copy_(self.hu)
        labels.copy_(self.labels)


@pytest.fixture
def blind(monkeypatch):
    """Let a network that reads the label off the HU run; labels put in here it does not see."""
    unseen = []

    def load(plan, weights, device, backend):
        assert sorted(weights) == ["bias", "weight"]
        return Reader(len(plan.labels), tuple(unseen))

    monkeypatch.setattr(subject, "load", load)
    return unseen


def validation(cases, annotated, role="organ", at_most=9, stop=None, on_look=None):
    windows, plan = Windows(step=1.0), reader(role, role).plan
    stop = stop or Stop()
    return Validation(role, plan, cases, annotated, windows, at_most, stop, on_look)


def score(*arguments, **options):
    return validation(*arguments, **options)(torch.nn.Linear(1, 1), 1)


def test_a_perfect_network_scores_one(blind):
    cases = [HeldCase("a"), HeldCase("b")]
    assert score(cases, dict.fromkeys("ab", frozenset({1, 3}))) == 1
    assert score([HeldCase("c", PLACES)], {"c": frozenset({14})}, role="tumor") == 1


def test_a_label_that_is_not_found_scores_nothing(blind):
    blind.append(3)
    cases = [HeldCase("a"), HeldCase("b")]
    assert score(cases, dict.fromkeys("ab", frozenset({1, 3}))) == 0.5


def test_only_what_is_annotated_in_a_case_is_judged(blind):
    blind.append(3)
    both, one = frozenset({1, 3}), frozenset({1})
    assert score([HeldCase("a")], {"a": one}) == 1
    cases = [HeldCase("a"), HeldCase("b")]
    # The spleen counts as much as the liver although only one case knows it.
    assert score(cases, {"a": one, "b": both}) == 0.5


def test_pseudo_labels_are_judged_only_if_there_is_nothing_else(blind):
    cases, nobody = [HeldCase("a"), HeldCase("b")], {"a": frozenset(), "b": frozenset()}
    some = validation(cases, nobody | {"b": frozenset({1})})
    assert [case.name for case in some.cases] == ["b"]
    none = validation(cases, nobody)
    assert [case.name for case in none.cases] == ["a", "b"]
    blind.append(3)
    assert none(torch.nn.Linear(1, 1), 1) == 0.5


def test_the_tumor_model_is_judged_by_the_tumor_alone(blind):
    blind.extend([1, 3])
    both = frozenset({1, 3, 14})
    assert score([HeldCase("a", PLACES)], {"a": both}, role="tumor") == 1


def test_a_tumor_where_there_is_none_scores_nothing_and_without_one_there_is_no_score(blind):
    annotated = {"a": frozenset({14})}
    free = HeldCase("a", PLACES)
    free.labels[free.labels == 14] = 1
    assert score([free], annotated, role="tumor") == 0
    blind.append(14)
    assert score([free], annotated, role="tumor") is None


def test_voxels_that_nobody_annotated_are_left_out(blind):
    case = HeldCase("a")
    case.labels[case.labels == 3] = IGNORE  # the network goes on seeing a spleen there
    assert score([case], {"a": frozenset({1, 3})}) == 1
    case.labels[case.labels == IGNORE] = 0
    assert score([case], {"a": frozenset({1, 3})}) == 0.5


def test_scores_by_hand():
    found = np.array([1, 1, 2, 3, 0], dtype=np.uint8)
    truth = np.array([1, 0, IGNORE, 3, 3], dtype=np.uint8)
    assert label_scores(found, truth, frozenset({1, 2, 3, 4})) == {
        1: pytest.approx(2 / 3),
        3: pytest.approx(2 / 3),
    }
    assert mean_of_means([{1: [0.5], 2: [1.0]}, {1: [0.7]}]) == pytest.approx(0.8)
    assert mean_of_means([{}, {}]) is None


@pytest.mark.parametrize(("at_most", "names"), [(3, "adg"), (10, "abcdefghij"), (1, "a")])
def test_cases_are_limited_and_evenly_spread(at_most, names):
    cases = [HeldCase(name) for name in "abcdefghij"]
    annotated = dict.fromkeys("abcdefghij", frozenset({1}))
    assert "".join(c.name for c in validation(cases, annotated, at_most=at_most).cases) == names


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_ends_it_after_the_case_under_way(blind, number, end):
    stop, seen = Stop(), []

    def look(name, hu, truth, found, score):
        seen.append((name, score))
        stop.take_note(number, None)

    cases = [HeldCase(name) for name in "abc"]
    with pytest.raises(end) as caught:
        score(cases, dict.fromkeys("abc", frozenset({1})), stop=stop, on_look=look)
    assert seen == [("a", 1)]
    assert number != signal.SIGTERM or caught.value.code == 143


def test_processes_share_the_cases_and_have_the_same_score(blind, monkeypatch):
    cases = [HeldCase(name) for name in "abc"]
    cases[1].labels[cases[1].labels == 3] = 0
    annotated, parts, seen = dict.fromkeys("abc", frozenset({1, 3})), [], []
    alone = score(cases, annotated)
    monkeypatch.setattr(subject, "processes", lambda: 2)
    monkeypatch.setattr(subject, "of_all", lambda found: parts.append(found) or [found])
    for rank in (0, 1):
        monkeypatch.setattr(subject, "rank", lambda rank=rank: rank)
        score(cases, annotated, on_look=lambda name, *_: seen.append(name))
    assert seen == ["a", "c", "b"]
    assert mean_of_means(parts) == alone == pytest.approx((1 + 2 / 3) / 2)
