"""``cfseg train``."""

import importlib.util
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

from cfseg.plan import ROLES, Role


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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")] = None,
    notice: Annotated[
        str | None, typer.Option(help="To be said with every output [default: for phantoms only].")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the steps and stop.")] = False,
) -> None:
    """Train the cascade on a partly labelled cohort with nnU-Net v2, as in the paper.

    Coarse model on the fully labelled cases; its pseudo-labels complete the others; tumor model
    twice; organ model; bundle. manifest.json says what is annotated: {case: [label ids]}, [] for
    an unlabelled case. Run it again to go on after a stop. OUT/train.log keeps the progress.

    Example: cfseg train cohort -o work --recipe demo
    """
    from cfseg import __version__
    from cfseg.dataset.cases import phantom_notice
    from cfseg.errors import UsageError
    from cfseg.recipes.recipe import load
    from cfseg.training.pipeline import Pipeline

    overrides = tuple(set_ or ())
    pipeline = Pipeline(
        dataset,
        out,
        load(recipe, overrides),
        device=device,
        report=_Log(out / "train.log"),
        provenance={"command": _command(recipe, overrides), "cfseg": __version__},
        notice=phantom_notice(dataset) if notice is None else notice,
    )
    only = _role(stage)
    if dry_run:
        typer.echo("\n".join(pipeline.plan(only)))
        return
    if importlib.util.find_spec("nnunetv2") is None:
        raise UsageError("training needs nnU-Net; install it with: pip install 'cfseg[train]'")
    _use_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nnU-Net's libraries warn at every turn
        pipeline.run(only)


class _Log:
    """Plain lines with the time of day, on the console and in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        text = f"{time.strftime('%H:%M:%S')} {line}\n"
        sys.stderr.write(text)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


def _role(stage: str | None) -> Role | None:
    from cfseg.errors import UsageError

    if stage is None:
        return None
    for role in ROLES:
        if stage == role:
            return role
    raise UsageError(f"--stage {stage}: give one of {', '.join(ROLES)}")


def _command(recipe: str, overrides: tuple[str, ...]) -> str:
    words = ["cfseg train DATASET -o WORK --recipe", Path(recipe).name]
    return " ".join([*words, *(f"--set {o}" for o in overrides)])


def _use_threads(threads: int | None) -> None:
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
