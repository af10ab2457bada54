from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import cfseg
from cfseg.errors import InputError, UsageError
from cfseg.segmenter import Segmenter
from tiny_ct import ct

AXES = [
    "".join(pair[k] for pair, k in zip(order, ends, strict=True))
    for order in permutations(("LR", "PA", "SI"))
    for ends in product((0, 1), repeat=3)
]


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, device="cpu", threads=1)


def test_all_48_axis_orders_give_the_same_labels(segmenter: Segmenter, tmp_path: Path) -> None:
    image = nib.load(ct(tmp_path / "x.nii.gz"))
    expected = segmenter.segment(image).image()
    assert len(set(AXES)) == 48
    assert np.unique(np.asarray(expected.dataobj)).size > 2
    start = nib.orientations.io_orientation(image.affine)
    for axes in AXES:
        turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(axes))
        turned = image.as_reoriented(turn)
        turned.set_sform(turned.affine, code=1)
        turned.set_qform(turned.affine, code=1)
        made = segmenter.segment(turned).image()
        assert np.array_equal(made.affine, turned.affine)
        want = expected.as_reoriented(turn)
        assert np.array_equal(np.asarray(made.dataobj), np.asarray(want.dataobj)), axes


def test_the_short_way(tiny_bundle: Path, tmp_path: Path) -> None:
    done = cfseg.segment(ct(tmp_path / "x.nii.gz"), tiny_bundle, device="cpu", threads=1)
    assert done.save(tmp_path / "y.nii.gz").exists()
    assert "clinical" in done.notice
    assert done.label_map.geometry.spacing_mm == pytest.approx((4.8, 4.8, 4.8))


def test_overrides_reach_the_result(tiny_bundle: Path, tmp_path: Path) -> None:
    one = Segmenter(tiny_bundle, "cpu", 1, ("stages=coarse,tumor", "step.tumor=1.0"))
    result = one.segment(ct(tmp_path / "x.nii.gz")).result
    assert result.cascade.stages == ("coarse", "tumor")
    assert result.cascade.step.tumor == 1.0


def test_what_cannot_be_asked_for(tiny_bundle: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="margin"):
        Segmenter(tiny_bundle, overrides=("region.margin_mm=-1",))
    with pytest.raises(UsageError, match="device"):
        Segmenter(tiny_bundle, device="abacus")
    (tmp_path / "x.nii.gz").write_text("no scan")
    with pytest.raises(InputError):
        segmenter.segment(tmp_path / "x.nii.gz")
