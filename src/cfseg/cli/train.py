"""``cfseg train``."""

import os
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from cfseg.cli import networks
from cfseg.tables import shown

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress, TaskID

    from cfseg.plan import Role
    from cfseg.recipes.recipe import Recipe


def train(
    dataset: Annotated[
        Path,
        typer.Argument(help="imagesTr, labelsTr, and manifest.json where labels are partial."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Workspace; the bundle is in its folder bundle.")
    ],
    recipe: Annotated[
        str, typer.Option(help="Name or TOML file of a recipe with a training table.")
    ] = "demo",
    stage: Annotated[
        str | None, typer.Option(help="Only what coarse, tumor or organ needs [default: all].")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override, as in training.seed=3."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Bundle whose weights the networks start from (fine-tuning)."),
    ] = None,
    organ_labels: Annotated[
        str | None,
        typer.Option(help="coarse, tumor, teacher, or a folder with CASE.nii.gz."),
    ] = None,
    selection_set: Annotated[
        Path | None,
        typer.Option(help="Fully labelled cohort on which the kept weights are ranked."),
    ] = None,
    device: networks.Device = "auto",
    coarse: Annotated[
        Path | None,
        typer.Option(help="Bundle in the place of the coarse model: it completes the labels."),
    ] = None,
    atlases: Annotated[
        Path | None,
        typer.Option(help="Atlases that training.map_share of the windows are rendered from."),
    ] = None,
    gpus: Annotated[
        int, typer.Option(min=1, help="GPUs that share each batch; on a CPU, processes.")
    ] = 1,
    threads: networks.Threads = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Cases checked and prepared at a time; 0: 1 per core, max 4.")
    ] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out cases that cannot be trained on.")
    ] = False,
    notice: Annotated[
        str | None, typer.Option(help="To be said with every output [default: for phantoms only].")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the steps, what they take and what is done."),
    ] = False,
    benchmark: Annotated[
        bool,
        typer.Option("--benchmark", help="Print seconds per 250 steps, with data and without."),
    ] = False,
) -> None:
    """Train the cascade on a partly labelled cohort, as in the paper.

    Coarse model on the fully labelled cases; its pseudo-labels complete the others; tumor model
    twice; organ model; bundle. manifest.json says what is annotated: {case: [label ids]}, [] for
    an unlabelled case. Run it again to go on after a stop: at most ten minutes of training are
    lost. OUT/training.html shows curves, cost and what was learned from; OUT/look has pictures of
    windows and validation cases, OUT/train.log the progress, OUT/tensorboard the curves.
    All cases are looked at before any work: bad ones are listed and nothing is trained, or with
    --skip-bad they are left out and the bundle says so. So does --dry-run, which writes nothing.
    Several GPUs: --gpus N, or torchrun ... -m cfseg train ... on one machine or many.

    Exit codes: 0 done, 2 wrong call, 4 bad cases or none found, 5 a checkpoint or bundle cannot be
    used, or the loss is not a number, 6 disk or memory ran out, 130 or 143 stopped.

    Example: cfseg train cohort -o work --recipe demo
    """
    from cfseg.dataset.problems import check_folder
    from cfseg.learning.group import group_of
    from cfseg.learning.launch import launch
    from cfseg.networks.device import find_device
    from cfseg.parallel import is_launched
    from cfseg.recipes.recipe import load

    found = find_device(device)
    with group_of(found.type) if is_launched() else nullcontext(found) as own:
        overrides = (*_given(organ_labels), *(set_ or ()))
        check_folder(out)
        asked = _Asked(
            dataset, out, load(recipe, overrides), _command(recipe, overrides), _role(stage), init,
            coarse, atlases, selection_set, notice, jobs, skip_bad, dry_run, benchmark,
        )  # fmt: skip
        _check_machine(asked, gpus, own)
        _use_threads(threads)
        if gpus > 1 and not is_launched() and not dry_run:
            launch(gpus, sys.argv[1:])
        else:
            _train(asked, own)


@dataclass(frozen=True)
class _Asked:
    """What was asked for, checked as far as that goes without reading a case."""

    dataset: Path
    out: Path
    recipe: "Recipe"
    command: str
    role: "Role | None"
    init: Path | None
    coarse: Path | None
    atlases: Path | None
    selection_set: Path | None
    notice: str | None
    jobs: int
    skip_bad: bool
    dry_run: bool
    benchmark: bool


