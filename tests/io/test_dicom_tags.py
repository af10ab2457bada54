"""Each kind of value that once ended in a traceback is refused by its code, with file and tag."""

import re
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from small_series import ALL, COLUMNS, ROWS, SLICES, make_image, nothing, put, save, save_one
from test_dicom_mutants import element, elements

from cfseg.errors import InputError
from cfseg.io import dicom_tags
from cfseg.io.dicom import count_acquisitions, read_series
from cfseg.io.dicom_tags import header_of, number, numbers, quiet, text
from cfseg.io.options import ReadingOptions


def with_element(path: Path, keyword: str, made: bytes) -> Path:
    """The file with these bytes for an element, wherever it is or was to be."""
    tag, data = pydicom.datadict.tag_for_keyword(keyword), path.read_bytes()
    there = [(b, e) for t, b, e in elements(data) if t == tag]
    after = next(b for t, b, _ in elements(data) if t >= tag)
    begin, end = there[0] if there else (after, after)
    path.write_bytes(data[:begin] + made + data[end:])
    return path


def raw(keyword: str, vr: bytes, value: bytes, length: int | None = None) -> tuple[str, bytes]:
    return keyword, element(pydicom.datadict.tag_for_keyword(keyword), vr, value, length)


ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
REFUSED = {
    "frames-text": (*raw("NumberOfFrames", b"IS", b"x "), "E_CORRUPT"),
    "frames-many": (*raw("NumberOfFrames", b"IS", b"99999999"), "E_CORRUPT"),
    "rows-gone": ("Rows", b"", "E_CORRUPT"),
    "rows-empty": (*raw("Rows", b"US", b""), "E_CORRUPT"),
    "rows-odd": (*raw("Rows", b"US", b"\x14"), "E_CORRUPT"),
    "rows-text": (*raw("Rows", b"LO", b"many"), "E_CORRUPT"),
    "rows-two": (*raw("Rows", b"US", b"\x14\0\x14\0"), "E_CORRUPT"),
    "rows-zero": (*raw("Rows", b"US", b"\0\0"), "E_CORRUPT"),
    "rows-unknown-vr": (*raw("Rows", b"ZZ", b"\x14\0"), "E_CORRUPT"),
    "position-abc": (*raw("ImagePositionPatient", b"DS", b"0\\abc\\0 "), "E_GEOMETRY"),
    "position-inf": (*raw("ImagePositionPatient", b"DS", b"0\\0\\inf "), "E_GEOMETRY"),
    "position-sequence": (*raw("ImagePositionPatient", b"SQ", ITEM), "E_GEOMETRY"),
    "orientation-zero": (
        *raw("ImageOrientationPatient", b"DS", b"0\\0\\0\\0\\0\\0 "),
        "E_GEOMETRY",
    ),
    "spacing-one": (*raw("PixelSpacing", b"DS", b"1 "), "E_GEOMETRY"),
    "spacing-negative": (*raw("PixelSpacing", b"DS", b"1\\-1"), "E_GEOMETRY"),
    "slope-zero": (*raw("RescaleSlope", b"DS", b"0 "), "E_NOT_HU"),
    "slope-nan": (*raw("RescaleSlope", b"DS", b"nan "), "E_NOT_HU"),
    "slope-inf": (*raw("RescaleSlope", b"DS", b"inf "), "E_NOT_HU"),
    "slope-huge": (*raw("RescaleSlope", b"DS", b"1e300 "), "E_NOT_HU"),
    "slope-empty": (*raw("RescaleSlope", b"DS", b""), "E_NOT_HU"),
    "slope-twice": (*raw("RescaleSlope", b"DS", b"1\\1 "), "E_NOT_HU"),
    "slope-sequence": (*raw("RescaleSlope", b"SQ", ITEM), "E_NOT_HU"),
    "intercept-abc": (*raw("RescaleIntercept", b"DS", b"abc "), "E_NOT_HU"),
    "padding-text": (*raw("PixelPaddingValue", b"LO", b"none"), "E_CORRUPT"),
    "padding-far": (*raw("PixelPaddingValue", b"DS", b"99999 "), "E_CORRUPT"),
    "allocated-8": (*raw("BitsAllocated", b"US", b"\x08\0"), "E_DTYPE"),
    "allocated-0": (*raw("BitsAllocated", b"US", b"\0\0"), "E_CORRUPT"),
    "stored-more": (*raw("BitsStored", b"US", b"\x18\0"), "E_CORRUPT"),
    "high-bit": (*raw("HighBit", b"US", b"\x0f\0"), "E_DTYPE"),
    "sign": (*raw("PixelRepresentation", b"US", b"\x02\0"), "E_CORRUPT"),
    "color": (*raw("SamplesPerPixel", b"US", b"\x03\0"), "E_DTYPE"),
    "palette": (*raw("PhotometricInterpretation", b"CS", b"PALETTE COLOR "), "E_DTYPE"),
    "photometric-sequence": (*raw("PhotometricInterpretation", b"SQ", ITEM), "E_CORRUPT"),
    "length-beyond": (*raw("PixelData", b"OW", bytes(960), 0x7FFFFFF0), "E_CORRUPT"),
    "length-beyond-text": (*raw("RescaleType", b"UT", b"HU", 0x7FFFFFF0), "E_CORRUPT"),
    "length-unknown": (*raw("PixelData", b"OW", bytes(960), 0xFFFFFFFF), "E_CORRUPT"),
    "pixels-gone": ("PixelData", b"", "E_CORRUPT"),
    "pixels-short": (*raw("PixelData", b"OW", bytes(900)), "E_CORRUPT"),
    "groups-text": (*raw("PerFrameFunctionalGroupsSequence", b"LO", b"none"), "E_CORRUPT"),
    "groups-empty": (*raw("PerFrameFunctionalGroupsSequence", b"SQ", 2 * ITEM), "E_CORRUPT"),
}


