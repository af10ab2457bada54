"""What must hold whenever ground truth and a model's labels become one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cfseg.dataset.label_names import IGNORE
from cfseg.dataset.pseudo_labels import (
    GROUND_TRUTH,
    IGNORED,
    PSEUDO,
    UNKNOWN,
    merge,
    organs_under_tumor,
    provenance,
    truth_is_kept,
)
from cfseg.labels import ORGAN_IDS

SHAPE = (3, 4, 5)
IDS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 14))
IDS_OR_IGNORE = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, IGNORE))
ANNOTATED = st.frozensets(st.integers(1, 14))
always = settings(deadline=None, max_examples=60)


@always
@given(IDS, IDS, ANNOTATED, st.booleans())
def test_the_ground_truth_always_wins(truth, pseudo, annotated, tumor):
    known = np.isin(truth, list(annotated))
    merged = merge(truth, pseudo, annotated, tumor=tumor)
    assert (merged[known] == truth[known]).all()
    assert truth_is_kept(truth, merged, annotated)


@always
@given(IDS, IDS, ANNOTATED, st.booleans())
def test_merging_never_invents_a_label(truth, pseudo, annotated, tumor):
    merged = merge(truth, pseudo, annotated, tumor=tumor)
    assert ((merged == 0) | (merged == truth) | (merged == pseudo)).all()


@always
@given(IDS, IDS, ANNOTATED)
def test_an_annotated_tumor_stays_and_no_other_is_added(truth, pseudo, annotated):
    merged = merge(truth, pseudo, annotated)
    expected = (truth == 14) if 14 in annotated else np.zeros(SHAPE, dtype=bool)
    assert np.array_equal(merged == 14, expected)


@always
@given(IDS, IDS, ANNOTATED, st.booleans())
def test_an_annotated_label_is_where_the_ground_truth_says_and_nowhere_else(
    truth, pseudo, annotated, tumor
):
    merged = merge(truth, pseudo, annotated, tumor=tumor)
    for label in annotated:
        assert np.array_equal(merged == label, truth == label)


@always
@given(IDS, IDS, ANNOTATED)
def test_the_organ_model_learns_organs_only_and_the_model_fills_tumors(truth, pseudo, annotated):
    target = organs_under_tumor(truth, pseudo, annotated)
    assert np.isin(target, [0, *ORGAN_IDS]).all()
    assert truth_is_kept(truth, target, annotated)
    tumor = (truth == 14) if 14 in annotated else np.zeros(SHAPE, dtype=bool)
    assert np.array_equal(target[~tumor], merge(truth, pseudo, annotated)[~tumor])
    assert (target[tumor] == np.where(pseudo[tumor] == 14, 0, pseudo[tumor])).all()


@always
@given(IDS, IDS, ANNOTATED, st.booleans())
def test_provenance_tells_truth_from_pseudo_labels(truth, pseudo, annotated, tumor):
    merged = merge(truth, pseudo, annotated, tumor=tumor)
    origin = provenance(truth, merged, annotated)
    assert np.array_equal(origin == UNKNOWN, merged == 0)
    assert np.array_equal(origin == GROUND_TRUTH, np.isin(truth, list(annotated)))
    assert (merged[origin == PSEUDO] == pseudo[origin == PSEUDO]).all()


@pytest.mark.parametrize("rule", [merge, organs_under_tumor])
@always
@given(truth=IDS_OR_IGNORE, pseudo=IDS, annotated=ANNOTATED)
def test_what_is_to_be_ignored_stays_so_and_nothing_else_becomes_it(rule, truth, pseudo, annotated):
    merged = rule(truth, pseudo, annotated)
    assert np.array_equal(merged == IGNORE, truth == IGNORE)
    assert truth_is_kept(truth, merged, annotated)
    assert np.array_equal(provenance(truth, merged, annotated) == IGNORED, truth == IGNORE)


def test_an_ignored_voxel_that_was_labelled_is_noticed():
    assert not truth_is_kept(np.array([IGNORE], np.uint8), np.array([1], np.uint8), {2})


def test_a_changed_truth_is_noticed():
    truth = np.array([1, 2, 14, 0], dtype=np.uint8)
    assert not truth_is_kept(truth, np.array([1, 3, 14, 0], np.uint8), {1, 2, 14})
    assert not truth_is_kept(truth, np.array([14, 2, 1, 0], np.uint8), {14})
    assert truth_is_kept(truth, np.array([3, 2, 14, 5], np.uint8), {2, 14})


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
    assert merge(truth, pseudo, {1}, tumor=True).tolist() == [1, 5, 0, 0, 14, 0]
    assert organs_under_tumor(truth, pseudo, {1, 14}).tolist() == [1, 5, 0, 1, 0, 0]