def _train(asked: _Asked, device: "torch.device") -> None:
    from cfseg import __version__
    from cfseg.cli.console import Console
    from cfseg.dataset.cases import phantom_notice
    from cfseg.learning.group import is_first
    from cfseg.training.pipeline import Pipeline

    writes = not (asked.dry_run or asked.benchmark)
    log = _Log(asked.out / "train.log" if writes else None, silent=not is_first())
    pipeline = Pipeline(
        asked.dataset, asked.out, asked.recipe,
        device=device, report=log,
        provenance={"command": asked.command, "cfseg": __version__},
        notice=phantom_notice(asked.dataset) if asked.notice is None else asked.notice,
        init=asked.init, coarse=asked.coarse, atlases=asked.atlases,
        selection_set=asked.selection_set,
        progress=log.progress, jobs=asked.jobs, skip_bad=asked.skip_bad,
    )  # fmt: skip
    lines: list[str] = []
    if asked.dry_run:
        with log:
            pipeline.check(remember=False)
        lines = pipeline.plan(asked.role)
    elif asked.benchmark:
        for line in pipeline.benchmark(asked.role):  # which takes all processes of a group
            if is_first():
                Console().say(line)
    else:
        with log:
            pipeline.run(asked.role)
        lines = pipeline.write_cost().splitlines() if is_first() else []
    for line in lines if is_first() else ():
        Console().say(line)


class _Log:
    """Plain lines with the time of day, on the console and, unless it is None, in a file.

    On a terminal a bar with the time left stands below the lines.
    """

    def __init__(self, path: Path | None, *, silent: bool = False) -> None:
        from cfseg.cli.console import Console

        self.path, self.silent, self.console = path, silent, Console(stderr=True)
        self.bar: Progress | None = None
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.silent:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            named = TextColumn("{task.description}", markup=False)
            self.bar = Progress(named, BarColumn(), TimeRemainingColumn(), console=self.console)
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __call__(self, line: str) -> None:
        from cfseg.io import make_folder, writing

        if self.silent:
            return
        text = f"{time.strftime('%H:%M:%S')} {shown(line)}"
        self.console.say(text)
        if self.path is None:
            return
        make_folder(self.path.parent)
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def progress(self, name: str, done: int, total: int) -> None:
        """Move the bar of what is going on; what is finished gets none."""
        if self.bar is None:
            return
        if name not in self.tasks:
            for task in self.tasks.values():
                self.bar.update(task, visible=False)
            self.tasks[name] = self.bar.add_task(shown(name), total=total, completed=done)
        self.bar.update(self.tasks[name], completed=done, total=total, visible=done < total)


def _given(organ_labels: str | None) -> list[str]:
    """Return an option as what it overrides in the recipe."""
    if organ_labels is None:
        return []
    is_folder = Path(organ_labels).is_dir()
    value = Path(organ_labels).resolve() if is_folder else organ_labels
    return [f"training.organ_labels={value}"]


def _check_machine(asked: _Asked, gpus: int, device: "torch.device") -> None:
    """Refuse what this machine cannot do now, not after hours of preparation."""
    from cfseg.errors import UsageError
    from cfseg.learning.group import own_samples
    from cfseg.learning.launch import check_processes
    from cfseg.learning.precision import precision_on

    training = asked.recipe.training
    if training is None:
        raise UsageError(f"recipe {asked.recipe.name} has no [training] table; choose another")
    precision_on(device, training.cpu_precision)
    own_samples(training.batch_size)
    check_processes(training.batch_size, gpus, device)


def _role(stage: str | None) -> "Role | None":
    from cfseg.errors import UsageError
    from cfseg.plan import ROLES

    if stage is None:
        return None
    for role in ROLES:
        if stage == role:
            return role
    raise UsageError(f"--stage {stage}: give one of {', '.join(ROLES)}")


def _command(recipe: str, overrides: tuple[str, ...]) -> str:
    words = ["cfseg train DATASET -o WORK --recipe", Path(recipe).name]
    return " ".join([*words, *(f"--set {_without_path(o)}" for o in overrides)])


def _without_path(override: str) -> str:
    """Return an override without the folder that it names on this machine."""
    from cfseg.recipes.training import ORGAN_LABELS

    key, _, value = override.partition("=")
    is_folder = key == "training.organ_labels" and value not in ORGAN_LABELS
    return f"{key}=FOLDER" if is_folder else override


def _use_threads(threads: int | None) -> None:
    """Use so many threads; processes that were launched together share the cores."""
    import torch

    from cfseg.parallel import cores

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, cores() // here))
