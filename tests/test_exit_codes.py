"""Exit codes: one rule for all commands, and each pair that can occur together."""

import errno
from dataclasses import replace
from itertools import product

import pytest

from cfseg.batch import predict_many
from cfseg.errors import (
    CfsegError,
    InputError,
    ModelError,
    ResourceError,
    UsageError,
    as_cfseg_error,
    exit_code,
)
from cfseg.segmenter import Segmenter
from refusing_disk import refusing
from tiny_ct import ct

CASES = {
    "done": None,
    "refused": InputError("bad", code="E_CORRUPT"),
    "bug": RuntimeError("boom"),
    "memory": MemoryError(),
    "disk": ResourceError("full", code="E_DISK"),
    "unreadable": OSError(errno.EIO, "Input/output error", "ct.nii.gz"),
}
"""What may become of a case, by the error that it ends with."""
CODES = {
    "refused": "E_CORRUPT", "bug": "E_INTERNAL", "memory": "E_OOM", "disk": "E_DISK",
    "unreadable": "E_DISK",
}  # fmt: skip
MACHINE = {"memory", "disk", "unreadable"}


@pytest.fixture(scope="module")
def result(tiny_bundle, tmp_path_factory):
    """A loaded bundle and a result of it."""
    segmenter = Segmenter(tiny_bundle, device="cpu", threads=1)
    return segmenter, segmenter.segment(ct(tmp_path_factory.mktemp("one") / "x.nii.gz"))


def ended(result, folder, kinds, monkeypatch):
    """Run a batch whose cases end as they are called."""
    segmenter, made = result
    scans = []
    for number, kind in enumerate(kinds):
        scans.append(folder / f"{number}_{kind}.nii.gz")
        scans[-1].touch()

    def segment(scan, *_, **__):
        error = CASES[scan.name.partition("_")[2].removesuffix(".nii.gz")]
        if error is not None:
            raise error
        return replace(made)

    monkeypatch.setattr(segmenter, "segment", segment)
    monkeypatch.setattr(segmenter, "read_ahead", lambda *_: None)
    return predict_many(scans, folder / "out", segmenter)


@pytest.mark.parametrize("kinds", list(product(CASES, CASES)), ids="+".join)
def test_each_pair_of_cases(result, tmp_path, monkeypatch, kinds):
    summary = ended(result, tmp_path, kinds, monkeypatch)
    expected = 6 if MACHINE & set(kinds) else 4
    if "done" in kinds:
        expected = 0 if set(kinds) == {"done"} else 3
    assert summary.exit_code == expected
    for kind, case in zip(kinds, summary.cases, strict=True):
        assert case.code == CODES.get(kind, "")
        assert case.state == {"done": "done", "refused": "refused"}.get(kind, "failed")


@pytest.mark.parametrize(("kinds", "code"), [(("done",), 6), (("done", "done"), 3)])
def test_a_disk_that_is_full_for_one_label_map(result, tmp_path, monkeypatch, kinds, code):
    def is_first(path):
        return path.name.endswith("0_done.nii.gz") and path.parent.name == "out"

    with refusing(is_first, errno.ENOSPC):
        summary = ended(result, tmp_path, kinds, monkeypatch)
    assert summary.exit_code == code
    assert summary.cases[0].code == "E_DISK"
    assert "the disk is full" in summary.cases[0].message


ENDINGS = {
    130: KeyboardInterrupt(), 143: SystemExit(143), 1: RuntimeError("boom"),
    2: UsageError("wrong"), 5: ModelError("damaged"), 6: ResourceError("full", code="E_DISK"),
}  # fmt: skip


@pytest.mark.parametrize("kinds", [("done", "done"), ("done", "refused"), ("bug",), ("disk",)])
@pytest.mark.parametrize("code", ENDINGS)
def test_what_ends_a_run_counts_more_than_its_cases(
    result, tmp_path, monkeypatch, cfseg, code, kinds
):
    def run(**_):
        def on_write(*_):
            raise ENDINGS[code]

        monkeypatch.setattr("cfseg.batch.run.Summary.write", on_write)
        return ended(result, tmp_path, kinds, monkeypatch).exit_code

    monkeypatch.setattr("cfseg.cli.app", run)
    assert cfseg("predict").code == code


@pytest.mark.parametrize("stop", [130, 143])
@pytest.mark.parametrize("then", [1, 2, 5, 6])
def test_a_stop_counts_more_than_what_goes_wrong_while_leaving(monkeypatch, cfseg, stop, then):
    def run(**_):
        try:
            raise ENDINGS[stop]
        finally:
            raise ENDINGS[then]

    monkeypatch.setattr("cfseg.cli.app", run)
    told = cfseg("predict")
    assert told.code == stop
    assert "cfseg: stopped" in told.err


def test_any_error_becomes_one_of_ours():
    known = InputError("bad", code="E_CORRUPT")
    assert as_cfseg_error(known) is known
    full = as_cfseg_error(OSError(errno.ENOSPC, "No space left on device", "a.csv"))
    assert (full.code, full.exit_code) == ("E_DISK", 6)
    assert full.message.startswith("a.csv: the disk is full")
    gone = as_cfseg_error(FileNotFoundError(errno.ENOENT, "No such file", "a.csv"))
    assert (gone.code, "a.csv" in gone.message) == (CfsegError.code, True)
    assert as_cfseg_error(MemoryError()).code == "E_OOM"


def test_inputs_that_are_not_there_are_a_wrong_call_and_no_scans_are_4(result, tmp_path):
    segmenter, _ = result
    with pytest.raises(UsageError, match="there is no"):
        predict_many([tmp_path / "none.nii.gz"], tmp_path / "out", segmenter)
    (tmp_path / "empty").mkdir()
    assert predict_many([tmp_path / "empty"], tmp_path / "out", segmenter).exit_code == 4


def test_codes_may_be_empty():
    assert [exit_code(0, []), exit_code(0, [""]), exit_code(1, [""]), exit_code(1, [])] == [
        4,
        4,
        3,
        0,
    ]
