"""``cfseg train``."""

import importlib.util
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from cfseg.cli import networks
from cfseg.tables import shown

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cfseg.plan import Role
    from cfseg.training.pipeline import Pipeline


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
        typer.Option("--dry-run", help="Print the steps, what is done, the hours known, and stop."),
    ] = False,
) -> None:
    """Train the cascade on a partly labelled cohort with nnU-Net v2, as in the paper.

    Coarse model on the fully labelled cases; its pseudo-labels complete the others; tumor model
    twice; organ model; bundle. manifest.json says what is annotated: {case: [label ids]}, [] for
    an unlabelled case. Run it again to go on after a stop: at most ten minutes of training are
    lost. OUT/train.log keeps the progress, OUT/tensorboard the curves, OUT/cost.md what it cost.
    All cases are looked at before any work: bad ones are listed and nothing is trained, or with
    --skip-bad they are left out and the bundle says so. So does --dry-run, which writes nothing.

    Exit codes: 0 done, 2 wrong call, 4 bad cases or none found, 5 a checkpoint or bundle cannot be
    used, or the loss is no number, 6 disk or memory ran out, 130 or 143 stopped.

    Example: cfseg train cohort -o work --recipe demo
    """
    from cfseg import __version__
    from cfseg.cli.console import Console
    from cfseg.dataset.cases import phantom_notice
    from cfseg.dataset.problems import check_folder
    from cfseg.errors import UsageError
    from cfseg.recipes.recipe import load
    from cfseg.training.pipeline import Pipeline

    overrides = (*_given(organ_labels), *(set_ or ()))
    check_folder(out)
    log = _Log(None if dry_run else out / "train.log")
    pipeline = Pipeline(
        dataset,
        out,
        load(recipe, overrides),
        device=device,
        report=log,
        provenance={"command": _command(recipe, overrides), "cfseg": __version__},
        notice=phantom_notice(dataset) if notice is None else notice,
        init=init,
        processes=gpus,
        selection_set=selection_set,
        progress=log.progress,
        jobs=jobs,
        skip_bad=skip_bad,
    )
    only = _role(stage)
    if dry_run:
        with log:
            pipeline.check(remember=False)
        for line in pipeline.plan(only):
            Console().say(line)
        return
    if importlib.util.find_spec("nnunetv2") is None:
        raise UsageError("training needs nnU-Net; install it with: pip install 'cfseg[train]'")
    _check_machine(pipeline, gpus, device)
    _use_threads(threads)
    with warnings.catch_warnings(), log:
        warnings.simplefilter("ignore")  # nnU-Net's libraries warn at every turn
        pipeline.run(only)
    _print_cost(pipeline)


class _Log:
    """Plain lines with the time of day, on the console and, unless it is None, in a file.

    On a terminal a bar with the time left stands below the lines.
    """

    def __init__(self, path: Path | None) -> None:
        from cfseg.cli.console import Console

        self.path, self.console = path, Console(stderr=True)
        self.bar: Progress | None = None
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self.console.is_terminal:
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


def _check_machine(pipeline: "Pipeline", gpus: int, device: str) -> None:
    """Refuse what this machine cannot do now, not after hours of preparation."""
    from cfseg.networks.device import find_device
    from cfseg.training.precision import cpu_precision

    found = find_device(device)
    if found.type == "cpu":
        cpu_precision(pipeline.training.cpu_precision)
    if gpus > 1:
        from cfseg.training.distributed import check_processes

        check_processes(pipeline.training.batch_size, gpus, found)


def _print_cost(pipeline: "Pipeline") -> None:
    from cfseg.cli.console import Console
    from cfseg.training.cost import write_cost

    for line in write_cost(pipeline.work, pipeline.training).splitlines():
        Console().say(line)


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
    import torch

    from cfseg.parallel import cores

    torch.set_num_threads(threads or cores())
