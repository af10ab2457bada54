import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfseg.cli import main
from cfseg.cli.root import app
from cfseg.parallel import SPINS, without_spins

ROOT = Path(__file__).parents[2]
VERBS = (
    "predict", "evaluate", "compare", "benchmark", "findings", "report", "figure", "demo",
    "phantom", "train", "bundle", "ablate", "dataset", "pseudo-label",
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


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str) -> None:
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    if verb != "bundle":
        assert "Example: cfseg" in result.output


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


def test_an_error_is_one_line_and_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, sigterm: None
) -> None:
    words = ["predict", tmp_path / "none.nii.gz", "-o", tmp_path / "out", "-m", tmp_path]
    monkeypatch.setattr(sys, "argv", ["cfseg", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 5
    said = capsys.readouterr().err
    assert said.startswith("cfseg: E_")
    assert said.count("\n") == 1


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
