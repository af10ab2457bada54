"""Small inputs of every kind that people meet, and what each must get.

``python tests/io/corpus.py`` prints docs/reference/inputs.md from what really happens to them.
"""

import gzip
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from small_scans import ct, labels
from small_series import ALL, SLICES, enhanced, put, save, save_one, series, tilted, uneven
from test_nifti_refusals import (
    DATATYPE,
    DIM,
    INTER,
    NAN,
    PACKED,
    PIXDIM,
    QFORM_CODE,
    RGB,
    SFORM_CODE,
    SLOPE,
    SROW,
    UNITS,
    patched,
    plain,
    sheared,
    spaced,
    with_nan,
    zeros,
)

from cfseg.errors import CfsegError
from cfseg.io import Input, list_inputs, read_scan

Make = Callable[[Path], object]
HU = ct()


@dataclass(frozen=True)
class Row:
    """One kind of input.

    Attributes:
        number: of the list of bad inputs, or N00 and D00 for what is not on it.
        what: in a few words.
        make: writes it into a folder of its own.
        code: of the refusal, "" if it is read.
        note: the word of the note with which it is read, "" for none.
        file: what is named on the command line, below that folder; "" for the folder.
    """

    number: str
    what: str
    make: Make
    code: str = ""
    note: str = ""
    file: str = "x.nii.gz"

    @property
    def name(self) -> str:
        """A name for the folder and the test."""
        return f"{self.number}-{re.sub('[^a-z0-9]+', '-', self.what.lower()).strip('-')}"


def nifti(number: str, what: str, content: bytes | np.ndarray, *rest: str, **more: str) -> Row:
    """One NIfTI file."""
    data = plain(content) if isinstance(content, np.ndarray) else content
    file = more.get("file", "x.nii.gz")
    return Row(number, what, lambda folder: (folder / file).write_bytes(data), *rest, **more)


def dicom(number: str, what: str, make: Make, *rest: str) -> Row:
    """A folder with a DICOM series."""
    return Row(number, what, lambda folder: make(folder / "s"), *rest, file="s")


def edited(**values: object) -> Make:
    """Every image of a series changed."""
    return lambda folder: save(folder, put(ALL, **values))


def one_changed(number: int = 5, **values: object) -> Make:
    """One image of a series changed."""
    return lambda folder: save(folder, put({number}, **values))


def beside(*, edit: Make = lambda folder: None, numbers: Sequence[int] = range(SLICES)) -> Make:
    """A series, and then something done to its folder."""
    return lambda folder: edit(save(folder, numbers=list(numbers)))


def cut(folder: Path, *, keep: int) -> None:
    path = sorted(folder.iterdir())[-1]
    path.write_bytes(path.read_bytes()[:keep])


def two_phases(folder: Path) -> None:
    save(folder, put(ALL, AcquisitionNumber="1"))
    for number in range(SLICES):
        edit = put(
            {number},
            PixelData=bytes(20 * 24 * 2),
            SOPInstanceUID=f"1.9.{number}",
            AcquisitionNumber="2",
        )
        save(folder, edit, numbers=[number], name="B{}")


def packed(folder: Path) -> None:
    source = save(folder / "inside")
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for path in sorted(source.iterdir()):
            archive.write(path, f"inside/{path.name}")
    shutil.rmtree(source)


def escaping(folder: Path) -> None:
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("../../x.nii", plain())


def taken(folder: Path) -> None:
    (folder / "ct.nii.gz").write_bytes(PACKED)
    with tarfile.open(folder / "x.tar.gz", "w:gz") as archive:
        archive.add(folder / "ct.nii.gz", "deep/ct.nii.gz")
    (folder / "ct.nii.gz").unlink()


def itk(name: str, *, keep: float = 1.0) -> Make:
    """A scan written by SimpleITK; of its bytes the first share."""

    def make(folder: Path) -> None:
        import SimpleITK as sitk  # noqa: N813 - its own name

        made = sitk.GetImageFromArray(HU.T)
        made.SetSpacing((2.0, 2.5, 3.0))
        sitk.WriteImage(made, str(folder / name), useCompression=name.endswith("mha"))
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return make


