"""Every kind of input, in one run: its code, no mask where it is refused, neighbors untouched."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
import corpus
from corpus import ROWS, Row

from cfseg.batch import Summary, predict_many
from cfseg.doctor import examine
from cfseg.io import file_digest
from cfseg.segmenter import Segmenter

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "inputs.md"


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    return corpus.make_all(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def run(paths, tmp_path_factory, tiny_bundle) -> tuple[Path, Summary, dict[str, str]]:
    """One run over all of them, a good scan first and last; results, and digests of inputs."""
    out = tmp_path_factory.mktemp("results")
    good = tmp_path_factory.mktemp("good")
    for name in ("first", "last"):
        (good / f"{name}.nii.gz").write_bytes(corpus.PACKED)
    before = digests(paths)
    inputs = [good / "first.nii.gz", *paths.values(), good / "last.nii.gz"]
    summary = predict_many(inputs, out, Segmenter(tiny_bundle, "cpu", 1))
    assert digests(paths) == before
    return out, summary, {case.case: case.code for case in summary.cases}


def digests(paths: dict[str, Path]) -> dict[Path, str]:
    roots = {path.parent for path in paths.values()}
    files = [it for root in roots for it in root.rglob("*") if it.is_file()]
    return {path: file_digest(path) for path in files}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_becomes_of_it(row: Row, paths, run):
    out, summary, _ = run
    root = paths[row.name].parent
    cases = [
        case for case in summary.cases
        if Path(place(out, case.case)).is_relative_to(root)
    ]  # fmt: skip
    assert cases
    assert {case.code for case in cases} == {row.code}
    for case in cases:
        assert case.state in ("refused",) if row.code else ("done", "empty")
        assert (out / f"{case.case}.nii.gz").exists() != bool(row.code)
        words = {note.partition(":")[0] for note in case.record["notes"]}
        assert row.note in words | {""}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_doctor_says_of_it(row: Row, paths, tiny_bundle):
    if row.what == "no such file":
        return  # a wrong call when alone
    checkup = examine([paths[row.name]], tiny_bundle)
    assert checkup.exit_code == (4 if row.code else 0)
    assert {case.code for case in checkup.cases} == {row.code}


def place(out: Path, case: str) -> str:
    import json

    return json.loads((out / ".inputs" / case).read_text())["path"]


def test_every_input_is_counted_and_the_good_ones_are_as_alone(run, paths):
    out, summary, _ = run
    counts = summary.as_dict()
    assert counts["inputs"] == sum(counts[it] for it in ("done", "empty", "refused", "failed"))
    assert counts["failed"] == 0
    assert summary.exit_code == 3
    assert not list(out.rglob(".tmp-*"))
    first, last = (np.asarray(nib.load(out / f"{it}.nii.gz").dataobj) for it in ("first", "last"))
    np.testing.assert_array_equal(first, last)


def test_the_page_says_what_happens():
    assert PAGE.read_text(encoding="utf-8") == corpus.page()
