"""``cfseg demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from cfseg.segmenter import Segmentation

DEMO_SEED = 2025  # no training saw it; it has all organs and a tumor
"""No model of ours was trained on phantoms of this seed."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Another phantom.")] = DEMO_SEED,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", "-m", help="Model bundle [default: the bundled one].")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")] = None,
) -> None:
    """Make a synthetic CT, segment it, judge it and draw it.

    Example: cfseg demo -o demo
    """
    from rich.console import Console

    from cfseg.cli.evaluate import score_table
    from cfseg.evaluation.flare import evaluate
    from cfseg.io import read_label_map, read_scan
    from cfseg.phantoms.cohort import write_cohort
    from cfseg.reports.figures import montage
    from cfseg.segmenter import Segmenter

    console = Console()
    console.print(f"Making a synthetic CT (seed {seed}) ...")
    cohort = out / f"phantom_{seed}"
    write_cohort(cohort, cases=1, seed=seed)
    (image,) = sorted((cohort / "imagesTr").glob("*.nii.gz"))
    (reference,) = sorted((cohort / "labelsTr").glob("*.nii.gz"))
    segmenter = Segmenter(bundle, device, threads)
    console.print(f"Segmenting it with {segmenter.manifest.name} ...")
    segmentation = segmenter.segment(read_scan(image))
    predicted = segmentation.save(out / "prediction" / reference.name)
    scores = evaluate(predicted, reference, out / "scores")
    picture = out / "montage.png"
    montage(
        segmentation.scan.volume,
        segmentation.label_map,
        read_label_map(reference)[0],
        picture,
        title=segmentation.notice,
    )
    console.print(score_table(scores))
    _print_seconds(console, segmentation)
    console.print(f"label map: {predicted}\npicture:   {picture}", highlight=False, soft_wrap=True)
    for line in (*segmentation.notes, segmentation.notice):
        if line:
            console.print(line, highlight=False, soft_wrap=True)


def _print_seconds(console: "Console", segmentation: "Segmentation") -> None:
    from rich.table import Table

    table = Table("step", "seconds")
    for name, seconds in segmentation.result.seconds.items():
        table.add_row(name, f"{seconds:.2f}")
    table.add_row("total", f"{segmentation.seconds:.2f}")
    console.print(table)
