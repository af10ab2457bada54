"""Training and validation cases (paper 2.2: 4 to 1 at random)."""

from collections.abc import Sequence

import numpy as np


def split(names: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Split case names at random into training and validation, both sorted.

    Args:
        names: the cases; their order does not matter.
        fraction: share of validation cases; at least one where there are two or more cases.
        seed: same seed and names, same split.

    Returns:
        Training names and validation names. A single case is both.
    """
    ordered = sorted(names)
    if len(ordered) < 2:
        return ordered, ordered
    number = min(max(1, round(fraction * len(ordered))), len(ordered) - 1)
    chosen = np.random.default_rng(seed).permutation(len(ordered))[:number]
    held_out = {ordered[i] for i in chosen}
    return [n for n in ordered if n not in held_out], sorted(held_out)
