from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfseg.cli.root import app


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
    assert (tmp_path / "montage.png").is_file()
    assert (tmp_path / "prediction" / "statistics.csv").is_file()
