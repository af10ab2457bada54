"""``cfseg evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
)

if TYPE_CHECKING:
    from cfseg.cli.console import Table
    from cfseg.evaluation.scores import Summary

_METRICS = ("DSC", "NSD")


def evaluate(
    pred: Annotated[Path, typer.Argument(help="Folder of predicted label maps, or one file.")],
    ref: RefArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the scores.")],
    mode: ModeOption = "flare23",
    labels: LabelsOption = None,
    ignore: IgnoreOption = None,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Score label maps against references: DSC and NSD as the official FLARE 2023 evaluation.

    Also HD95 with and without misses, volume errors, and tumors found by size. CASE.nii.gz or
    CASE_0000.nii.gz is judged against CASE.nii.gz. A prediction that is missing, cannot be read or
    does not fit its reference is listed and counts as 0. Writes scores.txt (the official format),
    scores.csv, scores.json, lesions.csv, and tables.md and tables.csv in the shape of the paper's
    Tables 3 and 4.

    Exit codes: 0 all cases scored, 2 wrong call, 3 some not scored, 4 none scored or nothing to
    score, 6 the disk cannot be written or memory ran out.

    Example: cfseg evaluate masks/ labelsTs/ -o scores/
    """
    from cfseg.cli.console import Console
    from cfseg.evaluation.tables import write_scores

    summary = judged(pred, ref, mode, labels, jobs, ignore, quiet=quiet)
    write_scores(out, summary)
    if not quiet:
        Console().show(score_table(summary))
        close(Console(stderr=True), summary)
    raise typer.Exit(summary.exit_code)


def score_table(summary: "Summary") -> "Table":
    """Return mean and standard deviation of DSC and NSD per label as a table for the terminal."""
    from cfseg.cli.console import Table
    from cfseg.evaluation.cells import ABSENT_NOTE, mark_absent
    from cfseg.labels import LABELS

    judged = len(summary.judged)
    table = Table("label", title=f"{judged} case{'' if judged == 1 else 's'}, {summary.mode}")
    table.add_column("DSC", justify="right")
    table.add_column("NSD", justify="right")
    for label in LABELS:
        if label.id in summary.labels:
            keys = [f"{label.abbreviation}_{metric}" for metric in _METRICS]
            cells, means = (
                [_cell(summary, key) for key in keys],
                [summary.means[key] for key in keys],
            )
            absent = summary.absent(label.id)
            table.add_row(*mark_absent(label.name.replace("_", " "), cells, means, absent, judged))
            if absent:
                table.caption = ABSENT_NOTE
    if "Organ_DSC" in summary.means:
        table.add_section()
        table.add_row("all organs", *(_cell(summary, f"Organ_{metric}") for metric in _METRICS))
    return table


def _cell(summary: "Summary", key: str) -> str:
    from cfseg.evaluation.cells import spread_cell

    return spread_cell(summary.spread(key), scale=1, digits=4, of=len(summary.judged))
