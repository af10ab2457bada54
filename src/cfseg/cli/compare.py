"""``cfseg compare``."""

from pathlib import Path
from typing import Annotated

import typer

from cfseg.cli.judging import (
    IgnoreOption,
    JobsOption,
    LabelsOption,
    ModeOption,
    QuietOption,
    RefArgument,
    close,
    judged,
    parts,
    rich_table,
)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Predictions of the first method.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Predictions of the second one.")],
    ref: RefArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the comparison.")],
    mode: ModeOption = "flare23",
    labels: LabelsOption = None,
    ignore: IgnoreOption = None,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compare two methods on the same cases, per label and overall.

    Both are scored as cfseg evaluate does it. Differences are paired by case: their mean with a
    bootstrap interval, and the Wilcoxon signed-rank test. Writes comparison.md, comparison.csv and
    comparison.json.

    Exit codes: 0 all cases scored, 2 wrong call, 3 some not scored, 4 none scored or nothing to
    score, 6 the disk cannot be written or memory ran out.

    Example: cfseg compare masks_a/ masks_b/ labelsTs/ -o comparison/
    """
    from cfseg.cli.console import Console
    from cfseg.evaluation.comparison import compare_summaries, head, tables, write_comparison

    one, other = (
        judged(pred, ref, mode, labels, jobs, ignore, quiet=quiet, name=name)
        for name, pred in (("A", first), ("B", second))
    )
    comparison = compare_summaries((str(first), str(second)), one, other)
    write_comparison(out, comparison)
    if not quiet:
        console, aside = Console(), Console(stderr=True)
        console.say(head(comparison))
        for table in tables(comparison):
            for part in parts(table):
                console.show(rich_table(part))
            console.say(table.note)
        for name, summary in (("A: ", one), ("B: ", other)):
            close(aside, summary, name)
    raise typer.Exit(comparison.exit_code)
