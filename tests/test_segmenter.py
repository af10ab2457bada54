from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import cfseg
from cfseg import segmenter as module
from cfseg.errors import InputError, ResourceError, UsageError
from cfseg.io import read_label_map, write
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


def allocation_of_torch(*_: object, **__: object) -> None:
    torch.empty(1 << 50, dtype=torch.uint8)


def allocation_of_numpy(*_: object, **__: object) -> None:
    np.empty(1 << 60, dtype=np.uint8)


@pytest.mark.parametrize("fails", [allocation_of_torch, allocation_of_numpy])
@pytest.mark.parametrize("place", ["reading", "networks", "writing"])
def test_r07_a_failed_allocation_is_told_wherever_it_was(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails, place: str
) -> None:
    scan, out = ct(tmp_path / "x.nii.gz"), tmp_path / "y.nii.gz"
    done = segmenter.segment(scan) if place == "writing" else None
    owner, name = {
        "reading": (segmenter.ahead, "_read"),
        "networks": (module, "segment_volume"),
        "writing": (write, "_save"),
    }[place]
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(ResourceError, match="out of memory") as caught:
        segmenter.segment(scan) if done is None else done.save(out)
    assert caught.value.code == "E_OOM"
    assert list(tmp_path.glob("*")) == [scan]


@pytest.mark.parametrize("name", ["y.nrrd", "y.mha", "y.seg.nrrd"])
def test_other_formats_hold_the_same_labels(segmenter: Segmenter, tmp_path: Path, name: str):
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.ReadImage(ct(tmp_path / "x.nii.gz")), tmp_path / "x.mha")
    one, two = segmenter.segment(tmp_path / "x.nii.gz"), segmenter.segment(tmp_path / "x.mha")
    assert two.scan.case == "x"
    np.testing.assert_array_equal(one.label_map.ids, two.label_map.ids)
    read, _ = read_label_map(two.save(tmp_path / name))
    np.testing.assert_array_equal(read.ids, one.label_map.ids)
    with pytest.raises(UsageError, match=r"seg\.nrrd"):
        two.save(tmp_path / "y.png")
