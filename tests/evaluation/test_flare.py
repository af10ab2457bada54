"""Every rule and quirk of the official evaluation, worked out by hand, and random cases."""

import math

import numpy as np
import pytest
from slow_scores import (
    SPACING_MM,
    TOLERANCES_MM,
    degraded,
    random_labels,
    slow_case,
    slow_corrected,
    slow_lesions,
    slow_means,
    slow_surface_dice,
)

from cfseg.errors import UsageError
from cfseg.evaluation.flare import CaseScores, score_case, summarize
from cfseg.evaluation.scores import rounded
from cfseg.labels import LABELS

UNIT = (1.0, 1.0, 1.0)
SHAPE = (12, 12, 10)
LIVER, AORTA, IVC, LEFT_ADRENAL, ESOPHAGUS, TUMOR = 1, 5, 6, 8, 10, 14


def block(label, i, j, k, into=None):
    made = np.zeros(SHAPE, dtype=np.uint8) if into is None else into.copy()
    made[slice(*i), slice(*j), slice(*k)] = label
    return made


def scores(pred, ref, label):
    case = score_case(pred, ref, UNIT)
    return case.dsc[label], case.nsd[label]


def every(dsc, nsd=None):
    """A case with the same score for every label."""
    ids = [label.id for label in LABELS]
    return CaseScores("a", dict.fromkeys(ids, dsc), dict.fromkeys(ids, dsc if nsd is None else nsd))


EMPTY = np.zeros(SHAPE, dtype=np.uint8)
REF = {label: block(label, (4, 8), (4, 8), (2, 6)) for label in range(1, 15)}


@pytest.mark.parametrize("label", range(1, 15))
def test_empty_maps(label):
    assert scores(EMPTY, EMPTY, label) == (1, 1)
    assert scores(REF[label], EMPTY, label) == (0, 0)
    assert scores(EMPTY, REF[label], label) == (0, 0)
    assert scores(REF[label], REF[label], label) == (1, 1)


@pytest.mark.parametrize("label", [AORTA, IVC, ESOPHAGUS])
def test_tubular_organs_count_on_labelled_slices_only_and_without_the_last(label):
    beyond = block(label, (4, 8), (4, 8), (0, 10))
    wrong_in_last = block(0, (0, 12), (0, 12), (5, 6), into=REF[label])
    wrong_in_first = block(0, (0, 12), (0, 12), (2, 3), into=REF[label])
    assert scores(beyond, REF[label], label) == (1, 1)
    assert scores(wrong_in_last, REF[label], label) == (1, 1)
    # Slices 2, 3, 4 remain of the reference, 3 and 4 of the prediction.
    assert scores(wrong_in_first, REF[label], label)[0] == round(2 * 2 / 5, 4)


@pytest.mark.parametrize("label", [LIVER, LEFT_ADRENAL, TUMOR])
def test_other_labels_count_everywhere(label):
    beyond = block(label, (4, 8), (4, 8), (0, 10))
    assert scores(beyond, REF[label], label)[0] == round(2 * 4 / 14, 4)


def test_the_last_slice_is_the_last_one_as_stored():
    wrong_in_last = block(0, (0, 12), (0, 12), (5, 6), into=REF[AORTA])
    flipped = wrong_in_last[:, :, ::-1], REF[AORTA][:, :, ::-1]
    assert scores(wrong_in_last, REF[AORTA], AORTA)[0] == 1
    assert scores(*flipped, AORTA)[0] == round(2 * 2 / 5, 4)


@pytest.mark.parametrize("slices", [(5, 6), (0, 2), (7, 9)])
def test_whether_a_map_is_empty_is_decided_on_the_whole_volume(slices):
    # Nothing of the prediction lies on the slices that count, yet it is not empty.
    elsewhere = block(AORTA, (4, 8), (4, 8), slices)
    assert scores(elsewhere, REF[AORTA], AORTA) == (0, 0)
    assert scores(elsewhere, EMPTY, AORTA) == (0, 0)


def test_dice_under_one_fifth_makes_the_surface_score_zero():
    at_the_limit = block(LIVER, (0, 9), (0, 1), (0, 1))
    below = block(LIVER, (0, 10), (0, 1), (0, 1))
    voxel = block(LIVER, (0, 1), (0, 1), (0, 1))
    dsc, nsd = scores(voxel, at_the_limit, LIVER)
    assert dsc == 0.2
    assert nsd > 0.5
    assert scores(voxel, below, LIVER) == (round(2 / 11, 4), 0)


