"""Mutants of scans: NIfTI, MetaImage, NRRD, DICOM, and archives of them."""

import gzip
import io
import random
import tarfile
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import test_dicom_mutants
from small_scans import ct, image, labels
from small_series import compressed, save_one, series
from small_streams import CODECS, noise
from test_itk import mha, nrrd
from test_nifti_refusals import (
    BITPIX,
    DATATYPE,
    DIM,
    INTER,
    PACKED,
    PIXDIM,
    QFORM_CODE,
    QUATERN,
    SFORM_CODE,
    SLOPE,
    SROW,
    UNITS,
    VOX_OFFSET,
    plain,
    sheared,
)
from test_segments import segmentation
from tests.fuzz.damage import damaged, rewritten, with_extremes

NIFTI1_FIELDS = (
    *((DIM + 2 * i, "h") for i in range(8)), *((PIXDIM + 4 * i, "f") for i in range(8)),
    *((SROW + 4 * i, "f") for i in range(12)), *((QUATERN + 4 * i, "f") for i in range(6)),
    (DATATYPE, "h"), (BITPIX, "h"), (VOX_OFFSET, "f"), (SLOPE, "f"), (INTER, "f"), (UNITS, "B"),
    (QFORM_CODE, "h"), (SFORM_CODE, "h"), (0, "i"), (344, "i"), (348, "i"),
)  # fmt: skip
NIFTI_HEAD = 352
NAMES = ("x.nii", "x.nii.gz", "x_0000.nii.gz", "deep/x.nii", "deep/x.nii.gz")
ODD_NAMES = (
    "../x.nii", "/x.nii", "a/../../x.nii", "..\\x.nii", "C:/x.nii", "", ".", "a" * 300, "a/" * 200,
    "a", "a/x.nii", "x\x00.nii", "caf\udce9.nii", "\u202ex.nii", "x.nii", "x.zip", "con/nul.nii",
)  # fmt: skip


@cache
def niftis() -> tuple[bytes, ...]:
    """Whole files: CT and label map, of several types, versions and byte orders."""
    swapped = nib.Nifti1Image(
        ct().astype(">i2"), image().affine, image().header.as_byteswapped(">")
    )
    return (
        plain(), plain(ct().astype(np.float32)), plain(ct().astype(np.float64)), plain(labels()),
        plain(affine=sheared(0.2)), plain(np.stack([ct(), ct()], axis=-1)), swapped.to_bytes(),
        nib.Nifti2Image(ct(), image().affine).to_bytes(),
    )  # fmt: skip


def nifti(folder: Path, rng: random.Random) -> Path:
    """Write a NIfTI file with a damaged header."""
    return _put(folder, rng.choice(NAMES), _nifti(rng, niftis()), rng)


def label_map(folder: Path, rng: random.Random) -> Path:
    """Write a damaged label map."""
    sources = (plain(labels()), plain(labels().astype(np.float32)), plain(labels().astype("i2")))
    data = _nifti(rng, sources)
    packed = _packed(data)
    if rng.random() < 0.3:
        packed = damaged(packed, rng, head=20)
    return _put(folder, "x.nii.gz", data if rng.random() < 0.5 else packed)


