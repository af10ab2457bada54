"""``cfseg findings``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli.reading import OF_SCANS, OF_SERIES, reading

if TYPE_CHECKING:
    from cfseg.cli.console import Table
    from cfseg.findings.measure import Findings
    from cfseg.io import ReadingOptions


@reading(OF_SCANS, OF_SERIES)
def findings(
    ct: Annotated[Path, typer.Argument(help="A CT: NIfTI or DICOM folder; or a folder of CTs.")],
    label_map: Annotated[
        Path, typer.Argument(help="Its label map with FLARE's labels, or a folder of them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    border_slices: Annotated[
        int, typer.Option(min=0, help="What reaches into so many outer slices counts as cut.")
    ] = 3,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    *,
    options: "ReadingOptions",
) -> None:
    """Measure organs and lesions of any label map: volumes, densities, diameters.

    An organ that the border of the scan cuts has no volume, only that of its visible part. Writes
    OUT/statistics/CASE.json (TotalSegmentator's statistics.json with more keys), and of all cases
    OUT/statistics.csv and OUT/lesions.csv. From Python: cfseg.measure(ct, label_map).

    Exit codes: 0 all measured, 2 wrong call, 3 some cases refused, 4 all refused or nothing to
    measure, 6 the disk cannot be written or memory ran out.

    Example: cfseg findings ct.nii.gz labels.nii.gz -o findings/
    """
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.findings.files import measure_many
    from cfseg.tables import listed

    console, errors = Console(stderr=True, quiet=quiet), Console(stderr=True)
    with Bars(console, "cases") as bars:

        def on_case(case: str, problem: str, done: int, of: int) -> None:
            bars.step(done, of)
            if problem:
                errors.say(f"{case}: refused: {problem}")

        measured = measure_many(
            ct, label_map, out, border_slices=border_slices, options=options, on_case=on_case
        )
    if len(measured.found) == 1 and not quiet:
        (found,) = measured.found
        Console().show(_organ_table(found))
        if found.lesions:
            Console().show(_lesion_table(found))
    if measured.alone:
        console.say(
            f"{len(measured.alone)} without a scan or a label map: {listed(measured.alone)}"
        )
    console.say(f"written to {out}")
    raise typer.Exit(measured.exit_code)


def _organ_table(found: "Findings") -> "Table":
    from cfseg.cli.console import Table

    table = Table("label", title=found.case)
    for name in ("ml", "HU", "cut by the scan's border"):
        table.add_column(name, justify="left" if "cut" in name else "right")
    for organ in found.organs:
        hu = organ.density
        volume = f"{'> ' if organ.cut_by else ''}{organ.visible_ml:.1f}" if organ.voxels else "-"
        density = f"{hu.mean_hu:.0f} ± {hu.sd_hu:.0f}" if hu else ""
        name = organ.label.name.replace("_", " ")
        table.add_row(name, volume, density, ", ".join(organ.cut_by))
    return table


def _lesion_table(found: "Findings", shown: int = 10) -> "Table":
    from cfseg.cli.console import Table

    title = f"{len(found.lesions)} lesions" + (
        f", the {shown} largest" if len(found.lesions) > shown else ""
    )
    table = Table("lesion", title=title)
    for name in ("ml", "mm x mm", "HU"):
        table.add_column(name, justify="right")
    table.add_column("in or near")
    for lesion in found.lesions[:shown]:
        sizes = lesion.diameters
        near = "" if lesion.nearest is None else f"{lesion.nearest_mm:.0f} mm from {lesion.nearest}"
        place = f"in {lesion.host}" if lesion.host else near
        table.add_row(
            str(lesion.number),
            f"{'> ' if lesion.cut_by else ''}{lesion.visible_ml:.2f}",
            f"{sizes.longest_mm:.1f} x {sizes.perpendicular_mm:.1f}",
            f"{lesion.density.mean_hu:.0f}",
            place.replace("_", " "),
        )
    return table
