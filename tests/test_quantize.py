import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cfseg import quantize as module
from cfseg.bundle.bundle import read_manifest
from cfseg.bundle.manifest import Int8Check, digest
from cfseg.errors import ModelError, UsageError
from cfseg.phantoms.cohort import write_cohort
from cfseg.quantize import quantize
from cfseg.segmenter import Segmenter
from tiny_ct import ct

needs_nncf = pytest.mark.skipif(
    find_spec("nncf") is None or find_spec("openvino") is None,
    reason="NNCF is not installed: pip install cfseg[int8]",
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohorts") / "one"
    write_cohort(folder, cases=1, seed=990_004)
    return folder


@pytest.fixture(scope="module")
def generous(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, content with any loss: random weights have nothing to lose."""
    folder = tmp_path_factory.mktemp("bundles") / "generous"
    return with_cascade(tiny_bundle, folder, int8_dsc_loss=1.0)


def with_cascade(bundle: Path, folder: Path, **values: object) -> Path:
    folder.mkdir()
    for file in bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["cascade"] |= values
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def made(generous: Path, cohort: Path) -> Path:
    pytest.importorskip("nncf")
    lines: list[str] = []
    found = quantize(generous, cohort, cohort, generous.parent / "int8", lines.append, 1)
    assert found.check.cases == 1
    assert any("organ: quantized with" in line for line in lines)
    return found.bundle


@needs_nncf
@pytest.mark.slow
def test_int8_is_close_to_fp32(made: Path, generous: Path, tmp_path: Path) -> None:
    scan = ct(tmp_path / "x.nii.gz")
    exact = Segmenter(generous, "cpu", 1, backend="openvino").segment(scan).label_map.ids
    small = Segmenter(made, "cpu", 1, precision="int8").segment(scan).label_map.ids
    assert np.unique(exact).size > 2
    assert (exact == small).mean() > 0.8  # random weights leave no margin
    assert not np.array_equal(exact, small)
    same = Segmenter(made, "cpu", 1, backend="openvino").segment(scan).label_map.ids
    assert np.array_equal(exact, same)


@needs_nncf
@pytest.mark.slow
def test_the_bundle_says_what_int8_is_worth(made: Path, generous: Path) -> None:
    manifest = read_manifest(made)
    assert manifest.int8_check is not None
    assert manifest.int8_check.dsc_loss == 1.0
    assert all(entry.int8 is not None for entry in manifest.stages)
    assert digest(made) != digest(generous)


@needs_nncf
@pytest.mark.slow
@pytest.mark.parametrize("file", ["organ.int8.xml", "coarse.int8.bin"])
def test_a_damaged_graph_is_refused(made: Path, tmp_path: Path, file: str) -> None:
    copy = with_cascade(made, tmp_path / "copy")
    contents = bytearray((copy / file).read_bytes())
    contents[-5] ^= 1
    (copy / file).write_bytes(contents)
    with pytest.raises(ModelError, match="damaged"):
        Segmenter(copy, "cpu", 1, precision="int8")
    Segmenter(copy, "cpu", 1, backend="torch")


@needs_nncf
@pytest.mark.slow
def test_too_great_a_loss_writes_nothing(
    tiny_bundle: Path, cohort: Path, tmp_path: Path, monkeypatch
) -> None:
    found = Int8Check(cases=1, dsc_fp32=0.9, dsc_int8=0.894, dsc_loss=0.005)
    monkeypatch.setattr(module, "_check", lambda *_: found)
    with pytest.raises(ModelError, match="int8_dsc_loss"):
        quantize(tiny_bundle, cohort, cohort, tmp_path / "out", lambda _: None, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_without_int8_says_how_to_get_it(tiny_bundle: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ModelError, match="cfseg bundle quantize"):
        Segmenter(tiny_bundle, "cpu", 1, precision="int8")


@pytest.mark.parametrize(
    ("precision", "says"), [("int8", r"cfseg\[openvino\]"), ("int4", "fp32 or int8")]
)
def test_precisions_that_cannot_be_had(tiny_bundle: Path, precision: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Segmenter(tiny_bundle, "cpu", 1, backend="torch", precision=precision)
