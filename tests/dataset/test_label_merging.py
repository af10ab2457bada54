"""What must hold whenever ground truth and a model's labels become one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cfseg.dataset.pseudo_labels import merge, organs_under_tumor
from cfseg.labels import ORGAN_IDS

SHAPE = (3, 4, 5)
IDS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 14))
ANNOTATED = st.frozensets(st.integers(1, 14))


@given(IDS, IDS, ANNOTATED)
def test_the_ground_truth_always_wins(truth, pseudo, annotated):
    known = np.isin(truth, list(annotated))
    assert (merge(truth, pseudo, annotated)[known] == truth[known]).all()


@given(IDS, IDS, ANNOTATED)
def test_merging_never_invents_a_label(truth, pseudo, annotated):
    merged = merge(truth, pseudo, annotated)
    assert ((merged == 0) | (merged == truth) | (merged == pseudo)).all()


@given(IDS, IDS, ANNOTATED)
def test_an_annotated_tumor_stays_and_no_other_is_added(truth, pseudo, annotated):
    merged = merge(truth, pseudo, annotated)
    expected = (truth == 14) if 14 in annotated else np.zeros(SHAPE, dtype=bool)
    assert np.array_equal(merged == 14, expected)


@given(IDS, IDS, ANNOTATED)
def test_an_annotated_organ_is_where_the_ground_truth_says_and_nowhere_else(
    truth, pseudo, annotated
):
    merged = merge(truth, pseudo, annotated)
    for organ in annotated:
        assert np.array_equal(merged == organ, truth == organ)


@given(IDS, IDS, ANNOTATED)
def test_the_organ_model_learns_organs_only_and_the_model_fills_tumors(truth, pseudo, annotated):
    target = organs_under_tumor(truth, pseudo, annotated)
    assert np.isin(target, [0, *ORGAN_IDS]).all()
    tumor = (truth == 14) if 14 in annotated else np.zeros(SHAPE, dtype=bool)
    assert np.array_equal(target[~tumor], merge(truth, pseudo, annotated)[~tumor])
    assert (target[tumor] == np.where(pseudo[tumor] == 14, 0, pseudo[tumor])).all()


@pytest.mark.parametrize("rule", [merge, organs_under_tumor])
def test_the_inputs_are_left_alone(rule):
    truth, pseudo = np.full(SHAPE, 14, np.uint8), np.full(SHAPE, 1, np.uint8)
    rule(truth, pseudo, {14})
    assert (truth == 14).all()
    assert (pseudo == 1).all()


def test_worked_by_hand():
    truth = np.array([1, 0, 2, 14, 0, 4], dtype=np.uint8)
    pseudo = np.array([5, 5, 1, 1, 14, 1], dtype=np.uint8)
    assert merge(truth, pseudo, {1, 14}).tolist() == [1, 5, 0, 14, 0, 0]
    assert organs_under_tumor(truth, pseudo, {1, 14}).tolist() == [1, 5, 0, 1, 0, 0]
