"""``cfseg predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from cfseg.batch import CaseStatus, Summary
    from cfseg.segmenter import Segmenter


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="NIfTI files, a folder with one DICOM CT series, or folders of scans."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder; for one input also a .nii.gz file name.")
    ],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", "-m", help="Model bundle [default: the bundled one].")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override, as in region.margin_mm=30."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")] = None,
    backend: Annotated[
        str,
        typer.Option(help="auto, torch or openvino; auto: OpenVINO on a CPU if installed."),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, or int8 of a bundle that has it (OpenVINO only).")
    ] = "fp32",
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="As 3GB; what does not fit is refused.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Do finished cases again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Segment CTs: 13 organs and tumors, on each input's own grid.

    CASE_0000.nii.gz becomes OUT/CASE.nii.gz. What became of each input stands in
    OUT/status/CASE.json, all of it in OUT/summary.json. Run it again to go on after a stop.

    Exit codes: 0 all done, 2 wrong call, 3 some inputs refused or failed, 4 none done, 5 the model
    cannot be used, 6 disk or memory ran out.

    Example: cfseg predict scans/ -o masks/
    """
    from cfseg.segmenter import Segmenter

    segmenter = Segmenter(
        bundle,
        device,
        threads,
        tuple(set_ or ()),
        backend=backend,
        precision=precision,
        max_memory=max_memory,
    )
    summary = _predict(inputs, out, segmenter, overwrite=overwrite, quiet=quiet)
    raise typer.Exit(summary.exit_code)


def _predict(
    inputs: list[Path], out: Path, segmenter: "Segmenter", *, overwrite: bool, quiet: bool
) -> "Summary":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cfseg.batch import predict_many

    console = Console(stderr=True, quiet=quiet)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet) as bar:
        cases = bar.add_task("cases", total=None)
        windows = bar.add_task("", total=None, visible=False)

        def on_case(status: "CaseStatus", done: int, of: int) -> None:
            bar.update(cases, completed=done, total=of)
            bar.update(windows, visible=False)
            to = console if status.ok else errors
            to.print(_line(status), highlight=False, markup=False, soft_wrap=True)

        def on_window(case: str, stage: str, done: int, of: int) -> None:
            bar.update(
                windows, description=f"{case}: {stage}", completed=done, total=of, visible=True
            )

        summary = predict_many(
            inputs, out, segmenter, overwrite=overwrite, on_case=on_case, on_window=on_window
        )
    _close(console, summary)
    return summary


def _line(status: "CaseStatus") -> str:
    if not status.ok:
        return f"{status.case}: {status.state}: {status.code}: {status.message}"
    if status.skipped:
        return f"{status.case}: {status.state} before, unchanged"
    notes = "".join(f"\n  note: {note}" for note in status.record["notes"])
    return f"{status.case}: {status.state} in {status.record['seconds']['total']:.1f} s{notes}"


def _close(console: "Console", summary: "Summary") -> None:
    counts = summary.as_dict()
    parts = [f"{counts[k]} {k}" for k in ("done", "empty", "refused", "failed") if counts[k]]
    if summary.ignored:
        parts.append(f"{summary.ignored} other files ignored")
    if not summary.cases:
        parts.append("no CT found: give .nii.gz or .nii files, or folders with DICOM series")
    console.print(", ".join(parts), highlight=False, markup=False, soft_wrap=True)
    if summary.notice:
        console.print(f"Notice: {summary.notice}", highlight=False, markup=False, soft_wrap=True)
