"""Statistics of per-case scores: mean and SD, bootstrap intervals, paired tests.

Pure functions of numbers; the unit of what comes back is that of what goes in.

Undefined scores are NaN and are left out, so every result carries its ``n``. In a comparison a case
is left out when either of its scores is NaN. What needs more cases than there are is NaN itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Scores = npt.NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
TIE = 1e-9
"""Up to this a difference is a tie: far below a score's digits, above the noise of subtracting."""
_CHUNK = 1000


@dataclass(frozen=True)
class Interval:
    """Limits of a confidence interval; NaN where there is none."""

    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Location and spread of a score over cases.

    Attributes:
        n: cases with a score.
        mean: NaN for no case.
        sd: of the sample (divided by n - 1); NaN for fewer than two cases.
    """

    n: int
    mean: float
    sd: float


@dataclass(frozen=True)
class Paired:
    """A second score against a first one, on the same cases.

    Attributes:
        n: cases with both scores.
        difference: mean of second - first; NaN for no case.
        interval: bootstrap interval of that mean.
        p: two-sided, of the Wilcoxon signed-rank test; 1 where no case differs, NaN for no case.
    """

    n: int
    difference: float
    interval: Interval
    p: float


def spread(scores: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation, as the paper's tables give them.

    Args:
        scores: one per case.
    """
    defined = _defined(scores)
    n = len(defined)
    mean = float(defined.mean()) if n else math.nan
    sd = float(defined.std(ddof=1)) if n > 1 else math.nan
    return Spread(n, mean, sd)


def bootstrap_interval(
    scores: Sequence[float], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the percentile interval of the mean over cases drawn with replacement.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        scores: one per case.
        level: of confidence, in (0, 1).
        resamples: how often all cases are drawn.
        seed: of the draws; same seed, same limits.

    Returns:
        Limits in the unit of the scores, NaN for fewer than two cases.

    Raises:
        ValueError: the level is not in (0, 1), or there are no resamples.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} is not in (0, 1), or {resamples} resamples are too few")
    defined = _defined(scores)
    if len(defined) < 2:
        return Interval(math.nan, math.nan)
    return _middle(_means_of_draws(defined, resamples, np.random.default_rng(seed)), level)


def ratio_interval(
    parts: Sequence[float],
    wholes: Sequence[float],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of ``sum(parts) / sum(wholes)`` over cases drawn anew.

    Cases are drawn, not what they consist of: lesions of one scan are not independent.

    Args:
        parts: one per case, for example its found lesions.
        wholes: one per case, for example its lesions.
        level: see :func:`bootstrap_interval`.
        resamples: see there; cases without a whole are never drawn.
        seed: see there.

    Returns:
        NaN for fewer than two cases that have a whole.
    """
    found = np.array([[p, w] for p, w in zip(parts, wholes, strict=True) if w], np.float64)
    if len(found) < 2:
        return Interval(math.nan, math.nan)
    means = _means_of_draws(found, resamples, np.random.default_rng(seed))
    return _middle(means[:, 0] / means[:, 1], level)


def compare(
    first: Sequence[float],
    second: Sequence[float],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Compare two methods on the same cases.

    The test is Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945): without assuming that
    differences are normal, are they symmetric about 0? Ties count for nothing, as in Wilcoxon's
    paper; SciPy takes the exact distribution where there are few cases.

    Args:
        first: one score per case.
        second: of the same cases in the same order.
        level: see :func:`bootstrap_interval`.
        resamples: see there.
        seed: see there.

    Raises:
        ValueError: the lengths differ.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != two.shape:
        raise ValueError(f"{one.size} and {two.size} scores are not of the same cases")
    differences = _defined(two - one)
    if len(differences) == 0:
        return Paired(0, math.nan, Interval(math.nan, math.nan), math.nan)
    differences[np.abs(differences) <= TIE] = 0.0
    interval = bootstrap_interval(differences.tolist(), level=level, resamples=resamples, seed=seed)
    return Paired(len(differences), float(differences.mean()), interval, _p(differences))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values of several tests (Holm, Scand J Stat 6, 1979); NaN stays and does not count.

    Args:
        p_values: one per test.

    Returns:
        In the same order: the chance of one false finding or more is kept under the level.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    least = 0.0
    for rank, (p, index) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p))
        adjusted[index] = least
    return tuple(adjusted)


def _p(differences: _Scores) -> float:
    if not differences.any():
        return 1.0
    # Slow to import, and the processes that judge cases have no use for it.
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue)


def _defined(scores: Sequence[float] | _Scores) -> _Scores:
    array = np.asarray(scores, np.float64)
    return array[~np.isnan(array)]


def _middle(means: _Scores, level: float) -> Interval:
    """Return the limits between which this share of the means of draws lies."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _means_of_draws(scores: _Scores, resamples: int, random: np.random.Generator) -> _Scores:
    """Draw in chunks: all draws at once would take 8 bytes x resamples x cases."""
    means = np.empty((resamples, *scores.shape[1:]))
    for start in range(0, resamples, _CHUNK):
        stop = min(start + _CHUNK, resamples)
        drawn = random.integers(len(scores), size=(stop - start, len(scores)))
        means[start:stop] = scores[drawn].mean(axis=1)
    return means
