"""README's commands, run as they stand there in a folder that holds what they name."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg.cli.root import app
from cfseg.geometry import Geometry
from cfseg.phantoms import cohort
from cfseg.phantoms.phantom import Phantom, PhantomSpec
from cfseg.volume import LabelMap, Volume

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "src" / "cfseg" / "models" / "demo" / "bundle.json"
SHORTER = {
    "--cases 96": "--cases 6 --jobs 1", "--test 10": "--test 1", "--recipe demo": "--recipe tiny",
}  # fmt: skip
"""What would take an hour, and what stands in for it here."""
NEEDS_A_DOWNLOAD = ("import-v1", "-m authors")
"""Tested in tests/bundle with files of the same layout."""

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [
        line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith("cfseg")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, phantom) -> Path:
    """A CT of a few organs as a file, in a folder, as a DICOM series, and its reference."""
    here = tmp_path_factory.mktemp("readme")
    hu, ids = phantom.volume.hu[40:72, 20:84, 28:92], phantom.label_map.ids[40:72, 20:84, 28:92]
    (here / "scans").mkdir()
    (here / "references").mkdir()
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    image = nib.Nifti1Image(hu.transpose(2, 1, 0), affine)
    nib.save(image, here / "ct.nii.gz")
    nib.save(image, here / "scans" / "first_0000.nii.gz")
    nib.save(nib.Nifti1Image(ids.transpose(2, 1, 0), affine), here / "references" / "ct.nii.gz")
    write_series(here / "dicom_series", hu)
    return here


def write_series(folder: Path, hu: np.ndarray) -> None:
    folder.mkdir()
    series, study = generate_uid(), generate_uid()
    for number, plane in enumerate(hu):
        image = FileDataset(None, {}, preamble=bytes(128))
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
        image.Modality, image.SeriesInstanceUID, image.StudyInstanceUID = "CT", series, study
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.Rows, image.Columns, image.InstanceNumber = *plane.shape, number + 1
        image.PixelSpacing, image.SliceThickness = [3, 3], "3"
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [0, 0, 3 * number]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.PixelRepresentation = 1
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = "1", "0", "HU"
        image.PixelData = plane.astype("<i2").tobytes()
        image.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)


def test_the_readme_shows_the_main_verbs():
    verbs = {shlex.split(line)[1] for line in commands()}
    assert {"predict", "phantom", "train", "evaluate", "bundle"} <= verbs
    assert any(part in line for line in commands() for part in SHORTER)


@pytest.fixture
def coarse_phantoms(phantom, monkeypatch) -> None:
    """Let all phantoms be the one at half its size, each with noise of its own.

    That real ones are made is tested in tests/phantoms, and in tests/cli/test_demo.py.
    """

    def coarse(seed: int, index: int, spec: PhantomSpec) -> Phantom:
        hu, ids = phantom.volume.hu[::2, ::2, ::2], phantom.label_map.ids[::2, ::2, ::2].copy()
        noise = np.random.default_rng([seed, index]).normal(0, 10, hu.shape)
        if spec.tumor is False:
            ids[ids == 14] = 0
        grid = Geometry.from_spacing(hu.shape, (5.0, 5.0, 5.0))
        return Phantom(Volume((hu + noise).astype(np.int16), grid), LabelMap(ids, grid))

    monkeypatch.setattr(cohort, "generate", coarse)


@pytest.mark.skipif(not BUNDLE.exists(), reason="the bundled model is not in this checkout")
def test_every_command_of_the_readme_runs(folder, monkeypatch, coarse_phantoms):
    pytest.importorskip("blosc2", reason="training needs cfseg[train]")
    monkeypatch.chdir(folder)
    for line in commands():
        if any(part in line for part in NEEDS_A_DOWNLOAD):
            continue
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
    assert {p.name for p in (folder / "masks").glob("*.nii.gz")} == {
        "ct.nii.gz", "first.nii.gz", "dicom_series.nii.gz",
    }  # fmt: skip
    assert (folder / "work" / "bundle" / "bundle.json").exists()
    assert (folder / "scores" / "scores.txt").exists()


@pytest.mark.skipif(not BUNDLE.exists(), reason="the bundled model is not in this checkout")
def test_the_python_of_the_readme_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102
    assert "liver" in capsys.readouterr().out
    assert nib.load(folder / "labels.nii.gz").shape == nib.load(folder / "ct.nii.gz").shape
