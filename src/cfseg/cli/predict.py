"""``cfseg predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli import networks
from cfseg.cli.reading import OF_FOLDERS, OF_SCANS, OF_SERIES, reading

if TYPE_CHECKING:
    from cfseg.batch import CaseStatus, Naming, Summary
    from cfseg.cli.console import Console
    from cfseg.io import ReadingOptions
    from cfseg.segmenter import Segmenter


@reading(OF_SCANS, OF_SERIES, OF_FOLDERS)
def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            readable=False,  # one that may not be read costs itself alone
            help="Scans, archives of them, or folders that hold them at any depth.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder; for one input also a file name.")
    ],
    format: Annotated[
        str,
        typer.Option(metavar="nii.gz|nii|nrrd|mha|seg.nrrd", help="Of the label maps in OUT."),
    ] = "nii.gz",
    bundle: networks.Bundle = None,
    set_: networks.Overrides = None,
    device: networks.Device = "auto",
    threads: networks.Threads = None,
    backend: networks.Backend = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, or int8 of a bundle that has it (OpenVINO only).")
    ] = "fp32",
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="As 3GB; what does not fit is refused.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Do finished cases again.")] = False,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Measure organs and lesions too.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Do the i-th of N shares, for runs side by side."),
    ] = None,
    fail_on_empty: Annotated[
        bool, typer.Option("--fail-on-empty", help="No abdomen found counts as not done.")
    ] = False,
    names: Annotated[
        str,
        typer.Option(metavar="folder|number", help="Name cases after their folders, or count."),
    ] = "folder",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    *,
    options: "ReadingOptions",
) -> None:
    """Segment CTs: 13 organs and tumors, on each input's own grid.

    CASE_0000.nii.gz becomes OUT/CASE.nii.gz, a DICOM series OUT/FOLDER.nii.gz, with parent folders
    in front where names repeat (A__ct, B__ct); --names number counts instead, where folders carry
    patients' names. Of a DICOM study with several CT series, --series chooses one and --all-series
    takes each. What became of each input stands in OUT/status/CASE.json, all of it in
    OUT/summary.json and summary.csv. Run it again to go on after a stop; several runs may share one
    OUT, each case is done once. A refused scan names the option that lets it in, if there is one;
    cfseg doctor says so beforehand. With --statistics, OUT/statistics/CASE.json,
    OUT/statistics.csv and OUT/lesions.csv hold volumes, densities and lesions, as cfseg findings
    writes them.

    Exit codes: 0 all done, 2 wrong call, 3 some inputs refused or failed, 4 none done, 5 the model
    cannot be used, 6 disk or memory ran out, 130 or 143 stopped.

    Example: cfseg predict scans/ -o masks/
    """
    from cfseg.batch import naming, read_shard
    from cfseg.segmenter import Segmenter

    share = None if shard is None else read_shard(shard)
    segmenter = Segmenter(
        bundle, device, threads, tuple(set_ or ()), options=options, backend=backend,
        precision=precision, max_memory=max_memory,
    )  # fmt: skip
    summary = _predict(
        inputs, out, segmenter, overwrite=overwrite, statistics=statistics, shard=share,
        fail_on_empty=fail_on_empty, naming=naming(names), format=format, quiet=quiet,
    )  # fmt: skip
    raise typer.Exit(summary.exit_code)


def _predict(
    inputs: list[Path],
    out: Path,
    segmenter: "Segmenter",
    *,
    overwrite: bool,
    statistics: bool,
    shard: tuple[int, int] | None,
    fail_on_empty: bool,
    naming: "Naming",
    format: str,
    quiet: bool,
) -> "Summary":
    from cfseg.batch import predict_many
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console

    console = Console(stderr=True, quiet=quiet)
    errors = Console(stderr=True)
    with Bars(console, "cases") as bars:

        def on_case(status: "CaseStatus", done: int, of: int) -> None:  # noqa: ARG001 - bars know
            bars.advance(done)
            to = console if status.ok else errors
            for line in _lines(status):
                to.say(line)

        def on_window(case: str, stage: str, done: int, of: int) -> None:
            bars.below(f"{case}: {stage}", done, of)

        summary = predict_many(
            inputs, out, segmenter, overwrite=overwrite, statistics=statistics, shard=shard,
            fail_on_empty=fail_on_empty, naming=naming, format=format,
            on_look=bars.searching, on_start=bars.start, on_case=on_case, on_window=on_window,
        )  # fmt: skip
    for warning in summary.warnings:
        errors.say(f"warning: {warning}")
    _close(console, summary)
    return summary


def _lines(status: "CaseStatus") -> list[str]:
    if not status.ok:
        refused = f"{status.case}: {status.state}: {status.code}: {status.message}"
        return [refused, *(f"  {row}" for row in status.record.get("details", []))]
    if status.skipped:
        return [f"{status.case}: {status.state} before, unchanged"]
    notes = [f"  note: {note}" for note in status.record["notes"]]
    again = "; ".join(status.record.get("again", []))
    seconds = status.record["seconds"]["total"]
    changed = f", done again ({again})" if again else ""
    return [f"{status.case}: {status.state} in {seconds:.1f} s{changed}", *notes]


def _close(console: "Console", summary: "Summary") -> None:
    counts = summary.as_dict()
    parts = [f"{counts[k]} {k}" for k in ("done", "empty", "refused", "failed") if counts[k]]
    if summary.ignored:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in summary.ignored.items())
        parts.append(f"{counts['ignored']} others ignored ({reasons}; cfseg doctor names them)")
    console.say(", ".join(parts) or "no input falls to this share")
    if summary.notice:
        console.say(f"Notice: {summary.notice}")
