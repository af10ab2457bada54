"""Dice and cross-entropy against slow sums over voxels; tests/training/test_loop.py has nnU-Net."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfseg.errors import UsageError
from cfseg.learning import group
from cfseg.learning.losses import (
    IGNORE,
    DeepSupervision,
    Loss,
    at_resolution,
    head_weights,
    rare_label_weights,
)

CLASSES = 15


def batch(seed, ignore=0.0, tumor=True):
    """Return logits (2, C, 3, 4, 5) and labels (2, 3, 4, 5), some of them unknown."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES if tumor else CLASSES - 1, (2, 3, 4, 5)).astype(np.uint8)
    labels[draw.random(labels.shape) < ignore] = IGNORE
    logits = draw.normal(0, 2, (2, CLASSES, 3, 4, 5))
    return torch.from_numpy(logits), torch.from_numpy(labels)


def probabilities(logits, labels):
    """Return the known voxels of each window: probabilities (V, C) and ids (V,)."""
    for window, ids in zip(logits.softmax(1).numpy(), labels.numpy(), strict=True):
        known = ids != IGNORE
        yield window[:, known].T, ids[known]


def slow_dice(logits, labels, batch_dice, tumor_weight):
    sums = []
    for p, ids in probabilities(logits, labels):
        there = np.eye(CLASSES)[ids]
        sums.append([(p * there).sum(0), p.sum(0), there.sum(0)])
    sums = np.array(sums)
    sums = sums.sum(0, keepdims=True) if batch_dice else sums
    scores = (2 * sums[:, 0] + 1e-5) / (sums[:, 1] + sums[:, 2] + 1e-5)
    weights = np.array([1.0] * 13 + [tumor_weight])
    return np.average(scores[:, 1:], axis=1, weights=weights).mean()


