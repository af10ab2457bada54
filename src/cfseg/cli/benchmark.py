"""``cfseg benchmark``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cfseg.evaluation.programs import Benchmark, Program, Run


def benchmark(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="NIfTI files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the figures.")],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", "-m", help="Model bundle [default: the bundled one].")
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]COMMAND", help="Measure this too; may be given again."),
    ] = None,
    own: Annotated[bool, typer.Option(help="Measure cfseg predict.")] = True,
    device: Annotated[str, typer.Option(help="Of cfseg: auto, cpu, cuda or cuda:N.")] = "auto",
    gpu: Annotated[int, typer.Option(min=0, help="Index of the GPU to look at.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which a run is ended.")
    ] = None,
    plots: Annotated[bool, typer.Option(help="Draw the curves.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Measure time, GPU memory, RAM and CPU of cfseg and of other programs, by the same meter.

    A command says where its input and output go: {input} is the scan, {input_folder} a folder with
    it alone, {output} an empty folder. It is not run by a shell. Programs take turns, case by case.
    Writes benchmark.md, benchmark.csv and benchmark.json, and for each program the files of FLARE's
    own meter: NAME_Efficiency.csv, NAME/CASE.json and curves. Figures of a GPU need cfseg[gpu].

    Exit codes: 0 all measured, 2 wrong call, 3 some runs failed, 4 all failed, 6 the disk cannot
    be written.

    Example: cfseg benchmark scans/ -m bundle/ --command "other=python other.py {input} {output}"
    -o efficiency/
    """
    from cfseg.errors import UsageError
    from cfseg.evaluation.programs import own_program, program_of

    programs = [own_program(bundle, device)] if own else []
    programs += [program_of(text, number) for number, text in enumerate(command or (), start=1)]
    if not programs:
        raise UsageError("there is nothing to measure; give a --command or leave out --no-own")
    made = _measure(inputs, programs, out, gpu, timeout, plots=plots, quiet=quiet)
    raise typer.Exit(made.exit_code)


def _measure(
    inputs: list[Path],
    programs: "list[Program]",
    out: Path,
    gpu: int,
    timeout: float | None,
    *,
    plots: bool,
    quiet: bool,
) -> "Benchmark":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cfseg.cli.judging import rich_table
    from cfseg.evaluation.benchmark import benchmark as measure
    from cfseg.evaluation.benchmark import tables

    console = Console(stderr=True, quiet=quiet)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet) as bar:
        task = bar.add_task("runs", total=None)

        def on_run(run: "Run", done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)
            if run.message:
                line = f"{run.program}, {run.case}: failed: {run.message}"
                errors.print(line, highlight=False, markup=False, soft_wrap=True)

        made = measure(
            inputs, programs, out,
            gpu_index=gpu, timeout_seconds=timeout, plots=plots, on_run=on_run,
        )  # fmt: skip
    if not quiet:
        for table in tables(made):
            Console().print(rich_table(table))
        for note in made.notes:
            console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    return made
