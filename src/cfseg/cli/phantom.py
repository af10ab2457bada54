"""``cfseg phantom``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Grid(StrEnum):
    """Choices of ``--spacing``."""

    row = "row"
    mm3 = "3mm"


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the data set, in nnU-Net's raw layout.")],
    cases: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the cohort; same seed, same scans.")] = 0,
    spacing: Annotated[
        Grid, typer.Option(help="3mm: 128x112x96 voxels; row: the grid of a real scan.")
    ] = Grid.mm3,
    groups: Annotated[
        bool, typer.Option("--groups", help="Label them as in the paper: 6 groups, most in part.")
    ] = False,
    full: Annotated[
        int, typer.Option(min=0, help="With --groups: at least so many with all organs, no tumor.")
    ] = 0,
    selection: Annotated[int, typer.Option(min=0, help="Full cases in OUT/selection.")] = 0,
    test: Annotated[int, typer.Option(min=0, help="Full cases in OUT/test.")] = 0,
    jobs: Annotated[
        int,
        typer.Option(min=0, help="Processes; the scans are the same with any. 0: one per core."),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Make synthetic abdominal CTs with 13 organs and tumors, and their references.

    Finished cases are kept: run it again to go on after a stop.

    Exit codes: 0 done, 2 wrong call, 6 disk or memory ran out, 130 or 143 stopped.

    Example: cfseg phantom cohort --cases 80 --seed 1 --groups --test 10
    """
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.parallel import cores
    from cfseg.phantoms.cohort import plan, write_cohort

    console = Console(stderr=True, quiet=quiet)
    total = len(plan(out, cases, seed, groups=groups, full=full, selection=selection, test=test))
    with Bars(console, "phantoms") as bars:
        bars.start(total)
        write_cohort(
            out, cases, seed, spacing.value, groups=groups, full=full, selection=selection,
            test=test, jobs=jobs or cores(), progress=bars.step,
        )  # fmt: skip
    console.say(f"{total} phantoms in {out}")
