"""``cfseg evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cfseg.evaluation.flare import CaseScores, Summary

_METRICS = ("DSC", "NSD")


def evaluate(
    pred: Annotated[Path, typer.Argument(help="Folder of predicted label maps, or one file.")],
    ref: Annotated[Path, typer.Argument(help="Folder of reference label maps, or one file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the scores.")],
    mode: Annotated[str, typer.Option(help="Rules: flare23, the official ones.")] = "flare23",
    labels: Annotated[
        str | None,
        typer.Option(metavar="IDS", help="Judge only these, as in 1,2,3 [default: all 14]."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Score label maps against references: DSC and NSD as the official FLARE 2023 evaluation.

    CASE.nii.gz or CASE_0000.nii.gz is judged against CASE.nii.gz. A missing prediction counts as
    0; a case that cannot be read, or lies on another grid, is listed and does not count. Writes
    scores.csv, scores.json and scores.txt.

    Exit codes: 0 all cases scored, 2 wrong call, 3 some missing or not judged, 4 none scored,
    6 the disk cannot be written.

    Example: cfseg evaluate masks/ labelsTs/ -o scores/
    """
    summary = _evaluate(pred, ref, out, mode, _ids(labels), quiet=quiet)
    raise typer.Exit(summary.exit_code)


def _ids(labels: str | None) -> list[int] | None:
    if labels is None:
        return None
    try:
        return [int(part) for part in labels.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{labels!r} is not a list of label ids such as 1,2,3", param_hint="--labels"
        ) from None


def _evaluate(
    pred: Path, ref: Path, out: Path, mode: str, labels: list[int] | None, *, quiet: bool
) -> "Summary":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cfseg.errors import UsageError
    from cfseg.evaluation.flare import evaluate as evaluate_files
    from cfseg.evaluation.scores import MODES

    chosen = next((known for known in MODES if known == mode), None)
    if chosen is None:
        raise UsageError(f"there is no mode {mode!r}; the modes are {', '.join(MODES)}")
    console = Console(stderr=True, quiet=quiet)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet) as bar:
        task = bar.add_task("cases", total=None)

        def on_case(case: "CaseScores", done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)
            if case.state != "scored":
                line = f"{case.case}: {case.state}: {case.code}: {case.message}"
                errors.print(line, highlight=False, markup=False, soft_wrap=True)

        summary = evaluate_files(pred, ref, out, chosen, labels, on_case)
    if not quiet:
        Console().print(score_table(summary))
        _close(console, summary)
    return summary


def score_table(summary: "Summary") -> "Table":
    """Return mean and standard deviation of DSC and NSD per label as a table for the terminal."""
    from rich.table import Table

    from cfseg.labels import LABELS

    counts = summary.counts
    judged = counts["scored"] + counts["missing"]
    table = Table("label", title=f"{judged} case{'' if judged == 1 else 's'}, {summary.mode}")
    table.add_column("DSC", justify="right")
    table.add_column("NSD", justify="right")
    for label in LABELS:
        if label.id in summary.labels:
            name = label.name.replace("_", " ")
            table.add_row(name, *(_cell(summary, f"{label.abbreviation}_{m}") for m in _METRICS))
    if "Organ_DSC" in summary.means:
        table.add_section()
        table.add_row("all organs", *(_cell(summary, f"Organ_{metric}") for metric in _METRICS))
    return table


def _cell(summary: "Summary", key: str) -> str:
    mean, sd = summary.means[key], summary.sds[key]
    return f"{mean:.4f}" if sd != sd else f"{mean:.4f} ± {sd:.4f}"


def _close(console: "Console", summary: "Summary") -> None:
    counts = summary.counts
    parts = [f"{number} {state}" for state, number in counts.items() if number]
    if summary.unpaired:
        parts.append(f"{len(summary.unpaired)} predictions without a reference")
    console.print(", ".join(parts), highlight=False, markup=False, soft_wrap=True)
