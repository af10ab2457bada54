"""``cfseg pseudo-label``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli import networks
from cfseg.cli.reading import OF_SCANS, reading

if TYPE_CHECKING:
    from cfseg.cli.console import Console
    from cfseg.io import ReadingOptions
    from cfseg.labelling.summary import Labelled, LabelSummary


class Network(StrEnum):
    """Choices of ``--stage``."""

    coarse = "coarse"
    tumor = "tumor"
    organ = "organ"
    cascade = "cascade"


@reading(OF_SCANS)
def pseudo_label(
    dataset: Annotated[
        Path, typer.Argument(help="Cohort: a folder with imagesTr and labelsTr, or manifest.json.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the labels.")],
    bundle: networks.Bundle = None,
    stage: Annotated[
        Network, typer.Option(help="One network over the whole body, or the cascade.")
    ] = Network.coarse,
    group: Annotated[
        list[int] | None,
        typer.Option(
            min=1, max=6, help="Of the paper; may be repeated [default: all that lack labels]."
        ),
    ] = None,
    step: Annotated[float, typer.Option(help="Between windows, as a fraction of the patch.")] = 0.5,
    tumor: Annotated[
        bool, typer.Option("--tumor", help="Take tumors from the model too; the paper does not.")
    ] = False,
    device: networks.Device = "auto",
    threads: networks.Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    *,
    options: "ReadingOptions",
) -> None:
    """Complete the labels of a cohort with those of a model; the ground truth always wins.

    Writes OUT/labelsTr/CASE.nii.gz, OUT/provenance/CASE.nii.gz (0 background or unknown, 1 ground
    truth, 2 pseudo-label, 3 to be ignored), OUT/status/CASE.json and OUT/pseudo_labels.json. An
    annotated label is never changed; a voxel that nnU-Net's label "ignore" marks is 15. Run it
    again to go on after a stop.

    Exit codes: 0 all done, 2 wrong call, 3 some cases refused or failed, 4 none done or none
    found, 5 the model cannot be used, 6 disk or memory ran out.

    Example: cfseg pseudo-label cohort -m work/bundle -o labelled --group 1
    """
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.labelling.cohort import label_cohort

    console, errors = Console(stderr=True, quiet=quiet), Console(stderr=True)
    with Bars(console, "cases") as bars:

        def on_case(found: "Labelled", done: int, of: int) -> None:
            bars.step(done, of)
            to = console if found.state == "done" else errors
            to.say(_line(found))

        summary = label_cohort(
            dataset, bundle, out, stage=stage.value, groups=group or (), step=step, tumor=tumor,
            device=device, threads=threads, options=options, on_case=on_case,
        )  # fmt: skip
    _close(console, summary)
    raise typer.Exit(summary.exit_code)


def _line(found: "Labelled") -> str:
    if found.state != "done":
        return f"{found.case}: {found.state}: {found.record['code']}: {found.record['message']}"
    if found.skipped:
        return f"{found.case}: done before, unchanged"
    truth, pseudo = found.record["truth_voxels"], found.record["pseudo_voxels"]
    return f"{found.case}: {truth} voxels of ground truth, {pseudo} pseudo-labelled"


def _close(console: "Console", summary: "LabelSummary") -> None:
    counts = summary.as_dict()["counts"]
    parts = [f"{number} {state}" for state, number in counts.items() if number]
    line = ", ".join(parts) or "no case to label: all that were asked for are annotated"
    console.say(line)
    if summary.settings["notice"]:
        notice = f"Notice: {summary.settings['notice']}"
        console.say(notice)
