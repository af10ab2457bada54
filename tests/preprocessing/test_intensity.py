import numpy as np
import pytest

from cfseg.plan import Intensity
from cfseg.preprocessing.intensity import clamp, normalize


def test_clip_and_z_score_by_hand() -> None:
    hu = np.array([[[-500.0, -100.0, 50.0, 250.0, 900.0]]], dtype=np.float32)
    normalize(hu, Intensity(lower=-100, upper=250, mean=50, std=100))
    np.testing.assert_allclose(hu[0, 0], [-1.5, -1.5, 0.0, 2.0, 2.0], rtol=1e-6)


def test_only_what_is_below_air_becomes_air() -> None:
    hu = np.array([[[-3024.0, -1024.5, -1024.0, -1000.0, 4000.0]]], dtype=np.float32)
    clamp(hu, Intensity(lower=-100, upper=250, mean=50, std=100))
    assert hu[0, 0].tolist() == [-1024.0, -1024.0, -1024.0, -1000.0, 4000.0]


def test_a_plan_may_clamp_to_closer_limits() -> None:
    hu = np.array([[[-3024.0, -325.0, 0.0, 4000.0]]], dtype=np.float32)
    clamp(hu, Intensity(lower=-100, upper=250, mean=50, std=100, clamp_hu=(-325, 325)))
    assert hu[0, 0].tolist() == [-325.0, -325.0, 0.0, 325.0]


def test_limits_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="lower < upper"):
        Intensity(lower=-100, upper=250, mean=50, std=100, clamp_hu=(325, -325))
