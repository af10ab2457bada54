"""``cfseg report``."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that predict wrote.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Folder of reference label maps.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the CTs [default: where predict found them]."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder of the report [default: OUT/report].")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page of all cases.")] = "Segmented cases",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Write pages to look at: one per case with an interactive viewer, and one for all cases.

    Each page is one file that opens from disk without a network: findings, scores where a
    reference is given, pictures, time per stage, notes. Writes OUT/report/index.html and
    OUT/report/cases/CASE.html. No page holds a patient's name or a path. From Python:
    cfseg.reports.report.write_report(out, reference).

    Exit codes: 0 all pages whole, 2 wrong call, 3 some pages without pictures, 4 nothing to
    report, 6 the disk cannot be written.

    Example: cfseg report masks/ --reference labelsTs/
    """
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.reports.report import write_report

    console, errors = Console(stderr=True, quiet=quiet), Console(stderr=True)
    with Bars(console, "cases") as bars:

        def on_case(case: str, problem: str, done: int, of: int) -> None:
            bars.step(done, of)
            if problem:
                errors.say(f"{case}: {problem}")

        written = write_report(out, reference, images, to, title, on_case)
    Console().say(f"report: {written.index}")
    raise typer.Exit(written.exit_code)