def tree(folder: Path) -> None:
    for case in ("a", "b"):
        (folder / "s" / case / "segmentations").mkdir(parents=True)
        (folder / "s" / case / "ct.nii.gz").write_bytes(PACKED)
        mask = plain((HU > 0).astype(np.uint8))
        (folder / "s" / case / "segmentations" / "liver.nii.gz").write_bytes(mask)


def study(folder: Path) -> None:
    folder.mkdir()
    for uid in ("1.1", "1.2"):
        save(folder / uid, put(ALL, SeriesInstanceUID=uid))


ROWS = [
    nifti("N00", "NIfTI file", PACKED),
    nifti("N01", "axes off the right angle by less than 1e-3", plain(affine=sheared(3e-4)), "",
          "affine_snapped"),
    nifti("N02", "axes sheared by up to 30 degrees", plain(affine=sheared(0.2)), "",
          "affine_sheared"),
    nifti("N02", "axes sheared by more than 30 degrees", plain(affine=sheared(0.7)), "E_GEOMETRY"),
    nifti("N03", "affine with a zero column", patched(plain(), (SROW, "f", 0)), "E_GEOMETRY"),
    nifti("N03", "affine with NaN", patched(plain(), (SROW, "f", NAN)), "E_GEOMETRY"),
    nifti("N03", "voxel size 0", patched(plain(), (PIXDIM + 4, "f", 0)), "E_GEOMETRY"),
    nifti("N04", "spacing of 2 micrometers", plain(affine=spaced(0.002, 0.002, 0.003)),
          "E_SPACING"),
    nifti("N04", "spacing in meters", patched(plain(), (UNITS, "B", 1)), "E_SPACING"),
    nifti("N05", "neither qform nor sform",
          patched(plain(), (SFORM_CODE, "h", 0), (QFORM_CODE, "h", 0)), "E_ORIENTATION"),
    nifti("N06", "qform and sform disagree", patched(plain(), (QFORM_CODE, "h", 1)
          , (SFORM_CODE, "h", 1), (SROW + 12, "f", 40)), "", "qform_ignored"),
    nifti("N07", "axes flipped and turned", plain(affine=np.array(
        [[0, 0, 3.0, 0], [-2.0, 0, 0, 0], [0, 2.5, 0, 0], [0, 0, 0, 1]]))),
    nifti("N08", "fourth axis of length 1", plain(HU[..., None]), "", "squeezed"),
    nifti("N09", "several volumes", plain(zeros(6, 6, 6, 2)), "E_NDIM"),
    nifti("N10", "one picture", plain(zeros(6, 6)), "E_NDIM"),
    nifti("N10", "colors", plain(zeros(6, 6, 6, dtype=RGB)), "E_DTYPE"),
    nifti("N10", "unknown data type", patched(plain(), (DATATYPE, "h", 999)), "E_DTYPE"),
    nifti("N11", "one slice", plain(ct((12, 12, 1))), "E_TOO_FEW_SLICES"),
    nifti("N11", "no slice", patched(plain(), (DIM + 6, "h", 0)), "E_TOO_FEW_SLICES"),
    nifti("N12", "less than 40 mm of the body", plain(ct((24, 20, 8))), "", "thin_volume"),
    nifti("N13", "slices ten times as far apart as pixels", plain(affine=spaced(0.5, 0.5, 5)), "",
          "anisotropic"),
    nifti("N14", "more voxels than memory holds",
          patched(plain(), *((DIM + 2 * i, "h", 32767) for i in (1, 2, 3))), "E_TOO_LARGE"),
    nifti("N15", "NaN or infinite voxels", plain(with_nan()), "E_NONFINITE"),
    nifti("N16", "padding of -3024 outside of the field of view",
          np.where(HU < -900, -3024, HU).astype(np.int16), "", "padding_clamped"),
    nifti("N17", "lost intercept", (HU + 1024).clip(0).astype(np.uint16), "E_NOT_HU"),
    nifti("N18", "scaled to 0..1", (HU / 2000 + 0.5).clip(0, 1).astype(np.float32), "E_NOT_HU"),
    nifti("N18", "scaled to 0..255", ((HU + 160.0) / 400 * 255).clip(0, 255), "E_NOT_HU"),
    nifti("N18", "z-scores", ((HU - HU.mean()) / HU.std()).astype(np.float32), "E_NOT_HU"),
    nifti("N19", "floating-point HU", HU.astype(np.float64)),
    nifti("N20", "slope 0", patched(plain(), (SLOPE, "f", 0)), "", "scaling_ignored"),
    nifti("N20", "intercept NaN", patched(plain(), (INTER, "f", NAN)), "E_CORRUPT"),
    nifti("N21", "compressed file cut short", PACKED[: len(PACKED) // 2], "E_CORRUPT"),
    nifti("N21", "plain file cut short", plain()[:-100], "E_CORRUPT", file="x.nii"),
    nifti("N21", "wrong checksum", PACKED[:-8] + b"\1\2\3\4" + PACKED[-4:], "E_CORRUPT"),
    nifti("N21", "bytes after the end", PACKED + b"garbage", "E_CORRUPT"),
    nifti("N22", "plain data called .nii.gz", plain(), "", "name_mismatch"),
    nifti("N22", "compressed twice", gzip.compress(PACKED), "", "name_mismatch"),
    nifti("N23", "empty file", b"", "E_FORMAT"),
    nifti("N23", "Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid",
          "E_FORMAT"),
    nifti("N23", "HTML page", b"<!DOCTYPE html><html>404</html>", "E_FORMAT"),
    Row("N23", "link that leads nowhere", lambda f: (f / "x.nii.gz").symlink_to(f / "gone"),
        "E_FORMAT"),
    Row("N23", "link to itself", lambda f: (f / "x.nii.gz").symlink_to(f / "x.nii.gz"), "E_READ"),
    Row("N23", "named pipe", lambda f: os.mkfifo(f / "x.nii.gz"), "E_FORMAT"),
    Row("N23", "no such file", lambda f: None, "E_MISSING"),
    Row("N23", "empty folder", lambda f: (f / "s").mkdir(), "E_FORMAT", file="s"),
    nifti("N24", "header that announces more than the file can hold", gzip.compress(
        patched(plain(), *((DIM + 2 * i, "h", 1000) for i in (1, 2, 3)))), "E_CORRUPT"),
    nifti("N25", "nothing but air", np.full((24, 20, 16), -1000, np.int16)),
    nifti("N27", "metal above 3071 HU", np.where(HU > 60, 9000, HU).astype(np.int16), "",
          "metal_clamped"),
    nifti("N28", "label map", labels(), "E_NOT_HU"),
    Row("N30", "MetaImage, compressed", itk("x.mha"), file="x.mha"),
    Row("N30", "MetaImage cut short", itk("x.mha", keep=0.7), "E_CORRUPT", file="x.mha"),
    Row("N30", "NRRD", itk("x.nrrd"), file="x.nrrd"),
    Row("N30", "NRRD cut short", itk("x.nrrd", keep=0.7), "E_CORRUPT", file="x.nrrd"),
    nifti("N30", "half of a .hdr/.img pair", plain()[:344] + b"ni1\0" + plain()[348:],
          "E_FORMAT"),
    Row("N00", "folders of scans and their masks", tree, file="s"),
    nifti("N00", "name that is not valid UTF-8", PACKED, file="caf\udce9.nii.gz"),
    nifti("N00", "name of 240 bytes", PACKED, file=f"{'n' * 233}.nii.gz"),
    nifti("N00", "name with control characters", PACKED, file="=a\x1b[31m\u202eb.nii.gz"),
    dicom("D00", "DICOM CT series", save),
    dicom("D01", "slice missing inside", lambda f: save(f, numbers=[0, 1, 2, 4, 5, 6]),
          "E_MISSING_SLICES"),
    dicom("D02", "slice stored twice", beside(
        edit=lambda f: shutil.copy(sorted(f.iterdir())[3], f / "copy")), "", "duplicates_dropped"),
    dicom("D02", "each position twice with other pixels", two_phases, "E_DUPLICATE_SLICES"),
    dicom("D03", "two CT series of one study", study, "E_MULTI_SERIES"),
    dicom("D04", "localizer among the slices", lambda f: (save(f), save(
        f, put({0}, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), numbers=[0], name="loc")), "",
        "localizer_skipped"),
    dicom("D04", "other files among the slices", beside(
        edit=lambda f: (f / "notes.txt").write_text("words")), "", "files_skipped"),
    dicom("D04", "broken DICOMDIR beside the slices", beside(
        edit=lambda f: (f / "DICOMDIR").write_bytes(b"broken")), "", "files_skipped"),
    dicom("D05", "tilted gantry", lambda f: save(f, tilted), "", "affine_sheared"),
    dicom("D06", "uneven distances between slices", lambda f: save(f, uneven),
          "E_SPACING_IRREGULAR"),
    dicom("D07", "file names in another order", lambda f: save(
        f, numbers=list(reversed(range(SLICES))), name="z{}.dcm")),
    dicom("D08", "no rescale", edited(RescaleSlope=None, RescaleIntercept=None), "E_NOT_HU"),
    dicom("D08", "rescale slope 0", edited(RescaleSlope="0"), "E_NOT_HU"),
    dicom("D09", "padding value", edited(PixelPaddingValue=0)),
    dicom("D10", "run-length encoded", lambda f: save(f, lambda _, image: image.compress(
        "1.2.840.10008.1.2.5", generate_instance_uid=False))),
    dicom("D10", "enhanced multi-frame CT", lambda f: (
        f.mkdir(), save_one(f / "1.dcm", enhanced(series())))),
    dicom("D11", "pixels that are not square", save),
    dicom("D12", "image without a position", one_changed(ImagePositionPatient=None), "E_GEOMETRY"),
    dicom("D13", "file cut short", beside(edit=lambda f: cut(f, keep=700)), "E_CORRUPT"),
    dicom("D13", "file of 0 bytes", beside(edit=lambda f: cut(f, keep=0)), "E_CORRUPT"),
    dicom("D14", "fewer images than the headers announce", lambda f: save(
        f, put(ALL, ImagesInAcquisition=str(SLICES)), numbers=range(SLICES - 1)), "",
        "slices_announced"),
    Row("D15", "zip of a DICOM series", packed, file="x.zip"),
    Row("D15", "tar.gz of a NIfTI file", taken, file="x.tar.gz"),
    Row("D15", "zip whose names leave its folder", escaping, "E_ARCHIVE", file="x.zip"),
    dicom("N26", "magnetic resonance", edited(Modality="MR"), "E_MODALITY"),
]  # fmt: skip


def make_all(root: Path) -> dict[str, Path]:
    """Write every input below a folder and return what is to be named, by row."""
    paths = {}
    for row in ROWS:
        folder = root / row.name
        folder.mkdir(parents=True)
        row.make(folder)
        paths[row.name] = folder / row.file
    return paths


def outcome(path: Path) -> tuple[str, tuple[str, ...], str]:
    """Return code, words of notes and message of an input."""
    inputs = list_inputs([path]).inputs if os.path.lexists(path) else (Input(path),)
    words: tuple[str, ...] = ()
    for found in inputs:
        try:
            notes = read_scan(found).notes
        except CfsegError as error:
            return error.code, (), error.message
        words += tuple(note.partition(":")[0] for note in notes)
    return "", tuple(dict.fromkeys(words)), ""


def page() -> str:
    """Return docs/reference/inputs.md, from what happens."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = make_all(Path(folder))
        for row in sorted(ROWS, key=lambda row: (row.number[1:] == "00") * -1):
            code, words, message = outcome(paths[row.name])
            options = dict.fromkeys(re.findall(r"--[a-z][a-z-]+", message))
            what = "refused" if code else "read"
            if options:
                what += f"; {' or '.join(f'`{it}`' for it in options)} lets it in"
            noted = f"`{row.note}`" if row.note in words and row.note else ""
            rows.append(f"| {row.what} | {what} | {f'`{code}`' if code else noted} |")
    return PAGE.format(rows="\n".join(rows))


PAGE = """# What becomes of an input

Every input is read, or refused with a code and one sentence that says what is wrong and what to do;
it never stops the others. `cfseg doctor INPUT...` says beforehand what happens to each. The last
column holds the code of a refusal, or the note with which an input is read.

| input | what happens | code or note |
|---|---|---|
{rows}

This page is made by `python tests/io/corpus.py > docs/reference/inputs.md` from small files of each
kind; `tests/io/test_corpus.py` holds it to what happens.
"""

if __name__ == "__main__":
    sys.stdout.write(page())
