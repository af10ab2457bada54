"""The rules of judging: those of the official FLARE 2023 evaluation, and the same ones mended.

``docs/reference/evaluation.md`` lists every difference.
"""

from dataclasses import dataclass
from typing import Literal

from cfseg.errors import UsageError

Mode = Literal["flare23", "corrected"]
MODES: tuple[Mode, ...] = ("flare23", "corrected")


@dataclass(frozen=True)
class Rules:
    """What differs between the modes.

    Attributes:
        as_stored: slices are those of the last axis that the reference is stored with; else axial.
        last_slice: whether the last slice that the reference labels counts for tubular organs.
        dsc_floor: under this Dice coefficient surfaces are not looked at and their score is 0.
        digits: scores are rounded to, at every level; None: never.
    """

    as_stored: bool
    last_slice: bool
    dsc_floor: float
    digits: int | None


RULES: dict[Mode, Rules] = {
    "flare23": Rules(as_stored=True, last_slice=False, dsc_floor=0.2, digits=4),
    "corrected": Rules(as_stored=False, last_slice=True, dsc_floor=0.0, digits=None),
}


def mode_called(name: str) -> Mode:
    """Return the mode of this name.

    Raises:
        UsageError: there is none.
    """
    for mode in MODES:
        if mode == name:
            return mode
    raise UsageError(f"there is no mode {name!r}; the modes are {', '.join(MODES)}")
