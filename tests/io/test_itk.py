"""MetaImage and NRRD: as ITK reads them where they are whole, and refused where they are not."""

import gzip
import hashlib
import itertools
import os
import re
import sys
import time
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import SHAPE, ct, image, labels

from cfseg.errors import InputError, ResourceError, UsageError
from cfseg.io import ReadingOptions, read_label_map, read_scan, write_label_map
from cfseg.io.scan import reading_bytes_of
from cfseg.volume import LabelMap

sitk = pytest.importorskip("SimpleITK")

NAMES = ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"]
BODY = ct().tobytes(order="F")
DIRECTIONS = [
    np.eye(3)[:, order] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
TILT = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])


def itk_image(direction: np.ndarray = TILT, data: np.ndarray | None = None) -> "sitk.Image":
    made = sitk.GetImageFromArray(np.ascontiguousarray((ct() if data is None else data).T))
    made.SetSpacing((0.7, 0.8, 2.5))
    made.SetOrigin((-120.1, 33.3, -400.123456789))
    made.SetDirection(np.ravel(direction).tolist())
    return made


def mha(body: bytes = BODY, **fields: object) -> bytes:
    """A MetaImage file of one piece; a field that is None is left out."""
    header = {
        "ObjectType": "Image", "NDims": 3, "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0",
        "ElementSpacing": "2 2.5 3", "DimSize": "24 20 16", "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    } | fields  # fmt: skip
    last = header.pop("ElementDataFile")
    lines = [f"{key} = {value}\n" for key, value in header.items() if value is not None]
    return "".join([*lines, f"ElementDataFile = {last}\n"]).encode() + body


def nrrd(body: bytes = BODY, **fields: object) -> bytes:
    """An NRRD file of one piece; ``_`` stands for a space in the name of a field."""
    header = {
        "type": "short", "dimension": 3, "space": "left-posterior-superior", "sizes": "24 20 16",
        "space_directions": "(2,0,0) (0,2.5,0) (0,0,3)", "kinds": "domain domain domain",
        "endian": "little", "encoding": "raw", "space_origin": "(0,0,0)",
    } | fields  # fmt: skip
    lines = [f"{key.replace('_', ' ')}: {v}\n" for key, v in header.items() if v is not None]
    return "".join(["NRRD0004\n", *lines, "\n"]).encode() + body


def put(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refusal(path: Path, options: ReadingOptions | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read_scan(path, options=options or ReadingOptions())
    assert path.name in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_scan_is_the_same_in_every_format(tmp_path: Path, name: str, packed: bool):
    made = itk_image()
    sitk.WriteImage(made, tmp_path / name, packed)
    sitk.WriteImage(made, tmp_path / "a.nii.gz")
    scan, expected = read_scan(tmp_path / name), read_scan(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(scan.volume.hu, expected.volume.hu)
    assert scan.volume.hu.dtype == np.int16
    assert scan.volume.geometry.matches(expected.volume.geometry, 1e-4)
    assert scan.notes == ()


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_every_direction_is_the_one_that_itk_means(tmp_path: Path, name: str):
    """The place of a marked voxel in mm is what ITK says, for 48 axis orders, oblique too."""
    for turn in (np.eye(3), TILT):
        for direction in DIRECTIONS:
            made = itk_image(turn @ direction)
            made.SetPixel((3, 5, 7), 2000)
            sitk.WriteImage(made, tmp_path / name)
            scan = read_scan(tmp_path / name)
            (found,) = np.argwhere(scan.volume.hu == 2000)
            z, y, x = (scan.volume.geometry.affine @ [*found, 1])[:3]
            np.testing.assert_allclose(
                (x, y, z), made.TransformIndexToPhysicalPoint((3, 5, 7)), atol=1e-9
            )


@pytest.mark.parametrize(
    ("space", "signs"),
    [("RAS", (-1, -1, 1)), ("right-anterior-superior", (-1, -1, 1)), ("LPS", (1, 1, 1)),
     ("left-anterior-superior", (1, -1, 1))],
)  # fmt: skip
def test_the_spaces_of_nrrd_are_those_of_itk(tmp_path: Path, space: str, signs: tuple[int, ...]):
    content = nrrd(
        space=space, space_origin="(10,20,30)", space_directions="(2,0.1,0) (-0.1,2.5,0) (0,0,3)"
    )
    path = put(tmp_path, "a.nrrd", content)
    by_itk = sitk.ReadImage(path)
    affine = read_scan(path).source.affine
    for index in ((0, 0, 0), (3, 5, 7)):
        x, y, z = by_itk.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((affine @ [*index, 1])[:3], (-x, -y, z), atol=1e-9)
    np.testing.assert_allclose(affine[:3, 3] * (-1, -1, 1), np.multiply(signs, (10, 20, 30)))


TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32]
TYPES += [np.float64, np.uint64]


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_of_voxel_is_known(tmp_path: Path, name: str, dtype: type):
    sitk.WriteImage(itk_image(data=labels().astype(dtype)), tmp_path / name, True)
    read, source = read_label_map(tmp_path / name)
    np.testing.assert_array_equal(source.to_stored(read.ids), labels())


NO_SPACE = nrrd(space=None, space_directions=None, space_origin=None, spacings="2 2.5 3")
MHA_4D = {"NDims": 4, "DimSize": "24 20 8 2", "ElementSpacing": "2 2 3 1"}
SHORT = zlib.compress(BODY)[:-100]
REFUSED = {
    "N21-mha": (mha(BODY[:-100]), "E_CORRUPT", "truncated"),
    "N21-mha-long": (mha(BODY + b"more"), "E_CORRUPT", "longer"),
    "N21-mha-packed": (mha(SHORT, CompressedData="True"), "E_CORRUPT", "ends too early"),
    "N21-mha-few": (mha(zlib.compress(BODY[:-8]), CompressedData="True"), "E_CORRUPT", "truncat"),
    "N21-nrrd": (nrrd(BODY[:-100]), "E_CORRUPT", "truncated"),
    "N21-nrrd-long": (nrrd(BODY + b"more"), "E_CORRUPT", "longer"),
    "N21-nrrd-packed": (nrrd(gzip.compress(BODY)[:-9], encoding="gzip"), "E_CORRUPT", "early"),
    "N21-nrrd-crc": (
        nrrd(gzip.compress(BODY)[:-8] + bytes(8), encoding="gzip"), "E_CORRUPT", "damaged",
    ),
    "N21-nrrd-empty": (nrrd(b"", encoding="gzip"), "E_CORRUPT", "truncated"),
    "N21-nrrd-zlib": (nrrd(zlib.compress(BODY), encoding="gzip"), "E_CORRUPT", "damaged"),
    "N21-nrrd-line": (nrrd(type="short\nand more"), "E_CORRUPT", "'and more'"),
    "N21-nrrd-endian": (nrrd(endian=None), "E_CORRUPT", "endian"),
    "N21-header": (mha()[:150], "E_CORRUPT", "header is damaged"),
    "N24-lie": (mha(DimSize="30000 30000 1"), "E_TOO_FEW_SLICES", "slices"),
    "N24-huge": (nrrd(sizes="30000 30000 3000"), "E_TOO_LARGE", "voxels"),
    "N24-negative": (nrrd(sizes="24 -20 16"), "E_CORRUPT", "sizes"),
    "N24-infinite": (nrrd(sizes="24 20 inf"), "E_CORRUPT", "sizes"),
    "N24-dimension": (nrrd(dimension="nan"), "E_CORRUPT", "dimension"),
    "N24-skip": (nrrd(byte_skip="inf"), "E_CORRUPT", "byte skip"),
    "N24-header-size": (mha(HeaderSize="nan"), "E_CORRUPT", "HeaderSize"),
    "N24-name": (mha(ElementDataFile="a\0.raw"), "E_CORRUPT", "data file"),
    "N24-text": (mha(DimSize="many of them"), "E_CORRUPT", "DimSize"),
    "N03-singular": (nrrd(space_directions="(2,0,0) (2,0,0) (0,0,3)"), "E_GEOMETRY", "singular"),
    "N24-side": (nrrd(sizes="40000 100 100"), "E_TOO_LARGE", "32767"),
    "N03-nan": (mha(ElementSpacing="nan 2 3"), "E_GEOMETRY", "not finite"),
    "N03-inf": (nrrd(space_directions="(2,0,0) (0,inf,0) (0,0,3)"), "E_GEOMETRY", "not finite"),
    "N03-large": (nrrd(space_directions="(1e300,0,0) (0,2,0) (0,0,3)"), "E_GEOMETRY", "larger"),
    "N03-origin": (mha(Offset="0 1e999 0"), "E_GEOMETRY", "not finite"),
    "N03-none": (mha(ElementSpacing=None), "E_CORRUPT", "ElementSpacing"),
    "N04": (mha(ElementSpacing="2 2 30"), "E_SPACING", "--force-spacing"),
    "N05-mha": (mha(TransformMatrix=None), "E_ORIENTATION", "--assume-orientation LAS"),
    "N05-nrrd": (NO_SPACE, "E_ORIENTATION", "--assume-orientation LAS"),
    "N05-scanner": (nrrd(space="scanner-xyz"), "E_ORIENTATION", "left and right"),
    "N09-mha": (mha(**MHA_4D), "E_NDIM", "4 dimension"),
    "N09-nrrd": (nrrd(dimension=4, sizes="2 24 20 8"), "E_NDIM", "4 dimension"),
    "N10-mha-2d": (mha(NDims=2, DimSize="24 20"), "E_NDIM", "2 dimension"),
    "N10-mha-rgb": (mha(ElementNumberOfChannels=3), "E_DTYPE", "3 channel"),
    "N10-nrrd-rgb": (
        nrrd(space_directions="none (2,0,0) (0,2,0)"), "E_NDIM", "three axes in space",
    ),
    "N10-nrrd-block": (nrrd(type="block"), "E_DTYPE", "block"),
    "N15": (
        nrrd(np.full(SHAPE, np.nan, "f4").tobytes(), type="float"), "E_NONFINITE", "--nonfinite",
    ),
    "N17": (mha((ct() + 1024).tobytes(order="F")), "E_NOT_HU", "--hu-offset -1024"),
    "N30-text": (mha(BinaryData="False"), "E_FORMAT", "as text"),
    "N30-bzip2": (nrrd(encoding="bzip2"), "E_FORMAT", "'bzip2'"),
    "N30-list": (mha(ElementDataFile="LIST"), "E_FORMAT", "several files"),
    "N30-pattern": (nrrd(data_file="a%03d.raw 1 16 1"), "E_FORMAT", "several files"),
    "N30-gzip": (gzip.compress(nrrd()), "E_FORMAT", "NRRD file in a gzip archive; unpack it"),
    "N30-lines": (nrrd(line_skip=2), "E_FORMAT", "in front of its data"),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_refused(tmp_path: Path, row: str):
    content, code, says = REFUSED[row]
    error = refusal(put(tmp_path, f"bad.{'nrrd' if content[:4] == b'NRRD' else 'mha'}", content))
    assert error.code == code
    assert re.search(says, error.message), error.message


LONG = [
    *((nrrd, field) for field in (
        "type", "dimension", "space", "sizes", "space_directions", "encoding", "endian",
        "space_origin", "data_file", "byte_skip",
    )),
    *((mha, field) for field in (
        "NDims", "DimSize", "ElementType", "ElementSpacing", "TransformMatrix", "Offset",
        "ElementNumberOfChannels", "DistanceUnits", "ElementDataFile",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("make", "field"), LONG, ids=[field for _, field in LONG])
@pytest.mark.parametrize("value", ["9" * 5000, "a" * 70_000, "[" * 2000], ids=["9", "a", "["])
def test_a_field_without_end_is_refused_in_a_few_words(tmp_path: Path, make, field, value):
    assert len(refusal(put(tmp_path, "a.nrrd", make(**{field: value}))).message) < 600


@pytest.mark.parametrize("head", [b" ", b"x ", b"x = a ", b"NDims = 3\n ", b"=", b"x=1\n"])
def test_a_header_is_read_in_time_that_grows_with_its_length(tmp_path: Path, head: bytes):
    path = put(tmp_path, "a.mha", b"NDims = 3\n" + head + b" " * (1 << 20) + head * 10_000)
    began = time.process_time()
    assert refusal(path).code == "E_CORRUPT"
    directions = nrrd(space_directions="(1 " * 100_000)
    assert refusal(put(tmp_path, "a.nrrd", directions)).code == "E_NDIM"
    assert time.process_time() - began < 1


@pytest.mark.parametrize("field", ["kinds", "content", "space_units", "endian"])
def test_no_field_ends_the_process(tmp_path: Path, field: str):
    """ITK's reader of NRRD ends it, for a value that it does not know and that is long."""
    data = labels().tobytes(order="F")
    path = put(tmp_path, "a.nrrd", nrrd(data, type="uchar", **{field: "9" * 5000}))
    found, source = read_label_map(path, ReadingOptions(force_spacing=True))
    np.testing.assert_array_equal(source.to_stored(found.ids), labels())


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_the_order_of_bytes_is_that_of_the_header(tmp_path: Path, name: str):
    swapped = ct().byteswap().tobytes(order="F")
    for content in (
        nrrd(swapped, endian="big"),
        mha(swapped, BinaryDataByteOrderMSB="True"),
        mha(swapped, BinaryDataByteOrderMSB=None, ElementByteOrderMSB="True"),
    ):
        scan = read_scan(put(tmp_path, name, content))
        np.testing.assert_array_equal(scan.source.to_stored(scan.volume.hu), ct())


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.raw", "x/../../a.raw", "C:\\a", "..\\a"])
def test_s06_data_outside_of_the_folder_is_not_read(tmp_path: Path, name: str):
    (tmp_path / "a.raw").write_bytes(BODY)
    (tmp_path / "in").mkdir()
    for file, content in (("a.mhd", mha(b"", ElementDataFile=name)),
                          ("a.nhdr", nrrd(b"", data_file=name))):  # fmt: skip
        error = refusal(put(tmp_path / "in", file, content))
        assert error.code == "E_FORMAT"
        assert "outside of its folder" in error.message


def test_s06_a_link_does_not_lead_out_of_the_folder(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.raw").write_bytes(BODY)
    (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "a.raw")
    path = put(tmp_path / "in", "a.mhd", mha(b"", ElementDataFile="a.raw"))
    assert "outside" in refusal(path).message
    link = tmp_path / "in" / "b.mhd"
    link.symlink_to(put(tmp_path, "b.mhd", mha(b"", ElementDataFile="a.raw")))
    np.testing.assert_array_equal(
        read_scan(link).volume.hu, read_scan(tmp_path / "b.mhd").volume.hu
    )


def test_data_in_a_file_of_its_own(tmp_path: Path):
    path = put(tmp_path, "a.mhd", mha(b"", ElementDataFile="a.raw", HeaderSize=-1))
    error = refusal(path)
    assert error.code == "E_CORRUPT"
    assert "a.raw, is not there" in error.message
    put(tmp_path, "a.raw", b"a header of another program" + BODY)
    found = read_scan(path)
    np.testing.assert_array_equal(found.source.to_stored(found.volume.hu), ct())
    put(tmp_path, "a.raw", BODY[:-1])
    assert refusal(path).code == "E_CORRUPT"


def test_the_digest_is_of_all_bytes(tmp_path: Path):
    whole = put(tmp_path, "a.mha", mha())
    assert read_scan(whole).sha256 == hashlib.sha256(whole.read_bytes()).hexdigest()
    path = put(tmp_path, "a.mhd", mha(b"", ElementDataFile="a.raw"))
    digests = set()
    for last in (b"\0\0", b"\1\0"):
        put(tmp_path, "a.raw", BODY[:-2] + last)
        digests.add(read_scan(path).sha256)
    assert len(digests) == 2


def test_n22_the_content_counts_not_the_name(tmp_path: Path):
    for name, content in (("a.nii.gz", nrrd()), ("b.nrrd", mha()), ("c.nii", mha())):
        scan = read_scan(put(tmp_path, name, content))
        assert scan.notes[0].startswith("name_mismatch: the file is ")
    nib.save(image(), tmp_path / "d.nii.gz")
    (tmp_path / "d.nii.gz").rename(tmp_path / "d.mha")
    assert read_scan(tmp_path / "d.mha").notes[0].startswith("name_mismatch")


@pytest.mark.parametrize("content", [mha(TransformMatrix=None), NO_SPACE])
def test_n05_an_assumed_orientation_is_that_of_nifti(tmp_path: Path, content: bytes):
    path = put(tmp_path, "a.nrrd", content)
    scan = read_scan(path, options=ReadingOptions(assume_orientation="LAS"))
    assert any(note.startswith("orientation_assumed: LAS") for note in scan.notes)
    np.testing.assert_allclose(scan.source.affine, np.diag([-2, 2.5, 3, 1]))


def test_n02_a_sheared_scan_comes_back_sheared(tmp_path: Path):
    path = put(tmp_path, "a.nrrd", nrrd(space_directions="(2,0,0) (0,2.5,0) (0,0.4,3)"))
    scan = read_scan(path)
    assert any(note.startswith("affine_sheared") for note in scan.notes)
    for name in ("o.nrrd", "o.mha", "o.nii"):
        write_label_map(tmp_path / name, LabelMap.empty(scan.volume.geometry), scan.source)
        written = read_label_map(tmp_path / name)[1]
        np.testing.assert_allclose(written.affine, scan.source.affine, atol=1e-6)


@pytest.mark.parametrize("given", ["a.nii.gz", *NAMES])
@pytest.mark.parametrize("made", ["o.nii.gz", "o.nii", "o.nrrd", "o.mha", "o.seg.nrrd"])
def test_results_lie_on_the_input_s_grid_whatever_the_formats(tmp_path: Path, given, made):
    sitk.WriteImage(itk_image(TILT @ DIRECTIONS[13]), tmp_path / given)
    scan = read_scan(tmp_path / given)
    label_map = LabelMap(scan.source.to_canonical(labels()), scan.volume.geometry)
    write_label_map(tmp_path / made, label_map, scan.source)
    ours, its = sitk.ReadImage(tmp_path / made), sitk.ReadImage(tmp_path / given)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), labels().T)
    # A NIfTI header rounds to single precision; the other formats lose nothing.
    exact = 1e-3 if ".nii" in made + given else 1e-12
    np.testing.assert_allclose(ours.GetOrigin(), its.GetOrigin(), atol=exact)
    np.testing.assert_allclose(ours.GetSpacing(), its.GetSpacing(), atol=exact)
    np.testing.assert_allclose(ours.GetDirection(), its.GetDirection(), atol=exact)
    read, source = read_label_map(tmp_path / made)
    np.testing.assert_array_equal(read.ids, label_map.ids)
    assert source.notes == ()


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.seg.nrrd"])
def test_the_same_label_map_gives_the_same_bytes_and_nothing_of_the_scan(tmp_path: Path, name: str):
    made = itk_image()
    made.SetMetaData("PatientName", "Doe")
    sitk.WriteImage(made, tmp_path / "in.nrrd")
    scan = read_scan(tmp_path / "in.nrrd")
    label_map = LabelMap(scan.source.to_canonical(labels()), scan.volume.geometry)
    for folder in ("one", "two"):
        write_label_map(tmp_path / folder / name, label_map, scan.source)
    one, two = (tmp_path / folder / name for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert b"Doe" not in one.read_bytes()


def test_r06_a_writer_bug_leaves_nothing(tmp_path: Path, monkeypatch):
    from cfseg.io import write

    scan = read_scan(put(tmp_path, "in.mha", mha()))

    def truncated(path: Path, *rest: object) -> None:
        path.write_bytes(nrrd(BODY[:-200], type="uchar"))

    monkeypatch.setattr(write, "save_itk", truncated)
    with pytest.raises(ResourceError) as caught:
        write_label_map(
            tmp_path / "out" / "a.nrrd", LabelMap.empty(scan.volume.geometry), scan.source
        )
    assert caught.value.code == "E_WRITE"
    assert list((tmp_path / "out").iterdir()) == []


def test_r05_a_place_that_cannot_be_written(tmp_path: Path):
    scan = read_scan(put(tmp_path, "in.mha", mha()))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResourceError) as caught:
        write_label_map(
            tmp_path / "out" / "a.mha", LabelMap.empty(scan.volume.geometry), scan.source
        )
    assert caught.value.code == "E_DISK"


def test_without_the_extra_files_are_read_and_the_message_names_it(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    scan = read_scan(put(tmp_path, "a.mha", mha()))
    with pytest.raises(UsageError, match=r"cfseg\[itk\]") as caught:
        write_label_map(tmp_path / "o.mha", LabelMap.empty(scan.volume.geometry), scan.source)
    assert caught.value.code == "E_EXTRA"
    assert not (tmp_path / "o.mha").exists()


def test_what_reading_takes_stands_in_the_header(tmp_path: Path):
    voxels = len(BODY) // 2
    assert reading_bytes_of(put(tmp_path, "a.mha", mha())) == 6 * voxels
    assert reading_bytes_of(put(tmp_path, "a.nrrd", nrrd())) == 6 * voxels
    assert reading_bytes_of(put(tmp_path, "a.nrrd", b"NRRD0004\n")) == float("inf")


def test_n24_a_large_file_is_refused_before_it_is_read(tmp_path: Path):
    """36 GB, all holes, that no header explains: its length alone says enough."""
    path = put(tmp_path, "a.mha", mha(b""))
    os.truncate(path, 36 * 10**9)
    assert refusal(path).code == "E_CORRUPT"
    path = put(tmp_path, "a.mha", mha(b"", ElementSpacing="2 2 90"))
    os.truncate(path, 36 * 10**9)
    assert refusal(path).code == "E_SPACING"


def test_random_headers_raise_only_input_errors(tmp_path: Path):
    rng = np.random.default_rng(5)
    codes = []
    for original in (mha(), nrrd()):
        size = original.index(BODY[:40])
        for _ in range(150):
            raw = bytearray(original)
            for position in rng.integers(0, size, rng.integers(1, 4)):
                raw[position] = int(rng.integers(32, 127))
            try:
                read_scan(put(tmp_path, "m.mha", bytes(raw)))
            except InputError as error:
                codes.append(error.code)
    assert len(codes) > 100
    assert "E_INPUT" not in codes
