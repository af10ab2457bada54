import numpy as np
import pytest

from cfseg.geometry import Box, Geometry
from cfseg.volume import LabelMap, Volume

GRID = Geometry.from_spacing((4, 5, 6), (10.0, 10.0, 10.0))


def test_volumes_are_in_millilitres() -> None:
    ids = np.zeros(GRID.shape, dtype=np.uint8)
    ids[0, 0, :3] = 1
    volumes_ml = LabelMap(ids, GRID).volumes_ml()
    assert volumes_ml["liver"] == 3.0
    assert volumes_ml["tumor"] == 0.0


def test_a_crop_is_a_view_at_the_same_place() -> None:
    volume = Volume(np.zeros(GRID.shape, dtype=np.float32), GRID)
    crop = volume.crop(Box((1, 1, 1), (3, 3, 3)))
    crop.hu[:] = 7
    assert volume.hu[1, 1, 1] == 7
    assert crop.geometry.affine[0, 3] == 10.0


def test_arrays_that_do_not_fit_their_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="grid of shape"):
        Volume(np.zeros((1, 2, 3), dtype=np.float32), GRID)
    with pytest.raises(TypeError, match="uint8"):
        LabelMap(np.zeros(GRID.shape, dtype=np.int16), GRID)  # type: ignore[arg-type]
