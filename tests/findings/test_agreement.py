import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfseg.findings.agreement import agreement, dice_by_label
from cfseg.geometry import Geometry
from cfseg.volume import LabelMap

GRID = Geometry.from_spacing((1, 2, 5), (1.0, 1.0, 1.0))


def label_map(*rows):
    return LabelMap(np.array([rows], dtype=np.uint8), GRID)


ONE = label_map([1, 1, 1, 14, 14], [0, 0, 3, 14, 0])
TWO = label_map([1, 1, 0, 14, 0], [0, 0, 0, 0, 14])
ORGANS = label_map([1, 0, 0, 0, 0], [5, 0, 0, 0, 0])


def test_by_hand():
    found = agreement((ONE, TWO), ORGANS)
    assert found["tumor"] == pytest.approx(2 * 1 / (3 + 2), abs=1e-4)
    assert found["liver"] == pytest.approx(2 * 1 / (2 + 1), abs=1e-4)
    assert found["aorta"] == 0
    # Only the first tumor weight saw a spleen, and organs are compared with the last one.
    assert set(found) == {"tumor", "liver", "aorta"}


def test_one_network_cannot_agree_with_itself():
    assert agreement((), None) == {}
    assert agreement((ONE,), None) == {}
    assert agreement((), ORGANS) == {}
    assert set(agreement((ONE,), ORGANS)) == {"liver", "spleen", "aorta"}
    assert set(agreement((ONE, TWO), None)) == {"tumor"}


def test_other_grids_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        dice_by_label(ONE, LabelMap.empty(Geometry.from_spacing((1, 1, 1), (1.0, 1.0, 1.0))))


@given(st.integers(0, 2**32 - 1))
def test_symmetric_and_between_0_and_1(seed):
    rng = np.random.default_rng(seed)
    one, two = (LabelMap(rng.integers(0, 15, (1, 2, 5), dtype=np.uint8), GRID) for _ in range(2))
    assert dice_by_label(one, two) == dice_by_label(two, one)
    assert all(0 <= value <= 1 for value in dice_by_label(one, two).values())
    assert set(dice_by_label(one, one).values()) <= {1.0}
