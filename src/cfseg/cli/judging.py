"""What the verbs that judge share: their options and a progress bar over cases."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cfseg.cli.console import Console
    from cfseg.cli.console import Table as ShownTable
    from cfseg.evaluation.scores import CaseScores, Summary
    from cfseg.tables import Table

MOST_COLUMNS = 6
"""Of a table on a terminal."""
MOST_JOBS = 4
"""Of the default: each takes the memory of a case."""

RefArgument = Annotated[Path, typer.Argument(help="Folder of reference label maps, or one file.")]
ModeOption = Annotated[str, typer.Option(help="Rules: flare23, the official ones, or corrected.")]
LabelsOption = Annotated[
    str | None,
    typer.Option(metavar="IDS", help="Judge only these, as in 1,2,3 [default: all 14]."),
]
IgnoreOption = Annotated[
    int | None,
    typer.Option(
        metavar="ID",
        help="Leave out voxels to which the reference gives this value; 0: none "
        "[default: the ignore label of a dataset.json beside the references, or a folder above].",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(min=1, help=f"Cases at a time [default: one per core, {MOST_JOBS} at most]."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]


def judged(
    pred: Path,
    ref: Path,
    mode: str,
    labels: str | None,
    jobs: int | None,
    ignore: int | None,
    *,
    quiet: bool,
    name: str = "cases",
) -> "Summary":
    """Score predictions behind a progress bar; what there is to say about a case is printed."""
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.evaluation.flare import judge
    from cfseg.evaluation.rules import mode_called

    console = Console(stderr=True, quiet=quiet)
    errors = Console(stderr=True)
    with Bars(console, name) as bars:

        def on_case(case: "CaseScores", done: int, of: int) -> None:
            bars.step(done, of)
            lines = [(console, f"note: {note}") for note in case.notes]
            if case.message:
                lines.append((errors, f"{case.state}: {case.code}: {case.message}"))
            for to, line in lines:
                to.say(f"{case.case}: {line}")

        return judge(
            pred, ref, mode_called(mode), _ids(labels), on_case, jobs or _default_jobs(), ignore
        )


def parts(table: "Table") -> "list[Table]":
    """Cut a table that is too wide for a terminal of 80 columns: the tests go below the means."""
    from dataclasses import replace

    if len(table.header) <= MOST_COLUMNS:
        return [table]
    cut = MOST_COLUMNS - 1
    tested = tuple((row[0], *row[cut:]) for row in table.rows if any(row[cut:]))
    means = replace(table, header=table.header[:cut], rows=tuple(r[:cut] for r in table.rows))
    return [means, replace(table, title="", header=("", *table.header[cut:]), rows=tested)]


def rich_table(table: "Table") -> "ShownTable":
    """Return a table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.text import Text

    from cfseg.cli.console import Table as ShownTable
    from cfseg.tables import shown

    made = ShownTable(
        table.header[0], title=table.title, title_justify="left", box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in table.header[1:]:
        wraps = "[" in name  # a difference and its interval go on two lines
        made.add_column(name, justify="right", no_wrap=not wraps and len(name) < 12)
    for row in table.rows:
        made.add_row(*(Text(shown(cell).replace(" [", "\n[")) for cell in row))
    return made


def close(console: "Console", summary: "Summary", name: str = "") -> None:
    """Say how many cases ended in which state, and what holds for all of them."""
    parts = [f"{number} {state}" for state, number in summary.counts.items() if number]
    if summary.unpaired:
        parts.append(f"{len(summary.unpaired)} predictions without a reference")
    for line in (", ".join(parts), *summary.notes):
        console.say(name + line)


def _default_jobs() -> int:
    from cfseg.parallel import cores

    return min(cores(), MOST_JOBS)


def _ids(labels: str | None) -> list[int] | None:
    if labels is None:
        return None
    try:
        return [int(part) for part in labels.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{labels!r} is not a list of label ids such as 1,2,3", param_hint="--labels"
        ) from None
