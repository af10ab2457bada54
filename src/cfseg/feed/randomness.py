"""Random numbers that depend on nothing but what they are for; no state is kept or saved."""

import numpy as np
import numpy.typing as npt

PLACE, SOURCE, AUGMENTATION, RENDERING = 1, 2, 3, 4
"""What numbers are drawn for: a case and a place in it; one of several sources; the changes; what a
label map looks like."""


def pick(rng: np.random.Generator, until: npt.NDArray[np.floating]) -> int:
    """Return which of several is drawn.

    Args:
        rng: a number is drawn from it.
        until: (n,) cumulative weights.
    """
    return int(np.searchsorted(until, rng.random() * until[-1], side="right"))


def generator(seed: int, step: int, sample: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one sample for one purpose, the same wherever they are drawn.

    Args:
        seed: of the training.
        step: of the training.
        sample: number within the whole batch, whichever process has it.
        purpose: what they are drawn for.
    """
    # Philox counts in the first word; the others are free to say where it starts.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, sample, step]))