def gzip_stream(folder: Path, rng: random.Random) -> Path:
    """Write a NIfTI file with a damaged stream, or several of them."""
    data = rng.choice(niftis())
    packed = _packed(data, rng.choice((0, 1, 9)))
    other = _packed(rng.choice(niftis()))
    made = {
        0: lambda: packed + other,
        1: lambda: _packed(damaged(packed, rng, head=20)),
        2: lambda: _packed(data[: len(data) // 2]) + damaged(other, rng, head=20),
        3: lambda: _packed(_packed(packed)),
        4: lambda: b"".join(_packed(data[i : i + 99]) for i in range(0, len(data), 99)),
    }.get(rng.randrange(25), lambda: damaged(packed, rng, head=30, other=other))()
    return _put(folder, rng.choice(NAMES), made, rng)


@cache
def itk_files() -> dict[str, tuple[bytes, bytes]]:
    """Header and body of MetaImage and NRRD files of each encoding."""
    body = ct().tobytes(order="F")
    packed, deflated = _packed(body), zlib.compress(body, 1)
    ids, names = labels() % 4, {1: "liver", 2: "spleen", 3: "something else"}
    return {
        "nrrd": (nrrd(b""), body),
        "gzip.nrrd": (nrrd(b"", encoding="gzip"), packed),
        "spacings.nrrd": (
            nrrd(b"", space=None, space_directions=None, space_origin=None, spacings="2 2.5 3"),
            body,
        ),
        "nhdr": (nrrd(b"", data_file="x.raw"), body),
        "seg.nrrd": (segmentation(ids[:0], names), ids.tobytes(order="F")),
        "mha": (mha(b""), body),
        "zlib.mha": (mha(b"", CompressedData="True"), deflated),
        "mhd": (mha(b"", ElementDataFile="x.raw"), body),
    }


def _itk(folder: Path, rng: random.Random, kinds: list[str]) -> Path:
    name = rng.choice(kinds)
    head, body = itk_files()[name]
    how = rng.randrange(4)
    if how == 0:
        body = damaged(body, rng, head=20)
    elif how == 1:
        head = damaged(head, rng, other=itk_files()[rng.choice(kinds)][0])
    else:
        head = rewritten(head.decode(), rng)
    if name in ("nhdr", "mhd"):
        (folder / "x.raw").write_bytes(body)
        return _put(folder, f"x.{name}", head)
    return _put(folder, f"x.{name}", head + body)


def nrrd_file(folder: Path, rng: random.Random) -> Path:
    """Write a damaged NRRD file; some have their data beside them."""
    return _itk(folder, rng, ["nrrd", "gzip.nrrd", "spacings.nrrd", "nhdr", "seg.nrrd"])


def segments(folder: Path, rng: random.Random) -> Path:
    """Write a damaged segmentation of 3D Slicer."""
    return _itk(folder, rng, ["seg.nrrd"])


def metaimage(folder: Path, rng: random.Random) -> Path:
    """Write a damaged MetaImage file; some have their data beside them."""
    return _itk(folder, rng, ["mha", "zlib.mha", "mhd"])


@cache
def dicoms() -> dict[str, list[bytes]]:
    """Files of three slices, of each kind and codec."""
    with tempfile.TemporaryDirectory() as folder:
        return test_dicom_mutants.originals(Path(folder))


@cache
def streams() -> dict[str, bytes]:
    """A slice, compressed by each codec."""
    return {codec: encode(noise(12, False), 12, False) for codec, (_, encode) in CODECS.items()}


def dicom(folder: Path, rng: random.Random) -> Path:
    """Write a series of which elements or bytes are damaged."""
    files = dicoms()[rng.choice([kind for kind in dicoms() if kind not in CODECS])]
    if rng.random() < 0.6:
        return _put_series(folder, test_dicom_mutants.mutant(files, rng), rng)
    one = rng.randrange(len(files))
    other = rng.choice(dicoms()["plain"])
    changed = damaged(files[one], rng, head=1000, other=other)
    return _put_series(folder, [*files[:one], changed, *files[one + 1 :]], rng)


def compressed_dicom(folder: Path, rng: random.Random) -> Path:
    """Write a series of compressed slices of which elements, or the streams, are damaged."""
    codec = rng.choice(list(CODECS))
    if rng.random() < 0.3:
        return _put_series(folder, test_dicom_mutants.mutant(dicoms()[codec], rng), rng)
    whole, syntax = streams()[codec], CODECS[codec][0]
    stream = damaged(whole, rng, head=100, other=streams()[rng.choice(list(CODECS))])
    files, broken = [], rng.randrange(3)
    for number, one in enumerate(series(numbers=range(3))):
        one.Rows, one.Columns = noise(12, False).shape
        # An item has an even length, and pydicom writes none without any byte.
        frame = (stream + bytes(len(stream) % 2) or bytes(2)) if number == broken else whole
        save_one(folder / "made", compressed(one, syntax, frame))
        files.append((folder / "made").read_bytes())
    (folder / "made").unlink()
    return _put_series(folder, files, rng)


def zip_file(folder: Path, rng: random.Random) -> Path:
    """Write a zip archive of scans with damaged bytes or odd entries."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name, data in _entries(rng).items():
            file.writestr(_zip_entry(name, rng), data)
    data = made.getvalue()
    if rng.random() < 0.7:
        tail = data.rfind(b"PK\x05\x06")
        mirrored = damaged(data[::-1], rng, head=len(data) - tail + 300)[::-1]
        data = mirrored if rng.random() < 0.5 else damaged(data, rng, head=60)
    return _put(folder, "x.zip", data, rng)


def tar_file(folder: Path, rng: random.Random) -> Path:
    """Write a tar archive of scans with damaged bytes or odd entries."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for name, data in _entries(rng).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if rng.random() < 0.1:
                info.type = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"9"))
                info.linkname = rng.choice(("/etc/passwd", "../x", "a"))
            file.addfile(info, io.BytesIO(data))
    data = made.getvalue()
    if rng.random() < 0.6:
        data = damaged(data, rng, head=600)
    if rng.random() < 0.5:
        return _put(folder, "x.tar", data, rng)
    packed = _packed(data)
    packed = damaged(packed, rng, head=20) if rng.random() < 0.3 else packed
    return _put(folder, rng.choice(("x.tar.gz", "x.tgz")), packed, rng)


def _packed(data: bytes, level: int = 1) -> bytes:
    """Return a gzip stream without the time in it: the same for the same bytes."""
    return gzip.compress(data, level, mtime=0)


def _entries(rng: random.Random) -> dict[str, bytes]:
    entries = {"a/ct.nii.gz": PACKED, "README.txt": b"words"}
    entries |= {f"s/IM{number}": data for number, data in enumerate(dicoms()["plain"])}
    for name in rng.sample(ODD_NAMES, rng.choice((0, 0, 1, 2))):
        entries[name] = rng.choice((PACKED, b"", b"words", bytes(1 << 20)))
    return entries


def _zip_entry(name: str, rng: random.Random) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name.encode("utf-8", "replace").decode()  # past what the constructor cuts off
    if rng.random() < 0.05:
        info.external_attr = rng.choice((0o120777, 0o010666, 0o040777, 0xFFFF)) << 16
    return info


def _nifti(rng: random.Random, sources: tuple[bytes, ...]) -> bytes:
    data = rng.choice(sources)
    if rng.random() < 0.5:
        return with_extremes(data, rng, *NIFTI1_FIELDS)
    return damaged(data, rng, head=NIFTI_HEAD, other=rng.choice(niftis()))


def _put_series(folder: Path, files: list[bytes], rng: random.Random) -> Path:
    name = rng.choice(("IM{}", "IM{}.dcm", "s/{}"))
    for number, data in enumerate(files):
        _put(folder, name.format(number), data)
    return folder


def _put(folder: Path, name: str, data: bytes, rng: random.Random | None = None) -> Path:
    """Write a file and return it, or now and then its folder, to be searched."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return folder if rng is not None and rng.random() < 0.3 else path
