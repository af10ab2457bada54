import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from cfseg.evaluation.statistics import bootstrap_interval, compare, holm, spread

SCORES = st.lists(st.floats(0, 1, allow_nan=False), min_size=2, max_size=20)
NAN = math.nan


def test_mean_and_sample_deviation_by_hand() -> None:
    found = spread([1, 2, 3, 4, NAN])
    assert (found.n, found.mean) == (4, 2.5)
    assert found.sd == pytest.approx(math.sqrt(5 / 3))


def test_too_few_cases_are_nan_and_do_not_warn() -> None:
    assert spread([]).n == 0
    assert math.isnan(spread([]).mean)
    assert spread([0.5]).mean == 0.5
    assert math.isnan(spread([0.5]).sd)
    assert math.isnan(bootstrap_interval([0.5]).low)
    nothing = compare([NAN], [1.0])
    assert nothing.n == 0
    assert math.isnan(nothing.p)
    assert math.isnan(nothing.difference)


def test_the_interval_of_a_mean_is_near_that_of_the_normal_law() -> None:
    scores = np.random.default_rng(1).normal(10, 2, size=400)
    found = bootstrap_interval(scores.tolist(), resamples=4000)
    half = 1.96 * scores.std(ddof=1) / 20
    assert found.low == pytest.approx(scores.mean() - half, abs=0.03)
    assert found.high == pytest.approx(scores.mean() + half, abs=0.03)


def test_the_same_seed_gives_the_same_limits_and_another_one_others() -> None:
    scores = [0.12, 0.43, 0.55, 0.61, 0.77, 0.92, 0.951]
    first = bootstrap_interval(scores, resamples=500, seed=3)
    assert bootstrap_interval(scores, resamples=500, seed=3) == first
    assert bootstrap_interval([*scores, NAN], resamples=500, seed=3) == first
    assert bootstrap_interval(scores, resamples=50, seed=4) != bootstrap_interval(
        scores, resamples=50, seed=3
    )


@settings(deadline=None, max_examples=40)
@given(SCORES)
def test_an_interval_lies_within_the_scores(scores: list[float]) -> None:
    found = bootstrap_interval(scores, resamples=50)
    assert min(scores) - 1e-12 <= found.low <= found.high <= max(scores) + 1e-12


@pytest.mark.parametrize(("level", "resamples"), [(0, 10), (1, 10), (0.9, 0)])
def test_senseless_requests_are_refused(level: float, resamples: int) -> None:
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1, 2], level=level, resamples=resamples)


def test_six_wins_of_six_by_hand() -> None:
    # All signs equal: two of the 2^6 sign patterns are as extreme.
    first = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    second = [a + gain for a, gain in zip(first, (0.01, 0.02, 0.03, 0.04, 0.05, 0.06), strict=True)]
    found = compare(first, second)
    assert found.p == pytest.approx(2 / 64)
    assert found.difference == pytest.approx(0.035)
    assert 0.01 <= found.interval.low < 0.035 < found.interval.high <= 0.06


def test_no_difference_is_no_finding() -> None:
    found = compare([0.1, 0.3, 0.9], [0.1, 0.3, 0.9])
    assert (found.p, found.difference) == (1.0, 0.0)
    assert compare([0.5], [0.5]).p == 1.0


def test_noise_of_a_subtraction_is_a_tie() -> None:
    assert 0.1 + 0.2 != 0.3
    assert compare([0.3, 0.3, 0.3], [0.1 + 0.2, 0.3, 0.1 + 0.2]).p == 1.0


def test_a_case_without_one_of_the_scores_is_left_out() -> None:
    first, second = [0.1, NAN, 0.3, 0.2, 0.4], [0.2, 0.9, NAN, 0.4, 0.1]
    assert compare(first, second) == compare([0.1, 0.2, 0.4], [0.2, 0.4, 0.1])
    assert compare(first, second).n == 3


@pytest.mark.parametrize("cases", [1, 2, 5, 13, 14, 30, 60])
def test_ties_and_zeros_at_any_number_of_cases_do_not_warn(cases: int) -> None:
    random = np.random.default_rng(cases)
    first = random.integers(0, 5, cases) / 4
    second = random.integers(0, 5, cases) / 4
    found = compare(first.tolist(), second.tolist(), resamples=50)
    assert 0 < found.p <= 1
    differences = second - first
    if differences.any():
        assert found.p == wilcoxon(differences).pvalue


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_swapping_both_turns_the_sign_and_keeps_p(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    forth, back = compare(first, second, resamples=50), compare(second, first, resamples=50)
    assert forth.p == pytest.approx(back.p)
    assert forth.difference == pytest.approx(-back.difference)


def test_scores_of_other_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="same cases"):
        compare([1, 2], [1, 2, 3])


def test_holm_by_hand() -> None:
    # 0.01 x 3, then 0.02 x 2, then 0.03 x 1, which may not fall under the one before.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx((0.04, 0.03, 0.04))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    adjusted = holm([NAN, 0.01])
    assert math.isnan(adjusted[0])
    assert adjusted[1] == 0.01
