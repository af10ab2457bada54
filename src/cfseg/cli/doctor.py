"""``cfseg doctor``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli import networks
from cfseg.cli.reading import OF_FOLDERS, OF_SCANS, OF_SERIES, reading

if TYPE_CHECKING:
    from cfseg.doctor import Checkup, Diagnosis
    from cfseg.io import ReadingOptions

_MOST_NAMED = 5
"""Of ignored files, by reason; --json names them all."""


@reading(OF_SCANS, OF_SERIES, OF_FOLDERS)
def doctor(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            readable=False,  # one that may not be read costs itself alone
            help="Scans, archives of them, or folders that hold them at any depth.",
        ),
    ],
    bundle: networks.Bundle = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of lines.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Refused inputs only.")] = False,
    *,
    options: "ReadingOptions",
) -> None:
    """Say what cfseg predict would do with each input, and why, without running a network.

    Everything is found, read and checked as predict does it: which series make a case, the grid,
    whether values are in HU, the contrast phase as DICOM tags tell it. Memory is estimated for this
    machine, and time at most: as if the networks had to look closely at the whole body.

    Exit codes are those of predict: 0 all can be segmented, 2 wrong call, 3 some refused, 4 all
    refused, 5 the model cannot be used.

    Example: cfseg doctor scans/
    """
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.doctor import examine

    console = Console(stderr=True, quiet=quiet or as_json)
    lines = Console()
    with Bars(console, "inputs") as bars:

        def on_case(found: "Diagnosis", done: int, of: int) -> None:
            bars.start(of)
            bars.advance(done)
            if not as_json and (found.code or not quiet):
                for line in _lines(found):
                    lines.say(line)

        checkup = examine(inputs, bundle, options, on_look=bars.searching, on_case=on_case)
    if as_json:
        lines.show_json(checkup.as_dict())
    elif not quiet:
        for line in _closing(checkup):
            lines.say(line)
    raise typer.Exit(checkup.exit_code)


def _lines(found: "Diagnosis") -> list[str]:
    if found.code:
        refused = f"{found.case}: refused: {found.code}: {found.message}"
        return [refused, *(f"  {row}" for row in found.details)]
    z, y, x = found.shape
    spacing = " x ".join(f"{mm:.4g}" for mm in found.spacing_mm)
    parts = [
        f"{found.case}: can be segmented",
        f"  grid {z} x {y} x {x} voxels of {spacing} mm (z, y, x); "
        f"{found.hu[0]:.0f} to {found.hu[1]:.0f} HU",
    ]
    if found.phase:
        parts.append(f"  DICOM series of {found.files} files, contrast phase: {found.phase}")
    parts.append(f"  about {found.memory_mb:.0f} MB of memory, at most about {found.seconds:.0f} s")
    parts += [f"  note: {note}" for note in found.notes]
    return parts


def _closing(checkup: "Checkup") -> list[str]:
    lines = []
    for reason, paths in checkup.ignored.items():
        some = ", ".join(paths[:_MOST_NAMED])
        more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
        lines.append(f"ignored: {reason}: {some}{more}")
    refused = sum(bool(case.code) for case in checkup.cases)
    ending = f"cfseg predict would exit with {checkup.exit_code}"
    return [*lines, f"{len(checkup.cases)} inputs, {refused} refused; {ending}"]
