"""Numbers as a reader of a table wants them, and as JSON can hold them."""

import math
from collections.abc import Sequence
from typing import Any

from cfseg.evaluation.statistics import Interval, Paired, Spread, spread

NOTHING = "-"
ABSENT_NOTE = (
    "Absent: the reference does not have it; where the prediction does not either, the rules count "
    "the case as perfect."
)
FEWER_NOTE = "(n = k): over k cases, those in which it is defined."
DIFFERENCE = "difference [95 % CI]"
LEAST_CASES = 6
"""With fewer pairs the signed-rank test cannot fall below p = 0.05, and an interval says little."""


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return what JSON can hold: null where a number is not finite, in all that is nested."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def quantity_cell(value: float) -> str:
    """Return a quantity with three digits, or as a whole number where it has more."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def spread_cell(
    scores: Sequence[float] | Spread, scale: float = 100, digits: int = 2, of: int | None = None
) -> str:
    """Return mean ± SD, by default of fractions as percent; the mean alone for one case.

    Args:
        scores: one per case, NaN where there is none; or what was made of them.
        scale: 100 for fractions as percent.
        digits: after the point.
        of: how many cases there are, if scores do not tell; the cell says where fewer entered.
    """
    found = scores if isinstance(scores, Spread) else spread(scores)
    if math.isnan(found.mean):
        return NOTHING
    mean = f"{scale * found.mean:.{digits}f}"
    cell = mean if math.isnan(found.sd) else f"{mean} ± {scale * found.sd:.{digits}f}"
    if of is None:
        of = found.n if isinstance(scores, Spread) else len(scores)
    return with_n(cell, found.n, of)


def with_n(cell: str, n: int, of: int) -> str:
    """Return a mean's cell with its number of cases, unless all of them entered."""
    return cell if n == of else f"{cell} (n = {n})"


def mark_absent(
    name: str, cells: Sequence[str], means: Sequence[float], absent: int, of: int
) -> tuple[str, ...]:
    """Return a label's name and its means, so that nothing to find does not look like perfection.

    The name says in how many references the label is absent; where it is in all of them, and no
    prediction has it either, ``absent`` stands in place of a mean.

    Args:
        name: of the label.
        cells: its means, as they are shown.
        means: the numbers of the cells, 1 for a perfect score.
        absent: references without the label.
        of: all of them.
    """
    if not absent:
        return (name, *cells)
    nowhere = [absent == of and mean == 1 for mean in means]
    marked = ("absent" if no else cell for no, cell in zip(nowhere, cells, strict=True))
    return (f"{name} ({absent} absent)", *marked)


def interval_cell(interval: Interval, scale: float = 100, digits: int = 2) -> str:
    """Return the limits of an interval."""
    if math.isnan(interval.low):
        return NOTHING
    return f"[{scale * interval.low:.{digits}f}, {scale * interval.high:.{digits}f}]"


def difference_cell(found: Paired, scale: float = 100, of: int | None = None) -> str:
    """Return a difference with its sign and its interval.

    Args:
        found: the difference.
        scale: 100 for fractions as percent.
        of: how many cases there are; the cell says where fewer were compared.
    """
    if found.n == 0:
        return NOTHING
    cell = f"{scale * found.difference:+.2f}"
    if not math.isnan(found.interval.low) and found.n >= LEAST_CASES:
        cell += f" [{scale * found.interval.low:+.2f}, {scale * found.interval.high:+.2f}]"
    return with_n(cell, found.n, found.n if of is None else of)


def p_cell(p: float, n: int) -> str:
    """Return a p-value, unless there are too few pairs for one.

    Args:
        p: the value.
        n: pairs.
    """
    if math.isnan(p) or n < LEAST_CASES:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
