"""S10: a folder may be named after a patient; nothing that is kept of a case holds it."""

import gzip
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cfseg.batch import predict_many
from cfseg.errors import CfsegError
from cfseg.evaluation.flare import evaluate
from cfseg.io import Input
from cfseg.labelling.cohort import label_cohort
from cfseg.segmenter import Segmenter
from tiny_ct import ct

TOKENS = ("DOE", "JOHN", "19700101")


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, device="cpu", threads=1)


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "DOE^JOHN 19700101" / "study of JOHN"
    folder.mkdir(parents=True)
    return folder


def damaged_scans(folder: Path) -> list[Path]:
    """NIfTI files, each of which is refused in its own way."""
    whole = ct(folder / "whole.nii.gz").read_bytes()
    whole_path = folder / "whole.nii.gz"
    image = nib.load(whole_path)
    hu = np.asarray(image.dataobj)
    contents = {
        "cut.nii.gz": whole[: len(whole) // 2],
        "empty.nii.gz": b"",
        "text.nii.gz": b"<html>no scan</html>",
        "pointer.nii.gz": b"version https://git-lfs.github.com/spec/v1\n",
        "short.nii.gz": gzip.compress(gzip.decompress(whole)[:-100]),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    arrays = {
        "nan.nii.gz": np.where(hu > 50, np.nan, hu.astype(np.float32)),
        "shifted.nii.gz": (hu.astype(np.int32) + 1024).astype(np.int16),
        "labels.nii.gz": (hu > 0).astype(np.uint8),
        "four.nii.gz": np.stack([hu, hu], axis=-1),
        "flat.nii.gz": hu[:, :, :1],
    }
    for name, values in arrays.items():
        nib.save(nib.Nifti1Image(values, image.affine), folder / name)
    nowhere = nib.Nifti1Image(hu, image.affine)
    nowhere.set_sform(None, code=0)
    nowhere.set_qform(None, code=0)
    nib.save(nowhere, folder / "nowhere.nii.gz")
    nib.save(nib.Nifti1Image(hu, np.diag([0.001, 0.001, 0.001, 1.0])), folder / "metres.nii.gz")
    (folder / "link.nii.gz").symlink_to(folder / "gone.nii.gz")
    whole_path.unlink()
    return sorted(folder.glob("*.nii.gz"))


def damaged_series(folder: Path) -> list[Path]:
    """DICOM folders, each of which is refused in its own way."""
    pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
    try:
        from small_series import put, save, second_series
    finally:
        sys.path.pop(0)
    one = {3}
    made = [
        save(folder / "gap", numbers=[0, 1, 2, 4, 5]),
        save(folder / "place", put(one, ImagePositionPatient=None)),
        save(folder / "pixels", put(one, PixelData=None)),
        save(folder / "rescale", put(set(range(12)), RescaleIntercept=None, RescaleSlope=None)),
        save(folder / "mr", put(set(range(12)), Modality="MR")),
        save(folder / "two"),
        save(folder / "cut"),
    ]
    second_series(folder / "two")
    first = sorted((folder / "cut").iterdir())[0]
    first.write_bytes(first.read_bytes()[:-200])
    return made


def kept(out: Path) -> str:
    """Everything written to a folder, but for what only its owner can read."""
    files = [p for p in out.rglob("*") if p.is_file() and ".inputs" not in p.parts]
    names = "\n".join(str(path.relative_to(out)) for path in files)
    return names + "".join(path.read_bytes().decode("latin-1") for path in files)


def no_folder_in(out: Path) -> bool:
    text = kept(out)
    return not any(token in text for token in TOKENS)


@pytest.mark.parametrize("make", [damaged_scans, damaged_series])
def test_a_refused_scan_leaves_no_folder_behind(segmenter, patient, tmp_path, make):
    scans = make(patient)
    out = tmp_path / "out"
    summary = predict_many(scans, out, segmenter)
    assert {case.state for case in summary.cases} <= {"refused", "failed", "empty"}
    told = [case for case in summary.cases if not case.ok]
    assert len(told) >= len(scans) - 1
    assert all(case.message and case.code.startswith("E_") for case in told)
    assert no_folder_in(out)


def test_neither_does_one_that_is_not_there_or_done(segmenter, patient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scan = ct(patient / "x.nii.gz").relative_to(tmp_path)
    summary = predict_many([scan, scan.with_name("y.nii.gz")], tmp_path / "out", segmenter)
    assert [case.ok for case in summary.cases] == [True, False]
    assert "y.nii.gz" in summary.cases[1].message
    assert no_folder_in(tmp_path / "out")


@pytest.mark.parametrize("error", [RuntimeError, OSError, CfsegError])
def test_neither_does_an_error_that_names_files(segmenter, patient, tmp_path, monkeypatch, error):
    scan = ct(patient / "x.nii.gz")

    def fails(source: Input, *_: object, **__: object) -> None:
        path = source.path
        raise error(f"{path} and '{path.parent / 'other file.nii'}' are odd")

    monkeypatch.setattr(segmenter, "segment", fails)
    (case,) = predict_many([scan], tmp_path / "out", segmenter).cases
    assert "x.nii.gz and 'other file.nii' are odd" in case.message
    assert no_folder_in(tmp_path / "out")


def test_neither_does_a_pseudo_label(tiny_bundle, patient, tmp_path):
    images = patient / "imagesTr"
    images.mkdir()
    ct(images / "a_0000.nii.gz")
    (images / "b_0000.nii.gz").write_bytes(b"damaged")
    (patient / "manifest.json").write_text(json.dumps({"a": [], "b": []}))
    out = tmp_path / "out"
    summary = label_cohort(patient, tiny_bundle, out, device="cpu", threads=1, step=1)
    assert [case.state for case in summary.cases] == ["done", "refused"]
    assert "b_0000.nii.gz" in summary.cases[1].record["message"]
    assert no_folder_in(out)


def test_neither_do_scores(patient, tmp_path):
    ids = np.zeros((8, 8, 8), dtype=np.uint8)
    ids[2:6, 2:6, 2:6] = 1
    for folder in ("pred", "ref"):
        (patient / folder).mkdir()
        for case in "abc":
            image = nib.Nifti1Image(ids, np.diag([2.0, 2.0, 2.0, 1.0]))
            nib.save(image, patient / folder / f"{case}.nii.gz")
    (patient / "pred" / "b.nii.gz").write_bytes(b"damaged")
    (patient / "ref" / "c.nii.gz").write_bytes(b"damaged")
    summary = evaluate(patient / "pred", patient / "ref", tmp_path / "out", labels=[1])
    assert [case.state for case in summary.cases] == ["scored", "refused", "failed"]
    assert no_folder_in(tmp_path / "out")
