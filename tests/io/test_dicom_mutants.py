"""Damaged DICOM: whatever a header or a stream says, only a declared error comes out."""

import random
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from small_series import compressed, enhanced, save_one, series
from small_streams import CODECS, noise

from cfseg.errors import InputError
from cfseg.io.dicom import count_acquisitions, read_series
from cfseg.io.options import ReadingOptions

SEED, MUTANTS = 20261128, 150
KEYWORDS = [
    "ImageType", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "AcquisitionNumber", "ImagesInAcquisition", "PixelData",
]  # fmt: skip
VALUES = [
    b"", b" ", b"\0\0", b"0", b"-1", b"abc ", b"x", b"nan ", b"inf ", b"-inf", b"1e999 ", b"1e300 ",
    b"1e-300", b"9" * 400, b"1\\2", b"1\\2\\3\\4\\5\\6", b"1\\\\3 ", b"0\\0\\0 ", b"nan\\nan\\nan ",
    b"1\\0\\0\\1\\0\\0 ", b"2\\0\\0\\0\\2\\0 ", b"\xff\xff", b"\x00\x80", b"\xff" * 7, b"\x01\x00",
    b"\x20\x00", b"\xe4\xf6\xfc", b"MONOCHROME1 ", b"RGB ", b"LOCALIZER ", b"HU\\HU ",
    bytes(8), bytes(10_000), b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd",
]  # fmt: skip
VRS = [b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"OB", b"OW"]
VRS += [b"PN", b"SH", b"SL", b"SQ", b"SS", b"TM", b"UI", b"UL", b"UN", b"US", b"UT", b"UV", b"ZZ"]
VRS += [b"\0\0", b"??", b"ds"]
LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT", b"UV", b"OD", b"OF", b"OL", b"OV", b"SV", b"UC", b"UR"}


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element in explicit VR, little-endian, with a length that may lie."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    length = len(value) if length is None else length
    if vr in LONG:
        return head + struct.pack("<HI", 0, length & 0xFFFFFFFF) + value
    return head + struct.pack("<H", length & 0xFFFF) + value


def elements(data: bytes) -> list[tuple[int, int, int]]:
    """Tag, begin and end of each element of a file at its top level."""
    found, place = [], 132
    while place + 8 <= len(data):
        group, number, vr, length = struct.unpack_from("<HH2sH", data, place)
        end = place + 8 + length
        if vr in LONG:
            (length,) = struct.unpack_from("<I", data, place + 8)
            end = len(data) if length == 0xFFFFFFFF else place + 12 + length
        found.append((group << 16 | number, place, end))
        place = end
    return found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file with one fault: a value, a VR, a length, a byte, an end."""
    kind = rng.choice(["value", "value", "vr", "length", "bytes", "cut", "gone", "twice"])
    if kind == "cut":
        return data[: rng.randrange(100, len(data))]
    if kind == "bytes":
        changed = bytearray(data)
        for _ in range(rng.choice([1, 3, 30])):
            changed[rng.randrange(132, len(data))] = rng.randrange(256)
        return bytes(changed)
    tag = pydicom.datadict.tag_for_keyword(rng.choice(KEYWORDS))
    place = next(((b, e) for t, b, e in elements(data) if t == tag), None)
    if place is None:  # a tag that was not there: where it belongs
        begin = next((b for t, b, _ in elements(data) if t > tag), len(data))
        vr = pydicom.datadict.dictionary_VR(tag)[:2].encode()
        return data[:begin] + element(tag, vr, rng.choice(VALUES)) + data[begin:]
    begin, end = place
    vr = data[begin + 4 : begin + 6]
    value = data[begin + (12 if vr in LONG else 8) : end]
    made = {
        "value": lambda: element(tag, vr, rng.choice(VALUES)),
        "vr": lambda: element(tag, rng.choice(VRS), rng.choice([value, rng.choice(VALUES)])),
        "length": lambda: element(
            tag, vr, value, rng.choice([0, 1, len(value) + 1, 0xFFFF, 0xFFFFFF0, 0xFFFFFFFF])
        ),
        "gone": lambda: b"",
        "twice": lambda: element(tag, vr, value + b"\\" + value),
    }[kind]()
    return data[:begin] + made + data[end:]


def originals(folder: Path) -> dict[str, list[bytes]]:
    """Files of three slices, as bytes: plain, padded and numbered, enhanced, of each codec."""

    def numbered(number: int, image: Dataset) -> None:
        image.AcquisitionNumber, image.NumberOfFrames = number % 2, 1
        image.add_new("PixelPaddingValue", "US", 0)

    def deflated(number: int, image: Dataset) -> None:
        image.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian

    three = range(3)
    kinds = {
        "plain": series(numbers=three),
        "numbered": series(numbered, three),
        "deflated": series(deflated, three),
        "enhanced": [enhanced(series(numbers=three))],
        "enhanced, for each": [enhanced(series(numbers=three), shared=False)],
    }
    for codec, (syntax, encode) in CODECS.items():
        raw = noise(12, False)
        kinds[codec] = []
        for image in series(numbers=three):
            image.Rows, image.Columns = raw.shape
            kinds[codec].append(compressed(image, syntax, encode(raw, 12, False)))
    return {
        name: [save_one(folder / "original", image).read_bytes() for image in images]
        for name, images in kinds.items()
    }


def mutant(files: list[bytes], rng: random.Random) -> list[bytes]:
    """The files with the same fault in one of them or in all."""
    seed, one = rng.random(), rng.randrange(len(files))
    everywhere = rng.random() < 0.5
    return [
        mutated(data, random.Random(seed)) if everywhere or index == one else data  # noqa: S311
        for index, data in enumerate(files)
    ]


def outcome(files: list[Path], options: ReadingOptions) -> str:
    """The code with which the files are refused, "" if they are read."""
    try:
        count_acquisitions(files)
        stored = read_series(files, options)
    except InputError as error:
        return error.code
    assert np.isfinite(stored.values).all()
    return ""


def run(folder: Path, seed: int, count: int) -> dict[str, int]:
    """How often each outcome came of so many mutants."""
    kinds, counts = originals(folder), dict[str, int]()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")  # noqa: S311
        name = rng.choice(list(kinds))
        paths = []
        for index, data in enumerate(mutant(kinds[name], rng)):
            paths.append(folder / f"{index}")
            paths[-1].write_bytes(data)
        options = ReadingOptions(allow_gaps=rng.random() < 0.5)
        try:
            code = outcome(paths, options)
        except BaseException as error:
            error.add_note(f"mutant {number} of seed {seed}: {name}")
            raise
        counts[code] = counts.get(code, 0) + 1
    return counts


def test_only_declared_errors_come_out_of_mutants(tmp_path: Path):
    counts = run(tmp_path, SEED, MUTANTS)
    assert counts.get("", 0) > 10
    assert sum(counts.values()) - counts.get("", 0) > 10