@pytest.mark.parametrize("label", [AORTA, IVC, ESOPHAGUS])
def test_one_slice_of_a_tubular_organ_leaves_nothing_to_judge(label):
    one = block(label, (4, 8), (4, 8), (3, 4))
    case = score_case(one, one, UNIT)
    assert math.isnan(case.dsc[label])
    assert math.isnan(case.nsd[label])
    summary = summarize([case, every(1.0)])
    key = next(row.abbreviation for row in LABELS if row.id == label)
    assert math.isnan(summary.means[f"{key}_DSC"])
    assert math.isnan(summary.means["Organ_NSD"])
    assert summary.means["Lesion_DSC"] == 1
    assert scores(one, REF[LIVER], label) == (0, 0)


def test_tolerance_of_each_label_counts_as_within():
    for label, tolerance_mm in TOLERANCES_MM.items():
        ref = np.zeros((40, 8, 4), dtype=np.uint8)
        ref[5:25, 2:6] = label
        pred = np.zeros_like(ref)
        pred[5 + tolerance_mm : 25 + tolerance_mm, 2:6] = label
        assert score_case(pred, ref, UNIT).nsd[label] == 1
        assert score_case(pred, ref, (1.001, 1.0, 1.0)).nsd[label] < 1


def test_values_that_are_no_labels_are_background():
    strange = np.where(REF[LIVER] == 0, np.uint8(20), REF[LIVER])
    case = score_case(strange, REF[LIVER], UNIT)
    assert set(case.dsc.values()) == set(case.nsd.values()) == {1.0}


def test_spacing_of_the_slices_counts():
    pred = block(LEFT_ADRENAL, (4, 8), (4, 8), (3, 7))
    assert score_case(pred, REF[LEFT_ADRENAL], (1, 1, 2)).nsd[LEFT_ADRENAL] == 1
    assert score_case(pred, REF[LEFT_ADRENAL], (1, 1, 2.5)).nsd[LEFT_ADRENAL] < 1


def test_a_case_with_all_labels_equals_the_official_figures():
    """Computed by the official script's steps with surface-distance 0.1 and float32 zooms."""
    pred, ref = official_case()
    case = score_case(pred, ref, tuple(float(np.float32(mm)) for mm in (0.8, 0.8, 2.5)))
    assert list(zip(case.dsc.values(), case.nsd.values(), strict=True)) == OFFICIAL


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_equal_the_slow_implementation(seed):
    rng = np.random.default_rng(seed)
    ref = random_labels(rng, (11, 9, 12), 14)
    pred = degraded(rng, ref)
    case = score_case(pred, ref, SPACING_MM)
    for label, expected in slow_case(pred, ref).items():
        found = case.dsc[label], case.nsd[label]
        assert found == pytest.approx(expected, abs=1e-9, nan_ok=True), label


@pytest.fixture(scope="module")
def phantoms(phantom):
    """A phantom with tumors, coarsely and in two ways, and what a bad model could make of it."""
    rng, pairs = np.random.default_rng(5), []
    for start in (0, 3):
        ids = phantom.label_map.ids.T[start::6, start::6, start::6]
        pairs.append((degraded(rng, ids), ids))
    return pairs


def test_phantoms_equal_the_slow_implementation_down_to_the_means(phantoms):
    ours, slow = [], []
    for pred, ref in phantoms:
        ours.append(score_case(pred, ref, SPACING_MM))
        slow.append(slow_case(pred, ref))
        for label, expected in slow[-1].items():
            assert (ours[-1].dsc[label], ours[-1].nsd[label]) == expected, label
    assert summarize(ours).means == slow_means(slow)


def test_phantoms_equal_the_slow_implementation_without_the_quirks(phantoms):
    for pred, ref in phantoms:
        case = score_case(pred, ref, SPACING_MM, mode="corrected")
        for label, expected in slow_corrected(pred, ref).items():
            dsc, nsd, low_mm, high_mm = expected
            assert case.dsc[label] == pytest.approx(dsc, abs=5e-5)
            assert case.nsd[label] == pytest.approx(nsd, abs=5e-5)
            hd95_mm = case.hd95_mm[label]
            assert math.isnan(low_mm) == math.isnan(hd95_mm)
            assert math.isnan(hd95_mm) or low_mm - 1e-9 <= hd95_mm <= high_mm + 1e-9
        voxel_ml = math.prod(SPACING_MM) / 1000
        lesions, false_positives = slow_lesions(pred == TUMOR, ref == TUMOR)
        found = sorted(
            (round(one.volume_ml / voxel_ml), round(one.covered * one.volume_ml / voxel_ml))
            for one in case.lesions.lesions
        )
        assert (found, case.lesions.false_positives) == (lesions, false_positives)
        assert case.volume_ml[1] == pytest.approx((pred == 1).sum() * voxel_ml)


