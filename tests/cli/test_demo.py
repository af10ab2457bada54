from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfseg.cli.demo import missed
from cfseg.cli.root import app
from cfseg.evaluation.scores import CaseScores


def test_what_was_missed_is_said_in_words_and_only_that():
    dsc = {1: 0.97, 9: 0.04, 13: 0.0, 14: 0.0}
    case = CaseScores("a", dsc, dsc, reference_ml={1: 1500.0, 9: 30.25, 13: 0.0, 14: 17.3})
    lines = missed(case, is_bundled=True)
    assert lines[0] == (
        "Missed: the reference has 30.2 ml of gallbladder, and the prediction hardly matches any "
        "of it (DSC 0.04)."
    )
    assert lines[1].startswith("Missed: the reference has 17.3 ml of tumor")
    assert lines[1].endswith("misses most of them; docs/results.md has the figures.")
    assert len(lines) == 2
    # Of another model we know nothing.
    assert all(line.endswith(").") for line in missed(case, is_bundled=False))
    assert missed(replace(case, dsc=dict.fromkeys(dsc, 0.5)), is_bundled=True) == []


@pytest.mark.slow
def test_the_demo_ends_with_the_path_of_its_report(tiny_bundle, tmp_path):
    call = ["demo", "-o", str(tmp_path), "-m", str(tiny_bundle), "--threads", "1"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    last = result.output.strip().splitlines()[-1]
    index = Path(last.removeprefix("report:").strip())
    assert index == tmp_path / "report" / "index.html"
    (page,) = (index.parent / "cases").glob("*.html")
    text = page.read_text(encoding="utf-8")
    assert "Random weights. Not for clinical use." in text
    assert 'id="data-reference"' in text
    # Random weights find none of it, and are not the bundled model.
    assert "Missed: the reference has" in result.output
    assert "bundled" not in result.output
    assert (tmp_path / "montage.png").is_file()
    assert (tmp_path / "prediction" / "statistics.csv").is_file()
