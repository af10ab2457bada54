"""One test per row of the list of bad inputs: what is refused, with which code, what is noted."""

import gzip
import os
import re
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import SHAPE, ct, image, labels

from cfseg.errors import InputError
from cfseg.io import read_label_map, read_scan, scan_from_image

DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET = 40, 70, 72, 76, 108
SLOPE, INTER, UNITS, QFORM_CODE, SFORM_CODE, QUATERN = 112, 116, 123, 252, 254, 256
SROW = 280
NAN, INF = float("nan"), float("inf")


def patched(data: bytes, *edits: tuple[int, str, float]) -> bytes:
    """Write raw values into a NIfTI header, past all that nibabel would repair."""
    raw = bytearray(data)
    for offset, form, value in edits:
        struct.pack_into("<" + form, raw, offset, value)
    return bytes(raw)


def plain(data: np.ndarray | None = None, affine: np.ndarray | None = None) -> bytes:
    made = image(data, affine)
    made.header.set_slope_inter(1, 0)
    return made.to_bytes()


def spaced(*mm: float) -> np.ndarray:
    return np.diag([*mm, 1.0])


def sheared(amount: float) -> np.ndarray:
    affine = spaced(2, 2, 3)
    affine[0, 1] = 2 * amount
    return affine


def with_nan() -> np.ndarray:
    data = ct().astype(np.float32)
    data[1, 2, 3] = np.nan
    data[4, 4, 4] = np.inf
    return data


def zeros(*shape: int, dtype: object = np.int16) -> np.ndarray:
    return np.zeros(shape, dtype=dtype)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

QFORM_ONLY = ((SFORM_CODE, "h", 0), (QFORM_CODE, "h", 1))
PACKED = gzip.compress(plain(), mtime=0)

