"""``cfseg figure``."""

from pathlib import Path
from typing import Annotated

import typer


def figure(
    images: Annotated[Path, typer.Argument(help="Folder of CTs.")],
    reference: Annotated[Path, typer.Argument(help="Folder of reference label maps.")],
    masks: Annotated[
        list[str],
        typer.Option(metavar="NAME=DIR", help="Label maps of a method; the last one is judged."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")],
    cases: Annotated[
        str | None, typer.Option(metavar="IDS", help="Choose from these, as in a,b,c.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Draw good and bad cases beside their references, as the paper's Figs. 3 to 5.

    Writes good-and-bad.png (two best and two worst cases, every method), bad-organs.png and
    bad-tumors.png (three cases each, the last method). What differs from the reference is
    outlined, arrows point to the largest differences. From Python:
    cfseg.reports.qualitative.write_figures.

    Exit codes: 0 drawn, 2 wrong call, 3 some cases refused, 4 all refused or nothing to draw,
    6 the disk cannot be written.

    Example: cfseg figure imagesTs/ labelsTs/ --masks two-stage=masks2/ --masks CFS=masks/ -o figs/
    """
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.reports.qualitative import write_figures

    folders = dict(_pair(text) for text in masks)
    chosen = tuple(cases.split(",")) if cases else ()
    with Bars(Console(stderr=True, quiet=quiet), "cases") as bars:
        drawn = write_figures(images, reference, folders, out, chosen, bars.step)
    for case, error in drawn.refused.items():
        Console(stderr=True).say(f"{case}: refused: {error.code}: {error.message}")
    for path in drawn.pictures:
        Console().say(str(path))
    raise typer.Exit(drawn.exit_code)


def _pair(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise typer.BadParameter(f"{text!r} is not NAME=DIR", param_hint="--masks")
    return name, Path(folder)
