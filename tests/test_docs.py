"""What the documents say that can be checked without running an hour of commands."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from cfseg.cli.root import app
from cfseg.feed.store import LOCATIONS
from cfseg.recipes.recipe import load

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))
OF_OLD = ("results.md", "CHANGELOG.md")
"""Pages that tell what was, whose commands are of their time."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> list[str]:
    """Return the command lines of cfseg in a page's blocks, continued ones in one."""
    blocks = re.findall(
        r"^```(?:sh)?\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"^(?:torchrun .* -m )?(cfseg .*?)(?: +#.*)?$", line) for line in lines]
    return [match[1] for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads}


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in OF_OLD and commands(p)], ids=name
)
def test_commands_have_verbs_and_options_that_there_are(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line)[1:]
        command = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {flag for it in command.params for flag in (*it.opts, *it.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
        assert used <= known | {"--help"}, line


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in OF_OLD], ids=name)
def test_values_of_recipes_are_such_as_a_recipe_takes(page: Path) -> None:
    found = re.findall(
        r"--set (training\.\S+=[^\s`]+)|`(training\.\w+=\w+)`", page.read_text("utf-8")
    )
    load("paper", tuple(a or b for a, b in found if "FOLDER" not in a))


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_a_decision_is_pinned_by_tests_that_there_are(page: Path) -> None:
    text = page.read_text("utf-8")
    assert f"]({page.name})" in (page.parent / "README.md").read_text("utf-8")
    assert re.search(
        r"^\*\*What\.\*\*.*^\*\*Choice\.\*\*.*^\*\*Price\.\*\*", text, re.DOTALL | re.MULTILINE
    )
    for file in re.findall(r"`(tests/\S+\.py)`", text):
        assert (ROOT / file).is_file(), file
    tests = "".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for test in re.findall(r"`(test_\w+)`", text):
        assert f"def {test}(" in tests, test


def test_decisions() -> None:
    """Numbers that a decision names and no other test does."""
    assert LOCATIONS == 1000


def test_nnunet_is_no_part_of_what_users_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    parts = {"": project["dependencies"], **project["optional-dependencies"]}
    assert [part for part, of in parts.items() if any("nnunet" in it for it in of)] == ["dev"]


def test_training_without_its_extra_says_what_to_install() -> None:
    code = "import sys; sys.modules['blosc2'] = None; import cfseg.training.pipeline"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UsageError: training needs blosc2: pip install 'cfseg[train]'" in ended.stderr


TORCHRUN = """#!/bin/bash
echo "$@" >> called
trap 'echo asked >> called; exit 1' TERM
for _ in $(seq 100); do sleep 0.1; done
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_job_script_passes_a_stop_on_and_requeues_itself(tmp_path: Path, number: int) -> None:
    shims = {
        "srun": '#!/bin/bash\nexec "$@"\n',
        "scontrol": '#!/bin/bash\necho "$@" >> called\necho first\necho second\n',
        "torchrun": TORCHRUN,
    }
    for tool, text in shims.items():
        (tmp_path / tool).write_text(text)
        (tmp_path / tool).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "nodes", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "3", "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }  # fmt: skip
    called = tmp_path / "called"
    job = ["bash", ROOT / "docs/how-to/train.sbatch", "COHORT", "WORK", "--jobs", "2"]
    with subprocess.Popen(job, cwd=tmp_path, env=os.environ | slurm) as process:
        while not (called.is_file() and "cfseg train" in called.read_text()):
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
    shown, started, asked, requeued = called.read_text().splitlines()
    assert shown == "show hostnames nodes"
    assert started.startswith("--nnodes 2 --nproc-per-node 3 ")
    assert "--rdzv-endpoint first:29500" in started
    assert started.endswith("-m cfseg train COHORT -o WORK --recipe paper --jobs 2")
    assert (asked, requeued) == ("asked", "requeue 7")
