"""``cfseg benchmark``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli import networks

if TYPE_CHECKING:
    from cfseg.costs import CaseCost
    from cfseg.evaluation.programs import Benchmark, Program, Run
    from cfseg.segmenter import Segmenter


def benchmark(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="NIfTI files, or folders of them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the figures; --steps does without."),
    ] = None,
    bundle: networks.Bundle = None,
    command: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]COMMAND", help="Measure this too; may be given again."),
    ] = None,
    own: Annotated[bool, typer.Option(help="Measure cfseg predict.")] = True,
    steps: Annotated[
        bool, typer.Option("--steps", help="Measure the steps of cfseg itself instead.")
    ] = False,
    windows: Annotated[
        int | None,
        typer.Option(min=1, help="With --steps: windows that each fine network really runs."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of cfseg: auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="With --steps: CPU threads.")] = None,
    backend: Annotated[str, typer.Option(help="With --steps: auto, torch or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="With --steps: fp32 or int8.")] = "fp32",
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

    With --steps, what each network and each step of cfseg costs on this machine: windows, GFLOP,
    GFLOP/s as a share of a matrix product's in the same run, seconds, peak memory. -o FOLDER then
    keeps steps.json, steps.csv and stages.csv. --windows 3 is for networks that take minutes: the
    seconds of the fine ones are derived from three windows.

    Exit codes: 0 all measured, 2 wrong call, 3 some runs failed, 4 all failed, 5 the model cannot
    be used, 6 disk or memory ran out.

    Example: cfseg benchmark scans/ -m bundle/ --command "other=python other.py {input} {output}"
    -o efficiency/

    Example: cfseg benchmark ct.nii.gz --steps
    """
    from cfseg.errors import UsageError
    from cfseg.evaluation.programs import own_program, program_of

    if steps:
        from cfseg.segmenter import Segmenter

        if command or not own:
            raise UsageError("--steps measures cfseg alone; leave out --command and --no-own")
        segmenter = Segmenter(bundle, device, threads, backend=backend, precision=precision)
        raise typer.Exit(_measure_steps(inputs, segmenter, windows, out, quiet=quiet))
    if out is None:
        raise UsageError("give a folder for the figures: -o FOLDER")
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
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.cli.judging import rich_table
    from cfseg.evaluation.benchmark import benchmark as measure
    from cfseg.evaluation.benchmark import tables

    console = Console(stderr=True, quiet=quiet)
    errors = Console(stderr=True)
    with Bars(console, "runs") as bars:

        def on_run(run: "Run", done: int, of: int) -> None:
            bars.step(done, of)
            if run.message:
                line = f"{run.program}, {run.case}: failed: {run.message}"
                errors.say(line)

        made = measure(
            inputs, programs, out,
            gpu_index=gpu, timeout_seconds=timeout, plots=plots, on_run=on_run,
        )  # fmt: skip
    if not quiet:
        for table in tables(made):
            Console().show(rich_table(table))
        for note in made.notes:
            console.say(f"note: {note}")
    return made


def _measure_steps(
    inputs: list[Path],
    segmenter: "Segmenter",
    windows: int | None,
    out: Path | None,
    *,
    quiet: bool,
) -> int:
    """Measure scan after scan and return the exit code."""
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.costs import measure_case, write_costs
    from cfseg.errors import InputError, exit_code
    from cfseg.io import list_inputs

    scans = list_inputs(inputs, segmenter.options).inputs
    costs: list[CaseCost] = []
    codes: list[str] = []
    console = Console(stderr=True, quiet=quiet)
    with Bars(console, "scans") as bars:
        bars.start(len(scans))
        for number, scan in enumerate(scans, start=1):
            try:
                costs.append(measure_case(scan, segmenter, windows, bars.below))
            except InputError as error:
                codes.append(error.code)
                line = f"{scan.name}: refused: {error.code}: {error.message}"
                Console(stderr=True).say(line)
            bars.advance(number)
    if out is not None:
        write_costs(out, costs)
    if not quiet:
        _show(costs)
    return exit_code(len(costs), codes)


def _show(costs: "list[CaseCost]") -> None:
    from cfseg.cli.console import Console
    from cfseg.cli.judging import rich_table
    from cfseg.costs import tables

    console = Console()
    for cost in costs:
        for table in tables(cost):
            console.show(rich_table(table))
            if table.note:
                console.say(table.note)
        for note in cost.notes:
            console.say(f"note: {note}")