@pytest.mark.parametrize(("keyword", "made", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_by_file_and_tag(tmp_path: Path, keyword, made, code):
    folder = save(tmp_path / "s", numbers=range(3))
    with_element(folder / "IM7", keyword, made)
    with pytest.raises(InputError) as caught:
        read_series(sorted(folder.iterdir()))
    assert caught.value.code == code
    assert "IM7" in caught.value.message
    if code != "E_CORRUPT" or keyword in ("Rows", "PixelPaddingValue", "BitsStored"):
        assert keyword in caught.value.message


@pytest.mark.parametrize(
    "keyword", ["ImageType", "Modality", "AcquisitionNumber", "InstanceNumber"]
)
@pytest.mark.parametrize(
    "made", [(b"XX", b"CT"), (b"CS", b"a\\\\b\\"), (b"US", b"\1"), (b"DS", b"nan ")], ids=str
)
def test_damage_to_what_pixels_do_not_need_is_no_matter(tmp_path: Path, keyword, made):
    folder = save(tmp_path / "s", numbers=range(3))
    with_element(folder / "IM7", *raw(keyword, *made))
    assert count_acquisitions(sorted(folder.iterdir())) == 1
    assert read_series(sorted(folder.iterdir())).values.shape[2] == 3


def deflated(number: int, image: Dataset) -> None:
    image.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian


def huge(number: int, image: Dataset) -> None:
    image.Rows, image.Columns = 30000, 65535


@pytest.mark.parametrize("edits", [[huge], [huge, deflated]], ids=["plain", "deflated"])
def test_an_absurd_size_is_refused_before_memory_is_asked_for(tmp_path: Path, edits):
    def edit(number: int, image: Dataset) -> None:
        for each in edits:
            each(number, image)

    with pytest.raises(InputError, match="cannot hold 1 images of 65535 x 30000") as caught:
        read_series(sorted(save(tmp_path / "s", edit, numbers=range(2)).iterdir()))
    assert caught.value.code == "E_CORRUPT"


def test_a_deflated_bomb_is_inflated_as_far_as_a_header_reaches(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dicom_tags, "HEADER_BYTES", 1 << 20)
    bomb = save(tmp_path / "s", deflated, numbers=[0]) / "IM0"
    data = bomb.read_bytes()
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    deflater = zlib.compressobj(wbits=-15)
    private = element(0x00090010, b"UN", bytes(30 << 20))
    zeros = deflater.compress(private + zlib.decompress(data[start:], -15)) + deflater.flush()
    bomb.write_bytes(data[:start] + zeros)
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        read_series([bomb])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == "E_CORRUPT"
    assert peak < 8 << 20


def test_a_file_without_meta_is_read_and_a_file_of_another_kind_is_not(tmp_path: Path):
    folder = save(tmp_path / "s")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        plain = Dataset({tag: dataset[tag] for tag in dataset.keys()})  # noqa: SIM118
        pydicom.dcmwrite(path, plain, implicit_vr=True, little_endian=True)
    assert read_series(sorted(folder.iterdir())).values.shape[2] == SLICES
    (folder / "IM7").write_bytes(b"words and no DICOM " * 50)
    with pytest.raises(InputError, match="IM7") as caught:
        read_series(sorted(folder.iterdir()))
    assert caught.value.code == "E_CORRUPT"
    (folder / "IM7").write_bytes(b"")
    with pytest.raises(InputError, match="IM7") as caught:
        read_series(sorted(folder.iterdir()))
    assert caught.value.code == "E_CORRUPT"


def test_foreign_text_is_shown_harmless(tmp_path: Path):
    folder = save(tmp_path / "s", put({1}, RescaleType="\x1b[31mred"), numbers=range(3))
    with pytest.raises(InputError) as caught:
        read_series(sorted(folder.iterdir()))
    assert caught.value.code == "E_NOT_HU"
    assert "\\x1b[31mred" in caught.value.message


def test_padding_outside_of_the_stored_bits_is_padding(tmp_path: Path):
    """-32768 with 12 bits stored, written as unsigned: without its upper bits it would be water."""

    def edit(number: int, image: Dataset) -> None:
        values = bytearray(bytes(ROWS * COLUMNS * 2))
        values[: 2 * COLUMNS] = struct.pack("<h", -32768) * COLUMNS
        values[2 * COLUMNS : 4 * COLUMNS] = struct.pack("<h", -900) * COLUMNS
        image.PixelData, image.PixelRepresentation = bytes(values), 1
        image.RescaleIntercept = "0"
        image.add_new("PixelPaddingValue", "US", 0x8000)

    values = read_series(sorted(save(tmp_path / "s", edit).iterdir())).values
    assert (values[:, 0] == -1024).all()
    assert (values[:, 1] == -900).all()
    assert (values[:, 2:] == 0).all()


def test_bits_above_those_stored_do_not_count(tmp_path: Path):
    def edit(number: int, image: Dataset) -> None:
        overlay = bytearray(image.PixelData)
        overlay[1::8] = bytes(b | 0x50 for b in overlay[1::8])
        image.PixelData = bytes(overlay)

    plain = read_series(sorted(save(tmp_path / "a").iterdir())).values
    assert (read_series(sorted(save(tmp_path / "b", edit).iterdir())).values == plain).all()


def test_hints_name_what_helps(tmp_path: Path):
    """--hu-offset where there is no rescale at all, and only there."""
    gone = put(ALL, RescaleSlope=None, RescaleIntercept=None, RescaleType=None)
    lacking = sorted(save(tmp_path / "a", gone).iterdir())
    with pytest.raises(InputError, match="--hu-offset -1024"):
        read_series(lacking)
    assert read_series(lacking, ReadingOptions(hu_offset=-1024)).values.min() >= -1024
    for name, edit in (("b", put(ALL, RescaleSlope="0")), ("c", put({2}, RescaleIntercept=None))):
        files = sorted(save(tmp_path / name, edit).iterdir())
        for options in (ReadingOptions(), ReadingOptions(hu_offset=-1024)):
            with pytest.raises(InputError) as caught:
                read_series(files, options)
            assert "--hu-offset" not in caught.value.message


def test_values_of_a_header(tmp_path: Path):
    image = make_image(0)
    image.ImageType = ["A", "B"]
    image.add_new(0x00200013, "IS", "")
    header = header_of(save_one(tmp_path / "i", image))
    assert header is not None
    assert text(header, "ImageType") == "A\\B"
    assert text(header, "SeriesDescription") == ""
    assert number(header, "RescaleIntercept") == -1024
    assert number(header, "InstanceNumber") is None
    assert numbers(header, "PixelSpacing", 2) == (0.9, 0.6)
    assert numbers(header, "PixelSpacing", 3) is None


def test_a_dicom_directory_has_no_header(tmp_path: Path):
    folder = save(tmp_path / "s", nothing, numbers=range(2))
    directory = Dataset()
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    directory.DirectoryRecordSequence = [Dataset()]
    pydicom.dcmwrite(folder / "DICOMDIR", directory, enforce_file_format=False)
    assert header_of(folder / "DICOMDIR") is None
    with pytest.raises(InputError, match="holds no image") as caught:
        read_series(sorted(folder.iterdir()))
    assert re.search("DICOMDIR", caught.value.message)


def test_whoever_ends_first_the_warnings_of_the_process_come_back():
    """As two threads do that read at the same time."""
    before = list(warnings.filters)
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("kept off", UserWarning, stacklevel=1)
    second.__exit__(None, None, None)
    assert warnings.filters == before
