"""Segmentations of 3D Slicer: told by the names of their segments, and written for it."""

from pathlib import Path

import numpy as np
import pytest
from small_scans import SHAPE, image, labels
from test_itk import nrrd, put

from cfseg.errors import InputError
from cfseg.io import read_label_map, read_scan, scan_from_image, write_label_map
from cfseg.labels import LABELS
from cfseg.volume import LabelMap

sitk = pytest.importorskip("SimpleITK")


def segmentation(ids: np.ndarray, names: dict[int, str], layers: dict[int, int] | None = None):
    """A file as Slicer writes it: names and values of segments in key-value pairs."""
    lines = []
    for number, (value, name) in enumerate(names.items()):
        layer = (layers or {}).get(value, 0)
        parts = {"ID": f"Segment_{number}", "Name": name, "LabelValue": value, "Layer": layer}
        lines += [f"Segment{number}_{key}:={part}" for key, part in parts.items()]
    plain = nrrd(ids.astype(np.uint8).tobytes(order="F"), type="uchar", endian=None)
    head, body = plain.split(b"\n\n", 1)
    return head + b"\n" + "\n".join(lines).encode() + b"\n\n" + body


def test_segments_are_told_by_their_names_not_by_their_values(tmp_path: Path):
    ids = labels() % 4
    names = {1: "Right Kidney", 2: "tumour", 3: "liver"}
    read, source = read_label_map(put(tmp_path, "x.seg.nrrd", segmentation(ids, names)))
    expected = np.array([0, 2, 14, 1])[ids]
    np.testing.assert_array_equal(source.to_stored(read.ids), expected)
    assert source.notes == ()


def test_segments_of_other_things_are_left_out_and_named(tmp_path: Path):
    names = {1: "liver", 2: "bed", 3: "Segment_3"}
    read, source = read_label_map(put(tmp_path, "x.nrrd", segmentation(labels() % 4, names)))
    assert source.notes == ("segments_left_out: bed, Segment_3",)
    assert set(np.unique(read.ids)) == {0, 1}


@pytest.mark.parametrize(
    ("names", "layers", "says"),
    [
        ({1: "Leber", 2: "Milz", 3: "Niere"}, {}, "none of the segments 'Leber', 'Milz'"),
        ({1: "liver", 2: "spleen"}, {}, "the value 3 has no segment"),
        ({1: "liver", 2: "tumor", 3: "spleen"}, {2: 1}, "liver, tumor, spleen lie in layers"),
        ({"one": "liver"}, {}, "whole number"),
    ],
)
def test_refused(tmp_path: Path, names, layers, says):
    path = put(tmp_path, "x.seg.nrrd", segmentation(labels() % 4, names, layers))
    with pytest.raises(InputError, match=says) as caught:
        read_label_map(path)
    assert caught.value.code == ("E_CORRUPT" if "number" in says else "E_NOT_LABELS")


def test_layers_that_overlap_have_a_fourth_axis(tmp_path: Path):
    """Slicer puts them first; the names help more than the number of dimensions."""
    content = segmentation(labels() % 3, {1: "liver", 2: "tumor"}, {2: 1})
    content = content.replace(b"dimension: 3", b"dimension: 4")
    content = content.replace(b"sizes: 24", b"sizes: 2 12")
    with pytest.raises(InputError, match="liver, tumor lie in layers"):
        read_label_map(put(tmp_path, "x.seg.nrrd", content))


def test_no_segmentation_passes_for_a_ct(tmp_path: Path):
    path = put(tmp_path, "x.seg.nrrd", segmentation(labels(), {1: "liver"}))
    with pytest.raises(InputError) as caught:
        read_scan(path)
    assert caught.value.code == "E_NOT_HU"


def test_what_is_written_has_names_colors_values_and_extents(tmp_path: Path):
    scan = scan_from_image(image())
    stored = np.zeros(SHAPE, np.uint8)
    stored[3:7, 5, 2:9] = 5
    label_map = LabelMap(scan.source.to_canonical(stored), scan.volume.geometry)
    write_label_map(tmp_path / "x.seg.nrrd", label_map, scan.source)
    written = sitk.ReadImage(tmp_path / "x.seg.nrrd")
    fields = {key: written.GetMetaData(key) for key in written.GetMetaDataKeys()}
    for number, label in enumerate(LABELS):
        assert fields[f"Segment{number}_Name"] == label.name
        assert fields[f"Segment{number}_LabelValue"] == str(label.id)
        color = [float(part) * 255 for part in fields[f"Segment{number}_Color"].split()]
        np.testing.assert_allclose(color, label.color, atol=0.01)
    assert fields["Segment4_Extent"] == "3 6 5 5 2 8"
    assert fields["Segment0_Extent"] == "0 -1 0 -1 0 -1"
    assert fields["Segmentation_SourceRepresentation"] == "Binary labelmap"
    read, source = read_label_map(tmp_path / "x.seg.nrrd")
    np.testing.assert_array_equal(source.to_stored(read.ids), stored)