REFUSED = [
    ("N03-singular", patched(plain(), (SROW, "f", 0)), "E_GEOMETRY", "length zero"),
    ("N03-nan", patched(plain(), (SROW, "f", NAN)), "E_GEOMETRY", "not finite"),
    ("N03-signaling", patched(plain(), (SROW, "I", 0x7FA00000)), "E_GEOMETRY", "not finite"),
    ("N03-inf", patched(plain(), (SROW + 12, "f", INF)), "E_GEOMETRY", "not finite"),
    ("N03-large", patched(plain(), (SROW + 12, "f", 3e38)), "E_GEOMETRY", "larger than any scan"),
    ("N03-tiny", patched(plain(), (SROW, "f", 1e-40)), "E_GEOMETRY", "length zero"),
    (
        "N03-parallel",
        patched(plain(), (SROW + 4, "f", 2), (SROW + 20, "f", 0)),
        "E_GEOMETRY",
        "singular",
    ),
    ("N03-pixdim-0", patched(plain(), (PIXDIM + 4, "f", 0)), "E_GEOMETRY", "voxel size"),
    ("N03-pixdim-nan", patched(plain(), (PIXDIM + 8, "f", NAN)), "E_GEOMETRY", "voxel size"),
    (
        "N03-qform-negative",
        patched(plain(), *QFORM_ONLY, (PIXDIM + 4, "f", -2)),
        "E_GEOMETRY",
        "qform",
    ),
    (
        "N03-quaternion",
        patched(plain(), *QFORM_ONLY, (QUATERN, "f", 3)),
        "E_GEOMETRY",
        "quaternion",
    ),
    (
        "N03-quaternion-nan",
        patched(plain(), *QFORM_ONLY, (QUATERN, "f", NAN)),
        "E_GEOMETRY",
        "",
    ),
    ("N02-sheared", plain(affine=sheared(0.7)), "E_GEOMETRY", "sheared by 3[45].* more than 30"),
    ("N04-tiny", plain(affine=spaced(0.002, 0.002, 0.003)), "E_SPACING", "unit"),
    ("N04-wide", plain(affine=spaced(2, 2, 25)), "E_SPACING", "along z is 25.*--force-spacing"),
    ("N04-meter", patched(plain(), (UNITS, "B", 1)), "E_SPACING", "millimetre"),
    (
        "N05-no-form",
        patched(plain(), (SFORM_CODE, "h", 0), (QFORM_CODE, "h", 0)),
        "E_ORIENTATION",
        "left and right.*--assume-orientation LAS",
    ),
    ("N09-4d", plain(zeros(6, 6, 6, 2)), "E_NDIM", r"more than one.*--volume-index 0\.\.1"),
    ("N09-5d", plain(zeros(6, 6, 6, 1, 3)), "E_NDIM", "more than one volume"),
    ("N10-2d", plain(zeros(6, 6)), "E_NDIM", "2 dimension"),
    ("N10-rgb", plain(zeros(6, 6, 6, dtype=RGB)), "E_DTYPE", "RGB"),
    ("N10-complex", plain(zeros(6, 6, 6, dtype=np.complex64)), "E_DTYPE", "complex"),
    ("N10-unknown", patched(plain(), (DATATYPE, "h", 999)), "E_DTYPE", "999"),
    ("N11-one-slice", plain(ct((12, 12, 1))), "E_TOO_FEW_SLICES", "at least two"),
    ("N11-no-slice", patched(plain(), (DIM + 6, "h", 0)), "E_TOO_FEW_SLICES", "no voxels"),
    ("N15-nonfinite", plain(with_nan()), "E_NONFINITE", r"2 voxels.*\(1, 2, 3\).*--nonfinite air"),
    (
        "N17-no-intercept",
        plain((ct() + 1024).clip(0).astype(np.uint16)),
        "E_NOT_HU",
        "intercept.*--hu-offset -1024",
    ),
    ("N18-unit", plain((ct() / 2000 + 0.5).clip(0, 1).astype(np.float32)), "E_NOT_HU", ""),
    ("N18-signed", plain((ct() / 1000).clip(-1, 1).astype(np.float32)), "E_NOT_HU", ""),
    ("N18-window", plain(((ct() + 160.0) / 400 * 255).clip(0, 255)), "E_NOT_HU", "window"),
    (
        "N18-zscore",
        plain(((ct() - ct().mean()) / ct().std()).astype(np.float32)),
        "E_NOT_HU",
        "normalized",
    ),
    ("N17-mr", plain(np.abs(ct() * 0.3 + 300).astype(np.int16)), "E_NOT_HU", "MR"),
    ("N18-absurd", plain(ct() * 1e9), "E_NOT_HU", "reach from"),
    ("N20-inter-nan", patched(plain(), (INTER, "f", NAN)), "E_CORRUPT", "intercept"),
    ("N21-short-gz", PACKED[: len(PACKED) // 2], "E_CORRUPT", "ends too early"),
    ("N21-short-gz-crc", PACKED[:-4], "E_CORRUPT", "ends too early"),
    ("N21-short", plain()[:-100], "E_CORRUPT", "truncated"),
    ("N21-short-header", plain()[:200], "E_FORMAT", ""),
    ("N21-inner-short", gzip.compress(plain()[:-100]), "E_CORRUPT", "truncated"),
    ("N21-garbage-gz", PACKED + b"garbage", "E_CORRUPT", "after the end"),
    ("N21-garbage", plain() + b"garbage", "E_CORRUPT", "longer"),
    ("N21-crc", PACKED[:-8] + b"\1\2\3\4" + PACKED[-4:], "E_CORRUPT", "damaged"),
    ("N21-length", PACKED[:-4] + b"\1\2\3\4", "E_CORRUPT", "damaged"),
    ("N21-offset", patched(plain(), (VOX_OFFSET, "f", NAN)), "E_CORRUPT", "data at byte"),
    ("N21-bitpix", patched(plain(), (BITPIX, "h", 8)), "E_CORRUPT", "bits per voxel"),
    ("N23-empty", b"", "E_FORMAT", "empty"),
    ("N23-text", b"patient did not attend\n" * 40, "E_FORMAT", "a text file"),
    ("N23-html", b"<!DOCTYPE html><html>404</html>", "E_FORMAT", "HTML"),
    ("N23-lfs", b"version https://git-lfs.github.com/spec/v1\noid", "E_FORMAT", "git lfs pull"),
    ("N23-png", b"\x89PNG\r\n\x1a\n" + bytes(600), "E_FORMAT", "PNG"),
    ("N23-zip", b"PK\x03\x04" + bytes(600), "E_FORMAT", "ZIP"),
    ("N23-dicom", bytes(128) + b"DICM" + bytes(600), "E_FORMAT", "DICOM"),
    ("N23-html-gz", gzip.compress(b"<html>" + b" " * 900), "E_FORMAT", "HTML"),
    ("N30-pair", patched(plain())[:344] + b"ni1\0" + plain()[348:], "E_FORMAT", "pair"),
    ("N24-negative", patched(plain(), (DIM + 2, "h", -5)), "E_CORRUPT", "dimensions"),
    ("N24-rank", patched(plain(), (DIM, "h", 0)), "E_CORRUPT", ""),
    ("N30-analyze", patched(plain())[:344] + bytes(4), "E_FORMAT", "Analyze 7.5.*left and right"),
    (
        "N24-huge",
        patched(plain(), *((DIM + 2 * i, "h", 32767) for i in (1, 2, 3))),
        "E_TOO_LARGE",
        "voxels",
    ),
    (
        "N24-lie",
        gzip.compress(patched(plain(), *((DIM + 2 * i, "h", 1000) for i in (1, 2, 3)))),
        "E_CORRUPT",
        "cannot hold",
    ),
    ("N28-labels", plain(labels()), "E_NOT_HU", "label map"),
    ("N28-mask", plain((ct() > 0).astype(np.uint8)), "E_NOT_HU", ""),
]


@pytest.mark.parametrize(
    ("content", "code", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refused(tmp_path: Path, content: bytes, code: str, says: str):
    path = tmp_path / "bad_0000.nii.gz"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_scan(path)
    assert caught.value.code == code
    assert re.search(says, caught.value.message), caught.value.message
    assert path.name in caught.value.message


def test_n21_a_bit_flip_anywhere_in_the_stream_is_refused(tmp_path: Path):
    """Every flip changes the data, so the checksum or the format must show it."""
    rng = np.random.default_rng(3)
    path = tmp_path / "flip.nii.gz"
    for position in rng.integers(10, len(PACKED), 60):
        broken = bytearray(PACKED)
        broken[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        with pytest.raises(InputError) as caught:
            read_scan(path)
        assert caught.value.code in {"E_CORRUPT", "E_FORMAT"}


def test_n23_a_folder_a_dangling_link_and_a_pipe_do_not_block(tmp_path: Path):
    link, pipe, folder = tmp_path / "l.nii.gz", tmp_path / "p.nii.gz", tmp_path / "empty"
    link.symlink_to(tmp_path / "gone.nii.gz")
    os.mkfifo(pipe)
    folder.mkdir()
    for path, says in ((link, "link"), (pipe, "pipe"), (folder, "folder")):
        with pytest.raises(InputError, match=says) as caught:
            read_scan(path)
        assert caught.value.code == "E_FORMAT"


def test_n23_a_link_to_a_scan_is_read(ct_file, tmp_path: Path):
    link = tmp_path / "link_0000.nii.gz"
    link.symlink_to(ct_file())
    assert read_scan(link).case == "link"


def test_n24_a_bomb_does_not_grow_past_its_header(tmp_path: Path):
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(plain() + bytes(200_000_000), 6))
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_scan(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "E_CORRUPT"
    assert peak < 20e6


def notes_of(content: bytes, tmp_path: Path, name: str = "a.nii") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return " | ".join(read_scan(path).notes)


def test_good_input_gives_no_note(tmp_path: Path):
    assert notes_of(plain(), tmp_path) == ""
    assert notes_of(PACKED, tmp_path, "a.nii.gz") == ""


def test_n01_a_slightly_skew_affine_is_straightened_for_processing_only(tmp_path: Path):
    path = tmp_path / "a.nii"
    path.write_bytes(plain(affine=sheared(5e-4)))
    scan = read_scan(path)
    assert scan.notes == ("affine_snapped: axes were off the right angle by 5.0e-04",)
    axes = scan.volume.geometry.affine[:3, :3]
    product = axes.T @ axes
    np.testing.assert_allclose(product - np.diag(np.diag(product)), 0, atol=1e-9)
    np.testing.assert_allclose(scan.source.affine, sheared(5e-4), atol=1e-6)


def test_n06_two_different_forms_are_noted_and_the_sform_counts(tmp_path: Path):
    moved = patched(plain(), (QFORM_CODE, "h", 1), (268, "f", 40.0))
    assert "qform_ignored: qform and sform lie up to" in notes_of(moved, tmp_path)
    scan = read_scan(tmp_path / "a.nii")
    assert scan.source.affine[0, 3] == 0


def test_n08_a_fourth_axis_of_one_is_dropped(tmp_path: Path):
    path = tmp_path / "a.nii"
    path.write_bytes(plain(ct()[..., None]))
    scan = read_scan(path)
    assert scan.source.shape == SHAPE
    assert scan.source.header.get_data_shape() == SHAPE
    assert scan.notes[0].startswith("squeezed")


def test_n12_n13_thin_and_anisotropic_volumes_are_noted(tmp_path: Path):
    assert "thin_volume: 8 slices over 24 mm" in notes_of(plain(ct((24, 20, 8))), tmp_path)
    assert "anisotropic" in notes_of(plain(affine=spaced(0.5, 0.5, 8)), tmp_path)


def test_n16_padding_is_noted_and_left_to_preprocessing(tmp_path: Path):
    data = ct()
    data[0] = -3024
    assert f"padding_clamped: {data[0].size} voxels" in notes_of(plain(data), tmp_path)
    assert read_scan(tmp_path / "a.nii").volume.hu.min() == -3024


def test_n17_a_lost_intercept_shows_through_padding(tmp_path: Path):
    data = ct() + 1024
    data[0] = -2000
    (tmp_path / "a.nii").write_bytes(plain(data))
    with pytest.raises(InputError, match="intercept"):
        read_scan(tmp_path / "a.nii")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.int64, np.int16])
def test_n19_other_types_give_the_same_values(tmp_path: Path, dtype):
    path = tmp_path / "a.nii"
    made = nib.Nifti1Image(ct().astype(dtype), np.diag([2, 2, 3, 1]), dtype=dtype)
    nib.save(made, path)
    hu = read_scan(path).volume.hu
    assert hu.dtype == (np.float32 if np.dtype(dtype).kind == "f" else np.int16)
    np.testing.assert_array_equal(hu, scan_from_image(image()).volume.hu)


def test_n19_big_endian_and_nifti2(tmp_path: Path):
    expected = scan_from_image(image()).volume.hu
    swapped = nib.Nifti1Image(
        ct().astype(">i2"), image().affine, image().header.as_byteswapped(">")
    )
    nib.save(swapped, tmp_path / "big.nii")
    nib.save(nib.Nifti2Image(ct(), image().affine), tmp_path / "two.nii.gz")
    for name in ("big.nii", "two.nii.gz"):
        hu = read_scan(tmp_path / name).volume.hu
        assert hu.dtype.isnative
        np.testing.assert_array_equal(hu, expected)


@pytest.mark.parametrize("slope", [0.0, NAN])
def test_n20_no_scaling_is_noted(tmp_path: Path, slope: float):
    content = patched(plain(), (SLOPE, "f", slope), (INTER, "f", NAN))
    assert "scaling_ignored" in notes_of(content, tmp_path)
    np.testing.assert_array_equal(
        read_scan(tmp_path / "a.nii").volume.hu, scan_from_image(image()).volume.hu
    )


def test_n20_slope_and_intercept_are_applied(tmp_path: Path):
    raw = ((ct() + 1024) * 2).astype(np.int16)
    path = tmp_path / "a.nii"
    path.write_bytes(patched(plain(raw), (SLOPE, "f", 0.5), (INTER, "f", -1024)))
    hu = read_scan(path).volume.hu
    assert hu.dtype == np.float32
    np.testing.assert_array_equal(hu, scan_from_image(image()).volume.hu)
    path.write_bytes(patched(plain((ct() + 1024).astype(np.uint16)), (INTER, "f", -1024)))
    assert read_scan(path).volume.hu.dtype == np.int16


@pytest.mark.parametrize(
    ("name", "content", "noted"),
    [
        ("A B é.NII.GZ", PACKED, False),
        ("x.nii.gz", plain(), True),
        ("x.nii", PACKED, True),
        ("x.nii.gz.gz", gzip.compress(PACKED), False),
        ("two.nii.gz", gzip.compress(plain()[:3000]) + gzip.compress(plain()[3000:]), False),
        ("padded.nii.gz", PACKED + bytes(512), False),
    ],
)
def test_n22_the_content_counts_not_the_name(tmp_path: Path, name, content, noted):
    assert ("name_mismatch" in notes_of(content, tmp_path, name)) is noted


@pytest.mark.parametrize(
    "data",
    [
        np.full(SHAPE, -1000, np.int16),
        np.zeros(SHAPE, np.int16),
        np.random.default_rng(0).normal(0, 6, SHAPE).astype(np.float32),
        np.random.default_rng(0).normal(-1000, 6, SHAPE).astype(np.int16),
        np.where(ct() > -500, np.random.default_rng(0).normal(0, 5, SHAPE), -1000),
        np.where(np.indices(SHAPE)[0] < 10, -1000, 40).astype(np.int16),
    ],
    ids=["air", "water", "noisy water", "noisy air", "water cylinder", "two values"],
)
def test_n25_phantoms_and_constant_volumes_are_accepted(data):
    assert scan_from_image(image(data)).volume.hu.shape == SHAPE[::-1]


def test_n27_much_metal_is_noted():
    data = ct()
    data[:, :, :2] = 20000
    assert any("metal_clamped" in note for note in scan_from_image(image(data)).notes)


def test_an_image_in_memory_is_judged_like_a_file():
    with pytest.raises(InputError) as caught:
        scan_from_image(image(with_nan()))
    assert caught.value.code == "E_NONFINITE"
    with pytest.raises(InputError, match="not a NIfTI image"):
        scan_from_image(nib.MGHImage(ct(), np.eye(4)))


def test_digest_is_of_the_file(ct_file):
    import hashlib

    path = ct_file()
    assert read_scan(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "data", [labels() - 1.0, labels() * 1000.0, labels() + 0.5], ids=["low", "high", "fraction"]
)
def test_a_label_map_holds_small_whole_numbers(ct_file, data):
    with pytest.raises(InputError) as caught:
        read_label_map(ct_file(data))
    assert caught.value.code == "E_NOT_LABELS"


def test_a_label_map_of_any_type_is_read(ct_file):
    read, source = read_label_map(ct_file(labels().astype(np.float64)))
    np.testing.assert_array_equal(source.to_stored(read.ids), labels())


def test_random_headers_raise_only_input_errors(tmp_path: Path):
    """A loop of damaged headers: nothing but a clear refusal, or a volume."""
    rng = np.random.default_rng(11)
    original, path, codes = plain(), tmp_path / "m.nii", []
    for _ in range(250):
        raw = bytearray(original)
        for position in rng.integers(0, 352, rng.integers(1, 6)):
            raw[position] = int(rng.integers(256))
        path.write_bytes(bytes(raw))
        try:
            read_scan(path)
        except InputError as error:
            codes.append(error.code)
    assert len(codes) > 50
    assert "E_INPUT" not in codes
