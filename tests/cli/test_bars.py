"""Bars of commands: nothing before a wrong call, none where there is no terminal, never 0/?."""

import ast
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cfseg.cli import app
from cfseg.cli.judging import judged

CLI = Path(__file__).parents[2] / "src" / "cfseg" / "cli"
OWN_BARS = {"bars.py", "train.py", "benchmark.py"}  # the second shows the time left
WRONG = (
    ("evaluate", "none", "none", "-o", "out"),
    ("compare", "none", "none", "none", "-o", "out"),
    ("findings", "none", "none", "-o", "out"),
    ("report", "none"),
    ("figure", "none", "none", "--masks", "a=none", "-o", "out"),
    ("pseudo-label", "none", "-o", "out"),
    ("dataset", "check", "none"),
)


@pytest.fixture
def maps(tmp_path):
    """Two references and their predictions, which are the same."""
    ids = np.zeros((8, 8, 8), dtype=np.uint8)
    ids[2:6, 2:6, 2:6] = 1
    for folder in ("ref", "pred"):
        (tmp_path / folder).mkdir()
        for case in "ab":
            image = nib.Nifti1Image(ids, np.diag([-2.0, -2.0, 3.0, 1.0]))
            nib.save(image, tmp_path / folder / f"{case}.nii.gz")
    return tmp_path


@pytest.mark.parametrize("words", WRONG, ids=lambda words: words[0])
def test_a_wrong_call_draws_nothing(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code != 0
    assert not set(result.output) & set("━╸╺")


def test_there_is_one_bar():
    for path in CLI.glob("*.py"):
        if path.name not in OWN_BARS:
            names = {
                node.module
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom)
            }
            assert "rich.progress" not in names, path.name


def test_judging_shows_the_total_with_its_bar(maps, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    judged(maps / "pred", maps / "ref", "flare23", "1", 1, None, quiet=False)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "/?" not in shown


def test_judging_shows_no_bar_in_a_log(maps):
    assert not Console(stderr=True).is_terminal
    words = ["evaluate", str(maps / "pred"), str(maps / "ref"), "-o", str(maps / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert result.stderr == "2 scored\n"
