import base64
import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfseg.geometry import Geometry
from cfseg.reports import embedding
from cfseg.reports.embedding import block_of, blocks_geometry, embed, hu_bytes, ras_mm
from cfseg.volume import LabelMap, Volume


def loaded(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("hu", "byte"),
    [
        (-2000, 0),
        (-1000, 0),
        (-600, 20),
        (-200, 40),
        (40, 124),
        (300, 215),
        (900, 235),
        (4000, 255),
    ],
)
def test_bytes_of_hu(hu, byte):
    assert hu_bytes(np.array([hu])) == [byte]


@given(st.integers(-200, 300))
def test_soft_tissue_is_kept_within_two_hu(hu):
    values, codes = zip(*embedding.HU_STEPS, strict=True)
    assert abs(float(np.interp(hu_bytes(np.array([hu])), codes, values)[0]) - hu) <= 1.5


@pytest.mark.parametrize(
    ("spacing_mm", "block"),
    [((2.5, 0.8, 0.8), (1, 2, 2)), ((1, 0.68, 0.68), (2, 3, 3)), ((5, 3, 3), (1, 1, 1))],
)
def test_blocks(spacing_mm, block):
    assert block_of(Geometry.from_spacing((9, 9, 9), spacing_mm), 2.0) == block


def test_blocks_are_means_and_labels_are_never_averaged():
    geometry = Geometry.from_spacing((2, 4, 6), (2.0, 1.0, 1.0))
    hu = np.zeros((2, 4, 6), dtype=np.int16)
    hu[0, 0:2, 0:2] = [[0, 100], [100, 200]]
    ids = np.full((2, 4, 6), 1, dtype=np.uint8)
    ids[:, 1, 1] = 3
    found = embed(Volume(hu, geometry), {"prediction": LabelMap(ids, geometry)})
    assert found.block == (1, 2, 2)
    ct = loaded(found.ct)
    assert ct.shape == (3, 2, 2)
    assert nib.aff2axcodes(ct.affine) == ("R", "A", "S")
    # Stored from the left back: the first block of (z, y, x) is the last along both axes.
    assert np.asarray(ct.dataobj)[-1, -1, 0] == hu_bytes(np.array([100]))[0]
    shown = np.asarray(loaded(found.label_maps["prediction"]).dataobj)
    assert set(np.unique(shown)) == {1, 3}
    assert shown[-1, -1, 0] == 3


@given(st.tuples(*[st.integers(2, 7)] * 3), st.tuples(*[st.floats(0.4, 4)] * 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_block_lies_amid_its_voxels(shape, spacing_mm, seed):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (3, -20, 7)
    geometry = Geometry(shape, affine)
    block = block_of(geometry, 2.0)
    blocks = blocks_geometry(geometry, block)
    assert all(n * b >= m for n, b, m in zip(blocks.shape, block, shape, strict=True))
    last = np.array(blocks.shape) - 1
    middle = last * block + (np.array(block) - 1) / 2
    assert blocks.affine @ [*last, 1] == pytest.approx(geometry.affine @ [*middle, 1])


def test_millimeters_of_nifti_run_to_the_right_and_front():
    geometry = Geometry.from_spacing((9, 9, 9), (4.0, 2.0, 1.0))
    assert ras_mm(geometry, (1, 2, 3)) == [-3, -4, 4]


def test_a_ct_that_would_be_too_large_becomes_coarser(monkeypatch):
    rng = np.random.default_rng(0)
    geometry = Geometry.from_spacing((24, 24, 24), (2.0, 2.0, 2.0))
    volume = Volume(rng.integers(-1000, 1500, (24, 24, 24)).astype(np.int16), geometry)
    fine = embed(volume, {})
    monkeypatch.setattr(embedding, "CT_BYTES", 3000)
    coarse = embed(volume, {})
    assert fine.block == (1, 1, 1)
    assert coarse.block == (2, 2, 2)
    assert len(coarse.ct) < 4100


@pytest.mark.slow
def test_a_page_of_a_full_scan_stays_under_15_mb():
    """Noise all over, which compresses worst: 512 x 512 x 160 voxels of 0.8 x 0.8 x 2.5 mm."""
    rng = np.random.default_rng(1)
    shape = (160, 512, 512)
    hu = rng.normal(40, 60, shape).astype(np.int16)
    geometry = Geometry.from_spacing(shape, (2.5, 0.8, 0.8))
    ids = np.zeros(shape, dtype=np.uint8)
    ids[20:120, 100:400, 100:400] = 1
    found = embed(Volume(hu, geometry), {"prediction": LabelMap(ids, geometry)})
    viewer_mb = 2.4
    pictures_mb = 1.5
    size_mb = sum(map(len, (found.ct, *found.label_maps.values()))) / 1e6
    assert size_mb + viewer_mb + pictures_mb < 15
