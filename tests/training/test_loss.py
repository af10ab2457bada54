"""Weights on tumors and on hard voxels, against slow sums over voxels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nnunetv2", reason="training needs cfseg[train]")
pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = 15


def plain(batch_dice):
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)


def adapted(batch_dice=False, hard_voxels=1.0, tumor_dice_weight=1.0, label_weights=None):
    from cfseg.training.loss import adapt

    loss = plain(batch_dice)
    adapt(
        loss, hard_voxels=hard_voxels, tumor_dice_weight=tumor_dice_weight,
        label_weights=label_weights,
    )  # fmt: skip
    return loss


def windows(seed, tumor=True):
    """Return logits and ids of two small windows."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, CLASSES if tumor else CLASSES - 1, (2, 1, 3, 4, 5))
    logits = rng.normal(0, 2, (2, CLASSES, 3, 4, 5)).astype(np.float32)
    return torch.from_numpy(logits), torch.from_numpy(ids.astype(np.int16))


def dice_by_label(logits, ids, batch_dice):
    """Return the soft Dice of each label, (windows or 1, 14), one voxel at a time."""
    rows = []
    for window, truth in zip(logits.numpy(), ids.numpy()[:, 0], strict=True):
        both, seen, there = np.zeros(CLASSES), np.zeros(CLASSES), np.zeros(CLASSES)
        for voxel in np.ndindex(truth.shape):
            p = np.exp(window[(slice(None), *voxel)].astype(float))
            p /= p.sum()
            seen += p
            both[truth[voxel]] += p[truth[voxel]]
            there[truth[voxel]] += 1
        rows.append((both, seen, there))
    sums = np.array(rows)
    sums = sums.sum(axis=0, keepdims=True) if batch_dice else sums
    return ((2 * sums[:, 0] + 1e-5) / (sums[:, 1] + sums[:, 2] + 1e-5))[:, 1:]


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("weight", [2.0, 4.5])
@pytest.mark.parametrize("tumor", [False, True])
def test_the_tumor_counts_as_several_labels(batch_dice, weight, tumor):
    logits, ids = windows(0, tumor)
    found = adapted(batch_dice, tumor_dice_weight=weight).dc(logits, ids)
    scores = dice_by_label(logits, ids, batch_dice)
    weights = np.array([1.0] * 13 + [weight])
    expected = -((scores * weights).sum(axis=1) / weights.sum()).mean()
    assert float(found) == pytest.approx(expected, rel=1e-4)


def pull_on_a_false_tumor(loss, lesion):
    """Return how hard a loss pulls at the tumor that a network sees in the first of two windows.

    Args:
        loss: of logits and ids.
        lesion: whether the second window has a true tumor, half seen.
    """
    ids = torch.zeros(2, 1, 6, 6, 6)
    logits = torch.full((2, CLASSES, 6, 6, 6), -9.0)
    logits[:, 0] = 0
    logits[0, 14, :2] = 2
    if lesion:
        ids[1, 0, :2] = 14
        logits[1, 14, :2] = 0
    logits.requires_grad_()
    loss(logits, ids).backward()
    return float(logits.grad[0, 14, :2].sum())


def test_only_a_true_tumor_in_the_batch_lets_the_dice_loss_see_a_false_one():
    cross_entropy, dice = plain(batch_dice=True).ce, plain(batch_dice=True).dc
    alone = pull_on_a_false_tumor(cross_entropy, lesion=False)
    assert alone > 0.1
    assert pull_on_a_false_tumor(dice, lesion=False) < 1e-4 * alone
    assert pull_on_a_false_tumor(plain(batch_dice=False).dc, lesion=True) < 1e-4 * alone
    once = pull_on_a_false_tumor(dice, lesion=True)
    weighed = adapted(batch_dice=True, tumor_dice_weight=4.0).dc
    several = pull_on_a_false_tumor(weighed, lesion=True)
    assert several / once == pytest.approx(4 * 14 / 17, rel=0.01)
    hard = adapted(hard_voxels=1 / 3).ce
    assert pull_on_a_false_tumor(hard, lesion=False) == pytest.approx(3 * alone, rel=0.01)


def test_the_hardest_voxels_of_each_window_by_hand():
    # Two labels, four voxels a window; the loss of a voxel is log(1 + exp(wrong - right)).
    margins = torch.tensor([[3.0, 0.0, -1.0, 5.0], [2.0, 2.5, 4.0, 1.0]])
    logits = torch.stack([margins, torch.zeros(2, 4)], dim=1).reshape(2, 2, 1, 2, 2)
    ids = torch.zeros(2, 1, 2, 2)
    hardest = [(-1.0, 0.0), (1.0, 2.0)]
    expected = [math.log1p(math.exp(-m)) for pair in hardest for m in pair]
    found = adapted(hard_voxels=0.5).ce(logits, ids)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)
    single = [math.log1p(math.exp(1.0)), math.log1p(math.exp(-1.0))]
    assert float(adapted(hard_voxels=0.01).ce(logits, ids)) == pytest.approx(np.mean(single))


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_fewer_voxels_are_harder_and_all_are_nnunets(seed, share):
    from cfseg.training.loss import HardVoxels

    logits, ids = windows(seed)
    everything = plain(batch_dice=False).ce(logits, ids)
    assert float(HardVoxels(1.0)(logits, ids)) == pytest.approx(float(everything), rel=1e-5)
    assert float(HardVoxels(share)(logits, ids)) >= float(everything) - 1e-5


def test_a_batch_that_is_shared_has_the_same_loss():
    logits, ids = windows(2)
    loss = adapted(hard_voxels=0.1).ce
    parts = [float(loss(logits[i : i + 1], ids[i : i + 1])) for i in (0, 1)]
    assert float(loss(logits, ids)) == pytest.approx(np.mean(parts))


def test_hard_voxels_and_weights_of_labels_go_together():
    logits, ids = windows(3)
    weights = torch.ones(CLASSES)
    weights[14] = 10
    found = adapted(hard_voxels=1e-3, label_weights=weights).ce(logits, ids)
    log_p = torch.log_softmax(logits, dim=1).gather(1, ids.long())[:, 0]
    worst = (-log_p * weights[ids.long()[:, 0]]).flatten(1).amax(1)
    assert float(found) == pytest.approx(float(worst.mean()), rel=1e-5)


def test_without_a_wish_the_loss_is_nnunets_own():
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss

    loss = adapted()
    assert type(loss.dc) is MemoryEfficientSoftDiceLoss
    assert type(loss.ce) is RobustCrossEntropyLoss
    assert (loss.dc.apply_nonlin is None, loss.ce.weight) == (False, None)
    for seed in range(3):
        assert torch.equal(loss(*windows(seed)), plain(batch_dice=False)(*windows(seed)))