CORRECTED = {
    "every labelled slice of a tubular organ counts": (
        block(0, (0, 12), (0, 12), (5, 6), into=REF[AORTA]), REF[AORTA], AORTA, 2 * 3 / 7,
    ),
    "only those": (block(IVC, (4, 8), (4, 8), (0, 10)), REF[IVC], IVC, 1.0),
    "one slice is enough": (
        block(ESOPHAGUS, (4, 8), (4, 8), (3, 4)), block(ESOPHAGUS, (4, 8), (4, 8), (3, 4)),
        ESOPHAGUS, 1.0,
    ),
    "nothing on these slices": (
        block(AORTA, (4, 8), (4, 8), (0, 2)), REF[AORTA], AORTA, 0.0,
    ),
    "nothing is rounded": (
        block(LIVER, (0, 1), (0, 1), (0, 2)), block(LIVER, (0, 1), (0, 1), (0, 1)), LIVER, 2 / 3,
    ),
    "both empty": (EMPTY, EMPTY, LIVER, 1.0),
    "one empty": (REF[LIVER], EMPTY, LIVER, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("rule", CORRECTED)
def test_corrected_by_hand(rule):
    pred, ref, label, dsc = CORRECTED[rule]
    assert score_case(pred, ref, UNIT, mode="corrected").dsc[label] == dsc


def test_corrected_looks_at_surfaces_whatever_the_dice_coefficient():
    voxel, row = block(LIVER, (0, 1), (0, 1), (0, 1)), block(LIVER, (0, 10), (0, 1), (0, 1))
    expected = slow_surface_dice(voxel == LIVER, row == LIVER, 5)
    nsd = score_case(voxel, row, SPACING_MM, mode="corrected").nsd[LIVER]
    assert nsd == pytest.approx(expected, abs=1e-6)
    assert nsd > 0.5
    assert score_case(voxel, row, SPACING_MM).nsd[LIVER] == 0


def test_corrected_means_are_not_rounded():
    cases = [CaseScores(c, dict.fromkeys(range(1, 15), s), dict.fromkeys(range(1, 15), s))
             for c, s in (("a", 1 / 3), ("b", 1 / 7))]  # fmt: skip
    summary = summarize(cases, mode="corrected")
    assert summary.means["Organ_DSC"] == pytest.approx(5 / 21, abs=1e-12)
    assert summary.means["Liver_NSD"] != round(5 / 21, 4)


@pytest.mark.parametrize(
    ("pred", "ref", "ml", "percent"),
    [
        (REF[LIVER], REF[LIVER], 0.0, 0.0),
        (block(LIVER, (4, 8), (4, 8), (2, 3)), REF[LIVER], -0.048, -75.0),
        (EMPTY, REF[LIVER], -0.064, -100.0),
        (REF[LIVER], EMPTY, 0.064, math.nan),
        (EMPTY, EMPTY, 0.0, math.nan),
    ],
)
def test_volume_errors_by_hand(pred, ref, ml, percent):
    case = score_case(pred, ref, UNIT)
    assert case.value(LIVER, "volume_error_ml") == pytest.approx(ml)
    assert case.value(LIVER, "volume_error_percent") == pytest.approx(percent, nan_ok=True)


def test_hausdorff_distance_needs_the_label_in_both_maps():
    assert math.isnan(score_case(REF[LIVER], EMPTY, UNIT).hd95_mm[LIVER])
    assert math.isnan(score_case(EMPTY, EMPTY, UNIT).hd95_mm[LIVER])
    moved = block(LIVER, (6, 10), (4, 8), (2, 6))
    # A block moved by 2 mm along its own axis: a face of 16 of 96 elements is 2 mm away.
    assert score_case(moved, REF[LIVER], UNIT).hd95_mm[LIVER] == 2
    # Under a Dice coefficient of 0.2 too, where flare23 gives an NSD of 0.
    far = block(LIVER, (8, 12), (4, 8), (2, 6))
    assert score_case(far, REF[LIVER], UNIT).hd95_mm[LIVER] == 4


def test_only_chosen_labels_are_judged():
    case = score_case(REF[3], REF[3], UNIT, [14, 3])
    assert list(case.dsc) == [3, 14]
    summary = summarize([case], [14, 3])
    assert list(summary.means) == [
        "Spleen_DSC",
        "Lesion_DSC",
        "Spleen_NSD",
        "Lesion_NSD",
        "Organ_DSC",
        "Organ_NSD",
    ]
    tumor_only = score_case(REF[14], REF[14], UNIT, [14])
    assert list(summarize([tumor_only], [14]).means) == ["Lesion_DSC", "Lesion_NSD"]


@pytest.mark.parametrize("labels", [[0], [15], []])
def test_unknown_labels_are_refused(labels):
    with pytest.raises(UsageError, match="labels to judge"):
        score_case(EMPTY, EMPTY, UNIT, labels)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        score_case(EMPTY[1:], EMPTY, UNIT)


def test_keys_are_those_of_the_official_file_in_its_order():
    names = "Liver RK Spleen Pancreas Aorta IVC RAG LAG Gallbladder Esophagus Stomach Duodenum LK"
    keys = [f"{name}_{m}" for m in ("DSC", "NSD") for name in [*names.split(), "Lesion"]]
    assert list(summarize([every(1.0)]).means) == [*keys, "Organ_DSC", "Organ_NSD"]


def test_rounding_at_three_levels():
    # 2/3 of a case first becomes .6667; the mean of .6667, .6667, .6666 is .66666..., then .6667.
    third = score_case(block(1, (0, 1), (0, 1), (0, 2)), block(1, (0, 1), (0, 1), (0, 1)), UNIT)
    assert third.dsc[1] == 0.6667
    liver_only = [
        CaseScores("a", {**every(1.0).dsc, 1: dsc}, every(1.0).nsd) for dsc in (0.6667, 0.6666)
    ]
    summary = summarize(liver_only)
    # .66665 is 6666.5 ten-thousandths: NumPy rounds it to the even one.
    assert summary.means["Liver_DSC"] == rounded(0.66665) == 0.6666
    # The organs' mean starts from the rounded .6666: (12 + .6666) / 13 = .974353...
    assert summary.means["Organ_DSC"] == 0.9744
    assert summary.means["Lesion_DSC"] == 1


def test_organ_mean_leaves_the_tumor_out():
    case = every(0.5)
    case.dsc[TUMOR] = 0.0
    assert summarize([case]).means["Organ_DSC"] == 0.5


def test_deviation_is_that_of_a_sample():
    summary = summarize([every(0.5), every(0.7)])
    assert summary.sds["Liver_DSC"] == round(0.1 * 2**0.5, 4)
    assert math.isnan(summarize([every(0.5)]).sds["Liver_DSC"])


def test_failed_cases_do_not_count_and_missing_ones_are_zero():
    failed = CaseScores("b", {}, {}, "failed", "E_GRID", "other grid")
    zero = dict.fromkeys(every(0.0).dsc, 0.0)
    missing = CaseScores("c", zero, zero, "missing")
    summary = summarize([every(1.0), failed, missing])
    assert summary.means["Liver_DSC"] == 0.5
    assert summary.counts == {"scored": 1, "missing": 1, "refused": 0, "failed": 1}
    assert summary.exit_code == 3
    assert summarize([every(1.0)]).exit_code == 0
    assert summarize([failed]).exit_code == 4
    assert math.isnan(summarize([failed]).means["Organ_DSC"])
    starved = CaseScores("d", {}, {}, "failed", "E_OOM", "memory ran out")
    assert summarize([failed, starved]).exit_code == 6
    assert summarize([every(1.0), failed, starved]).exit_code == 3


def official_case():
    ref = np.zeros((40, 36, 22), dtype=np.uint8)
    pred = np.zeros_like(ref)
    grid = np.indices(ref.shape)
    for label in range(1, 15):
        center = np.array([6 + 9 * ((label - 1) % 4), 5 + 9 * ((label - 1) // 4), 10])
        radii = np.array([4, 3 + label % 2, 5 + label % 4])
        moved = np.add(center, (label % 3, (label // 3) % 2, label % 2))
        for ids, middle, scale in ((ref, center, 1.0), (pred, moved, 0.8 + 0.1 * (label % 4))):
            away = (grid - middle[:, None, None, None]) / radii[:, None, None, None]
            distance = (away**2).sum(axis=0)
            ids[(distance <= scale**2) & (ids == 0)] = label
    return pred, ref


OFFICIAL = [
    (0.7515, 1.0),
    (0.6246, 1.0),
    (0.7679, 0.9995),
    (0.5899, 1.0),
    (0.5438, 0.9215),
    (0.9985, 1.0),
    (0.7695, 0.9863),
    (0.5506, 0.9593),
    (0.7515, 0.9742),
    (0.6852, 1.0),
    (0.5859, 1.0),
    (0.7025, 1.0),
    (0.7526, 0.9984),
    (0.6246, 1.0),
]
