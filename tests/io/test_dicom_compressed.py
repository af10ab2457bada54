"""Compressed pixels come out as they went in, and no damaged stream takes the process with it."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from pydicom import dcmwrite, uid
from pydicom.dataset import Dataset
from small_series import COLUMNS, ROWS, compressed, enhanced, hu_stack, save, save_one, series
from small_streams import CODECS, SHAPE, by_gdcm, by_openjpeg, by_pyjpegls, noise, picture

from cfseg.errors import InputError, ResourceError
from cfseg.io import dicom_child, dicom_decode
from cfseg.io.dicom import read_series
from cfseg.io.dicom_frames import images_of
from cfseg.io.dicom_stored import stored_values


def stored(path: Path) -> np.ndarray:
    image = images_of(path)[0]
    return image.layout.without_unused_bits(next(stored_values([image])))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("codec", CODECS)
def test_d10_every_codec_gives_the_uncompressed_pixels(tmp_path: Path, codec, signed):
    syntax, encode = CODECS[codec]
    for bits in (12, 13, 14, 15, 16):
        raw = noise(bits, signed)
        image = compressed(picture(raw, bits, signed), syntax, encode(raw, bits, signed))
        np.testing.assert_array_equal(stored(save_one(tmp_path / "i", image)), raw)


@pytest.mark.parametrize("codec", [c for c in CODECS if c != "RLE"])
@pytest.mark.parametrize("written", ["with 16 bits", "unsigned", "unsigned with 16 bits"])
def test_signed_pixels_that_the_stream_does_not_call_so(tmp_path: Path, codec, written):
    """Encoders write what they like about sign and precision; the DICOM header counts."""
    syntax, encode = CODECS[codec]
    raw = noise(12, True)
    given = raw if written == "with 16 bits" else (raw.view("<u2") & 0xFFF).astype("<u2")
    frame = encode(given, 16 if "16" in written else 12, "unsigned" not in written)
    image = compressed(picture(raw, 12, True), syntax, frame)
    np.testing.assert_array_equal(stored(save_one(tmp_path / "i", image)), raw)


def test_j2k_of_a_signed_stream_with_unsigned_pixels(tmp_path: Path):
    raw = noise(12, False)
    image = compressed(
        picture(raw, 12, False), uid.JPEG2000Lossless, by_openjpeg(raw.astype("<i2"), 13, True)
    )
    np.testing.assert_array_equal(stored(save_one(tmp_path / "i", image)), raw)


EXTENDED = bytes.fromhex(
    "ffd8 ffdb004300" + 64 * "01" + "ffc1000b0c0010001801011100"
    "ffc4001700010003000000000000000000000000000f090d0e ffc4001410010000000000000000000000"
    "0000000000 ffda0008010100003f00 3fff003ffc0801d280a0bf6f201f ffd9"
)
"""Blocks of 8 x 8 pixels, JPEG Extended of 12 bits, written by libjpeg-turbo 3.1."""


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_extended_of_12_bits(tmp_path: Path, signed):
    blocks = np.kron([[0, 4095, 1024], [1064, 64, 2000]], np.ones((8, 8), int))
    expected = np.where(signed & (blocks > 2047), blocks - 4096, blocks)
    image = compressed(picture(blocks.astype("<u2"), 12, signed), uid.JPEGExtended12Bit, EXTENDED)
    np.testing.assert_array_equal(stored(save_one(tmp_path / "i", image)), expected)


def test_jpeg_extended_of_16_bits_is_refused(tmp_path: Path):
    """GDCM writes it, although JPEG has no such thing, and reads air as bone."""
    raw = np.full(SHAPE, 1064, dtype="<u2")
    frame = by_gdcm("JPEGExtendedProcess2_4")(raw, 12, False)
    image = compressed(picture(raw, 12, False), uid.JPEGExtended12Bit, frame)
    with pytest.raises(InputError, match="12 bits") as caught:
        stored(save_one(tmp_path / "i", image))
    assert caught.value.code == "E_CORRUPT"


@pytest.mark.parametrize("syntax", [uid.DeflatedExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_a_series_that_is_deflated_or_implicit(tmp_path: Path, syntax):
    def edit(number: int, image: Dataset) -> None:
        image.file_meta.TransferSyntaxUID = syntax

    values = read_series(sorted(save(tmp_path / "s", edit).iterdir())).values
    np.testing.assert_array_equal(values.transpose(2, 1, 0), hu_stack())


def test_a_big_endian_series(tmp_path: Path):
    files = []
    for number, image in enumerate(series()):
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
        image["PixelData"].VR = "OW"
        image.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
        files.append(tmp_path / str(number))
        dcmwrite(files[-1], image, implicit_vr=False, little_endian=False, force_encoding=True)
    values = read_series(files).values
    np.testing.assert_array_equal(values.transpose(2, 1, 0), hu_stack())


def test_an_enhanced_file_of_compressed_frames(tmp_path: Path):
    images = series()[::-1]
    frames = [
        by_pyjpegls(np.frombuffer(i.PixelData, "<u2").reshape(ROWS, COLUMNS), 12, False)
        for i in images
    ]
    path = save_one(tmp_path / "e", compressed(enhanced(images), uid.JPEGLSLossless, *frames))
    np.testing.assert_array_equal(read_series([path]).values.transpose(2, 1, 0), hu_stack())
    path = save_one(tmp_path / "e", compressed(enhanced(images), uid.JPEGLSLossless, *frames[1:]))
    with pytest.raises(InputError) as caught:
        read_series([path])
    assert caught.value.code == "E_CORRUPT"


def one_file(folder: Path, frame: bytes, syntax: str = uid.JPEGLSLossless) -> Path:
    return save_one(folder / "i", compressed(picture(noise(12, False), 12, False), syntax, frame))


def test_a_stream_that_cannot_be_decoded_is_corrupt_and_the_next_one_is_read(tmp_path: Path):
    raw = noise(12, False)
    good = by_pyjpegls(raw, 12, False)
    for bad in (b"\xff\xd8\xff\xd9", good[:100], bytes(100), good[: len(good) // 2]):
        with pytest.raises(InputError) as caught:
            stored(one_file(tmp_path, bad))
        assert caught.value.code == "E_CORRUPT"
        np.testing.assert_array_equal(stored(one_file(tmp_path, good)), raw)


@pytest.fixture
def another_child(monkeypatch):
    """A child of the test's own in place of the one that all share."""
    child = dicom_decode._Child()
    monkeypatch.setattr(dicom_decode, "_child", child)
    yield
    child.close()


