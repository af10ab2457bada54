import numpy as np

from cfseg.plan import Intensity
from cfseg.preprocessing.intensity import clamp_to_air, normalize


def test_clip_and_z_score_by_hand() -> None:
    hu = np.array([[[-500.0, -100.0, 50.0, 250.0, 900.0]]], dtype=np.float32)
    normalize(hu, Intensity(lower=-100, upper=250, mean=50, std=100))
    np.testing.assert_allclose(hu[0, 0], [-1.5, -1.5, 0.0, 2.0, 2.0], rtol=1e-6)


def test_only_what_is_below_air_becomes_air() -> None:
    hu = np.array([[[-3024.0, -1024.5, -1024.0, -1000.0, 4000.0]]], dtype=np.float32)
    clamp_to_air(hu)
    assert hu[0, 0].tolist() == [-1024.0, -1024.0, -1024.0, -1000.0, 4000.0]
