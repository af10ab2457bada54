"""Names and notices that would be obeyed, through every command: they are shown, as text."""

import ast
import csv
import io
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.progress import TextColumn
from typer.main import get_command

from cfseg.cli import app
from cfseg.cli.bars import Bars
from cfseg.cli.console import Console, Table
from tiny_ct import ct

SOURCES = Path(__file__).parents[2] / "src" / "cfseg"
EVIL = '=cmd()\x1b[31m\u202e[red]"><img src=x onerror=alert(1)>'
DONE = "=ok\x1b[31m\u202e[b]"
PRINTABLE = EVIL.replace("\x1b[31m\u202e", "")
"""A bundle's name is refused with what cannot be seen; its notice is not."""
PAGES = {".html", ".md", ".txt", ".log"}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bundle):
    """A folder with scans, label maps, a cohort and a bundle, all of evil names."""
    place = tmp_path_factory.mktemp("evil") / EVIL
    scan = ct(place / "scans" / f"{DONE}_0000.nii.gz")
    (place / "scans" / f"{EVIL}.nii.gz").write_bytes(b"")
    ids = np.zeros(nib.load(scan).shape, dtype=np.uint8)
    ids[5:20, 5:20, 5:20] = 1
    for name in ("ref", "cohort/labelsTr"):
        (place / name).mkdir(parents=True)
        nib.save(nib.Nifti1Image(ids, nib.load(scan).affine), place / name / f"{DONE}.nii.gz")
        (place / name / f"{EVIL}.nii.gz").write_bytes(b"")
    for name in ("cohort", "unlabelled"):
        shutil.copytree(place / "scans", place / name / "imagesTr")
    (place / "unlabelled" / "manifest.json").write_text(json.dumps({DONE: [], EVIL: []}))
    bundle = shutil.copytree(tiny_bundle, place / "bundle")
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"name": PRINTABLE, "notice": EVIL}))
    return place


def calls(place):
    """Return the words of calls of every command; those of one line only need what is missing."""
    scans, ref, cohort, bundle = (place / n for n in ("scans", "ref", "cohort", "bundle"))
    out, none = place / "out", place / "none"
    (place / "file").touch()
    classes = place / "classes.json"
    classes.write_text(json.dumps({"1": "liver"}))
    cpu = ("--device", "cpu", "--threads", 1)
    return {
        "predict": (scans, "-o", out, "-m", bundle, *cpu, "--statistics"),
        "doctor": (scans, "-m", bundle),
        "report": (out, "--title", EVIL, "--to", place / "pages"),
        "evaluate": (ref, ref, "-o", place / "scores", "--jobs", 1),
        "compare": (ref, ref, ref, "-o", place / "compared", "--jobs", 1),
        "findings": (scans, ref, "-o", place / "findings"),
        "figure": (scans, ref, "--masks", f"m{EVIL[5:]}={ref}", "-o", place / "figures"),
        "pseudo-label": (
            place / "unlabelled",
            "-m",
            bundle,
            "-o",
            place / "labelled",
            *cpu,
            "--step",
            1,
        ),
        "dataset check": (cohort, "-o", place / "checked"),
        "dataset groups": (cohort, "-o", place / "groups"),
        "dataset atlas": (ref, "--classes", classes, "--source", EVIL, "-o", place / "atlases"),
        "bundle show": (bundle,),
        "bundle create": ("--coarse", none, "-o", place / "made"),
        "bundle import-v1": (none, "-o", place / "made"),
        "bundle export": (none, "-o", place / "made"),
        "bundle quantize": (none, "--calibration", none, "--check", none, "-o", place / "made"),
        "benchmark": (none, "-o", place / "measured"),
        "train": (none, "-o", place / "work", "--dry-run"),
        "ablate": (none, "--cases", none),
        "demo": ("-m", none, "-o", place / "file" / "demo"),
        "phantom": (place / "file" / "cohort",),
    }


def commands(command=None, before=""):
    """Return the names of all commands that do something."""
    command = command or get_command(app)
    below = getattr(command, "commands", None)
    if below is None:
        return {before.strip()}
    return set().union(*(commands(it, f"{before} {name}") for name, it in below.items()))


def test_no_command_is_forgotten(place):
    assert set(calls(place)) == commands()


def test_foreign_text_is_shown_wherever_a_command_says_it(place, cfseg):
    for verb, words in calls(place).items():
        ended = cfseg(*verb.split(), *words)
        assert ended.code != 1, (verb, ended.err)
        said = ended.out + ended.err
        assert r"\x1b[31m\u202e" in said.replace("\n", "").replace("│", ""), (verb, said)
        assert not set(said) & {"\x1b", "\u202e"}, verb
    written = [p for p in place.rglob("*") if p.is_file()]
    tables = [p for p in written if p.suffix == ".csv"]
    pages = [p for p in written if p.suffix in PAGES]
    assert len(tables) > 8, tables
    assert len(pages) > 5, pages
    for path in tables:
        for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))):
            assert all(is_no_formula(field) for field in row), (path.name, row)
    for path in (*tables, *pages):
        text = path.read_text(encoding="utf-8")
        assert not set(text) & {"\x1b", "\u202e"}, path.name
        if path.suffix != ".csv":
            assert not re.search(r"(?<!\\)<img src=x", text), path.name
    for path in (p for p in written if p.suffix == ".json" and p.is_relative_to(place / "out")):
        assert path.read_text(encoding="utf-8").isascii(), path.name


def is_no_formula(field):
    try:
        float(field)
    except ValueError:
        return not field.lstrip().startswith(("=", "+", "@"))
    return True


def test_the_whole_manifest_is_json_on_the_terminal_too(place, cfseg):
    shown = cfseg("bundle", "show", place / "bundle", "--json").out
    assert shown.isascii()
    assert json.loads(shown)["notice"] == EVIL


def test_a_wrong_call_shows_what_was_given(cfseg):
    ended = cfseg("report", "a", EVIL)
    assert ended.code == 2
    assert r"=cmd()\x1b[31m\u202e" in ended.err


def test_bars_and_tables_take_no_markup(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    console = Console(stderr=True, width=200)
    with Bars(console, "cases") as bars:
        bars.start(2)
        bars.below(f"{EVIL}: coarse", 1, 2)
        assert not any(c.markup for c in bars.progress.columns if isinstance(c, TextColumn))
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    console.show(table)
    console.say(EVIL)
    said = capsys.readouterr().err
    assert "\u202e" not in said
    assert said.count(r"\x1b[31m\u202e[red]") >= 5


OWN = {"cli/console.py", "tables.py"}
"""The modules that may print, and that may write a CSV."""


def forbidden(path):
    """Yield what in a module prints or writes a CSV."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if re.search(r"^print$|\.(print|echo)$|\bstd(out|err)\.write$", called):
                yield called
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        yield from (n for n in names if re.match(r"csv$|rich$|rich\.(console|table|markup)$", n))


def test_nothing_else_prints_or_writes_tables():
    found = {
        path.relative_to(SOURCES).as_posix(): [*forbidden(path)] for path in SOURCES.rglob("*.py")
    }
    assert {name for name, ways in found.items() if ways} == OWN