def slow_cross_entropy(logits, labels, share, label_weights):
    losses, weights = [], []
    for p, ids in probabilities(logits, labels):
        own = label_weights[ids]
        found = sorted(-np.log(p[np.arange(len(ids)), ids]) * own, reverse=True)
        chosen = found[: max(1, round(share * len(ids)))] if share < 1 else found
        losses += chosen
        weights += [1.0] * len(chosen) if share < 1 else list(own)
    return sum(losses) / sum(weights)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 999), st.sampled_from([0.0, 0.4]), st.booleans(), st.booleans(),
    st.sampled_from([1.0, 4.5]), st.sampled_from([1.0, 0.3, 0.01]), st.booleans(),
)  # fmt: skip
def test_it_is_the_sum_over_voxels(seed, ignore, tumor, batch_dice, tumor_weight, share, weighted):
    logits, labels = batch(seed, ignore, tumor)
    weights = np.linspace(0.5, 2, CLASSES) if weighted else np.ones(CLASSES)
    loss = Loss(
        batch_dice=batch_dice, hard_voxels=share, tumor_dice_weight=tumor_weight,
        label_weights=weights.tolist() if weighted else None,
    )  # fmt: skip
    dice = slow_dice(logits, labels, batch_dice, tumor_weight)
    cross_entropy = slow_cross_entropy(logits, labels, share, weights)
    assert float(loss(logits, labels)) == pytest.approx(cross_entropy - dice, rel=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_what_is_unknown_moves_nothing(share):
    logits, labels = batch(1, ignore=0.5)
    logits.requires_grad_()
    Loss(batch_dice=True, hard_voxels=share)(logits, labels).backward()
    unknown = (labels == IGNORE)[:, None].expand_as(logits)
    assert logits.grad[unknown].abs().max() == 0
    assert logits.grad[~unknown].abs().max() > 1e-4


def test_a_batch_that_nobody_labelled_is_learned_nothing_from():
    logits, labels = batch(1)
    logits.requires_grad_()
    loss = Loss(batch_dice=False)(logits, torch.full_like(labels, IGNORE))
    loss.backward()
    assert loss.item() == -1
    assert not logits.grad.any()


def test_half_precision_is_summed_in_single():
    logits, labels = batch(2)
    half = logits.to(torch.bfloat16)
    found = Loss(batch_dice=False)(half, labels)
    assert found.dtype == torch.float32
    assert float(found) == float(Loss(batch_dice=False)(half.float(), labels))


def pull_on_a_false_tumor(lesion, **how):
    """Return how hard a loss pulls at the tumor that a network sees in the first of two windows.

    Args:
        lesion: whether the second window has a true tumor, half seen.
        how: the loss is made.
    """
    labels = torch.zeros(2, 6, 6, 6, dtype=torch.uint8)
    logits = torch.full((2, CLASSES, 6, 6, 6), -9.0)
    logits[:, 0] = 0
    logits[0, 14, :2] = 2
    if lesion:
        labels[1, :2] = 14
        logits[1, 14, :2] = 0
    logits.requires_grad_()
    Loss(**how)(logits, labels).backward()
    return float(logits.grad[0, 14, :2].sum())


def test_only_a_true_tumor_in_the_batch_lets_the_dice_loss_see_a_false_one():
    alone = pull_on_a_false_tumor(lesion=False, batch_dice=True)
    assert alone > 0.1
    apart = pull_on_a_false_tumor(lesion=True, batch_dice=False)
    once = pull_on_a_false_tumor(lesion=True, batch_dice=True) - apart
    several = pull_on_a_false_tumor(lesion=True, batch_dice=True, tumor_dice_weight=4.0) - apart
    assert once > 1e-3
    assert several / once == pytest.approx(4 * 14 / 17, rel=0.01)
    hard = pull_on_a_false_tumor(lesion=False, batch_dice=True, hard_voxels=1 / 3)
    assert hard == pytest.approx(3 * alone, rel=0.01)


def test_heads_weigh_half_of_the_finer_one_and_the_coarsest_nothing():
    assert head_weights(1) == (1.0,)
    assert head_weights(4) == pytest.approx((4 / 7, 2 / 7, 1 / 7, 0))
    heads = [torch.randn(2, CLASSES, n, n, n) for n in (8, 4, 2)]
    labels = torch.randint(0, CLASSES, (2, 8, 8, 8), dtype=torch.uint8)
    loss = Loss(batch_dice=False)
    found = DeepSupervision(loss, (0.75, 0.25, 0.0))(heads, labels)
    parts = [float(loss(heads[i], at_resolution(labels, heads[i].shape[2:]))) for i in (0, 1)]
    assert float(found) == pytest.approx(0.75 * parts[0] + 0.25 * parts[1])
    assert float(DeepSupervision(loss, (1.0,))(heads[0], labels)) == pytest.approx(parts[0])


def test_coarser_labels_are_those_in_the_middle():
    labels = torch.arange(6 * 4 * 4, dtype=torch.uint8).reshape(1, 6, 4, 4)
    found = at_resolution(labels, (2, 2, 4))
    assert found.tolist() == labels[:, 1::3][:, :, 1::2].tolist()
    nearest = torch.nn.functional.interpolate(labels[None].float(), (2, 2, 4), mode="nearest-exact")
    assert torch.equal(found, nearest[0].to(torch.uint8))


def test_rare_labels_weigh_more_and_all_voxels_together_the_same():
    assert rare_label_weights([900, 90, 10], 0.0) == (1, 1, 1)
    weights = rare_label_weights([900, 90, 10, 0], 0.5)
    assert weights[2] / weights[0] == pytest.approx(math.sqrt(90))
    assert sum(w * n for w, n in zip(weights, [900, 90, 10, 0], strict=True)) == pytest.approx(1000)


def test_a_batch_is_shared_evenly_or_not_at_all(monkeypatch):
    assert group.own_samples(3) == range(3)
    monkeypatch.setattr(group, "processes", lambda: 2)
    assert group.own_samples(4) == range(2)
    with pytest.raises(UsageError, match="a batch of 3 cannot be shared evenly by 2 processes"):
        group.own_samples(3)
