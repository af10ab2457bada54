import errno
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cfseg.cli import main
from cfseg.cli.root import app
from cfseg.parallel import SPINS, without_spins
from tiny_ct import ct

ROOT = Path(__file__).parents[2]
VERBS = (
    "predict", "evaluate", "compare", "benchmark", "findings", "report", "figure", "demo",
    "phantom", "train", "bundle", "ablate", "dataset", "pseudo-label", "doctor",
)  # fmt: skip


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_import_and_help_load_neither_torch_nor_nnunet() -> None:
    loaded = run(
        "import sys, cfseg, cfseg.cli\n"
        "heavy = 'torch nnunetv2 numpy pydantic nibabel scipy matplotlib jinja2'.split()\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert loaded.strip() == "[]"


def all_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command and of each group of them."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from all_commands(below, (*words, name))


@pytest.mark.parametrize("words", list(all_commands(get_command(app))), ids=" ".join)
def test_each_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert f"Example: cfseg {' '.join(words)}" in " ".join(result.output.split())


def test_the_verbs_are_these() -> None:
    assert {words[0] for words in all_commands(get_command(app)) if words} == set(VERBS)


def test_help_keeps_what_stands_in_square_brackets() -> None:
    result = CliRunner().invoke(app, ["train", "--help"])
    assert "{case: [label ids]}" in " ".join(result.output.split())
    assert "[default: all]" in " ".join(result.output.split())


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.startswith("cfseg 0.")


@pytest.fixture
def sigterm() -> Iterator[None]:
    """Put back what a process does on SIGTERM, which the command line decides for its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_an_error_is_one_line_and_its_exit_code(tmp_path: Path, cfseg) -> None:
    bad = tmp_path / "two\nlines"
    ended = cfseg("predict", tmp_path / "none.nii.gz", "-o", tmp_path / "out", "-m", bad)
    assert ended.code == 5
    assert ended.err.startswith("cfseg: E_")
    assert ended.err.count("\n") == 1


def raising(error: BaseException) -> Any:
    def run(*_: object, **__: object) -> None:
        raise error

    return run


def test_a_bug_is_one_line_that_says_what_to_do(cfseg, monkeypatch) -> None:
    monkeypatch.setattr("cfseg.reports.report.write_report", raising(ZeroDivisionError("by \x1b")))
    ended = cfseg("report", "masks")
    assert ended.code == 1
    assert ended.err == (
        r"cfseg: E_INTERNAL: ZeroDivisionError: by \x1b; this is a bug: run it again with --debug "
        "(cfseg --debug COMMAND ...) and report what it prints\n"
    )


def test_debug_prints_the_traceback_too(cfseg, monkeypatch) -> None:
    monkeypatch.setattr("cfseg.reports.report.write_report", raising(ZeroDivisionError("boom")))
    ended = cfseg("--debug", "report", "masks")
    assert ended.code == 1
    assert "Traceback (most recent call last)" in ended.err
    assert ended.err.splitlines()[-1].startswith("cfseg: E_INTERNAL: ZeroDivisionError: boom")


def test_an_error_of_the_system_names_the_file(cfseg, monkeypatch) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/data/ct")
    monkeypatch.setattr("cfseg.reports.report.write_report", raising(error))
    ended = cfseg("report", "masks")
    assert ended.code == 6
    assert ended.err.startswith("cfseg: E_DISK: /data/ct: Permission denied; choose")


@pytest.mark.parametrize("words", [("bundle", "show", "--json"), ("--help",)], ids=" ".join)
def test_a_reader_that_leaves_ends_it_quietly(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; sys.argv[0] = 'cfseg'; from cfseg.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, *words], check=False, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_the_terminal_cannot_write_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cfseg, encoding: str
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert (
        cfseg(
            "report", tmp_path / os.fsdecode("Müller 李 \udcff".encode("utf-8", "surrogateescape"))
        ).code
        == 2
    )
    terminal.flush()
    said = terminal.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert r"\udcff; give one that cfseg predict wrote" in said
    assert ("Müller" in said) == (encoding != "ascii")
    assert ("李" in said) == (encoding == "utf-8")


def test_a_name_that_is_no_text_goes_through_a_batch(tmp_path: Path, tiny_bundle, cfseg) -> None:
    name = os.fsdecode(b"M\xfcller")
    scan = ct(tmp_path / name / "x_0000.nii.gz").rename(tmp_path / name / f"{name}_0000.nii.gz")
    (tmp_path / name / f"bad {name}.nii.gz").touch()
    out = tmp_path / f"out {name}"
    model = ("-m", tiny_bundle, "--device", "cpu", "--threads", 1)
    ended = cfseg("predict", scan.parent, "-o", out, *model, "--statistics")
    assert ended.code == 3
    assert r"bad M\udcfcller.nii.gz is not a NIfTI file" in ended.err
    assert "M\\udcfcller" in (out / "summary.csv").read_text(encoding="utf-8")
    ended = cfseg("report", out)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, str(SPINS)),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_threads_of_torch_spin_briefly_unless_the_user_says_how(
    own, expected, monkeypatch, sigterm
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # put back at the end, whatever main() does
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["cfseg", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == expected
    assert without_spins().get("GOMP_SPINCOUNT") == own.get("GOMP_SPINCOUNT")


def test_every_command_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"^cfseg ([a-z-]+)", text, flags=re.MULTILINE))
    assert used <= set(VERBS)
    assert {"predict", "train", "evaluate", "phantom", "bundle"} <= used
    targets = set(re.findall(r"^make ([a-z]+)", text, flags=re.MULTILINE))
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in rules for target in targets)


def test_links_of_the_docs_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