def child_script(monkeypatch, tmp_path: Path, body: str) -> None:
    """Let a stand-in decode: it answers as the real child does, but for ``body`` before it."""
    script = tmp_path / "child.py"
    source = Path(dicom_child.__file__).read_text()
    marker = "            values = decode(" if body == BUSY else "    try:\n        for module"
    assert marker in source
    indent = marker[: len(marker) - len(marker.lstrip())]
    script.write_text(source.replace(marker, f"{indent}{body}\n{marker}"))
    monkeypatch.setattr(dicom_child, "__file__", str(script))


CRASH = "if len(frame) < 100: os.kill(os.getpid(), signal.SIGSEGV)"
HANG = "if len(frame) < 100: signal.pause()"
BUSY = "while len(frame) < 100: pass"


@pytest.mark.parametrize(
    ("body", "says"),
    [(CRASH, r"exit code -11"), (HANG, r"more than 0\.5 s"), (BUSY, "far longer than any image")],
    ids=["crash", "hang", "busy"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_decoder_that_crashes_or_hangs_costs_one_file(
    tmp_path: Path, monkeypatch, another_child, body, says
):
    child_script(monkeypatch, tmp_path, body)
    raw = noise(12, False)
    good = by_pyjpegls(raw, 12, False)
    np.testing.assert_array_equal(stored(one_file(tmp_path, good)), raw)
    monkeypatch.setattr(dicom_decode, "IMAGE_SECONDS", 0.5 if body == HANG else 60.0)
    monkeypatch.setattr(dicom_decode, "CPU_SECONDS", 0.1)
    with pytest.raises(InputError, match=says) as caught:
        stored(one_file(tmp_path, b"\xff\xd8"))
    assert caught.value.code == "E_CORRUPT"
    monkeypatch.setattr(dicom_decode, "IMAGE_SECONDS", 60.0)
    monkeypatch.setattr(dicom_decode, "CPU_SECONDS", 1.0)
    np.testing.assert_array_equal(stored(one_file(tmp_path, good)), raw)


def test_a_missing_library_is_named_with_the_extra(tmp_path: Path, monkeypatch, another_child):
    child_script(monkeypatch, tmp_path, "sys = __import__('sys'); sys.modules['jpeg_ls'] = None")
    with pytest.raises(InputError, match=r"JPEG-LS.*jpeg_ls.*cfseg\[dicom\]") as caught:
        stored(one_file(tmp_path, by_pyjpegls(noise(12, False), 12, False)))
    assert caught.value.code == "E_DECODER"
    assert "libjpeg" not in caught.value.message


def test_a_child_that_cannot_start_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch, another_child
):
    monkeypatch.setattr(dicom_child, "__file__", str(tmp_path / "none.py"))
    with pytest.raises(ResourceError, match="did not start"):
        stored(one_file(tmp_path, by_pyjpegls(noise(12, False), 12, False)))


def test_a_syntax_that_no_ct_has(tmp_path: Path):
    path = one_file(tmp_path, b"\xff\xd8\xff\xd9", uid.MPEG2MPML)
    with pytest.raises(InputError, match="transfer syntax MPEG2") as caught:
        images_of(path)
    assert caught.value.code == "E_DECODER"


@pytest.mark.parametrize("codec", [c for c in CODECS if c != "RLE"])
def test_a_stream_of_other_dimensions_is_corrupt(tmp_path: Path, codec):
    syntax, encode = CODECS[codec]
    for shape in ((39, 48), (48, 40), (80, 96)):
        frame = encode(noise(12, False, shape), 12, False)
        with pytest.raises(
            InputError, match=f"48 x 40 pixels.* {shape[1]} x {shape[0]};"
        ) as caught:
            stored(one_file(tmp_path, frame, syntax))
        assert caught.value.code == "E_CORRUPT"


def test_several_threads_share_the_child(tmp_path: Path):
    paths, raws = [], [noise(bits, False) for bits in (12, 13, 14, 15)]
    for index, raw in enumerate(raws):
        image = picture(raw, 16, False)
        image = compressed(image, uid.JPEGLSLossless, by_pyjpegls(raw, 16, False))
        paths.append(save_one(tmp_path / str(index), image))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for raw, found in zip(raws, pool.map(stored, paths), strict=True):
                np.testing.assert_array_equal(found, raw)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_child_has_a_memory_limit_and_ends_with_a_parent_that_is_killed():
    """Its standard input ends then, so it does, and nothing is left behind."""
    code = (
        "import time; from cfseg.io import dicom_decode as d; "
        "print(d._child._started().pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    limits = Path(f"/proc/{child}/limits").read_text()
    assert re.search(rf"Max address space +{dicom_child.MEMORY_BYTES} ", limits)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
