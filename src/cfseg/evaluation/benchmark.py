"""What programs use, measured in one run: figures per case, FLARE's files, the paper's tables."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfseg.evaluation.cells import NOTHING, spread_cell
from cfseg.evaluation.efficiency import FLARE_HEADER, Efficiency, flare_record, flare_row
from cfseg.evaluation.meter import cores, find_gpu
from cfseg.evaluation.programs import Benchmark, OnRun, Program, Run, run_all
from cfseg.evaluation.tables import versions
from cfseg.io import make_folder, write_json, write_text
from cfseg.tables import Table, csv_text, markdown

_ROWS: tuple[tuple[str, str], ...] = (
    ("seconds", "Running Time (s)"),
    ("work_seconds", "Running Time without start-up (s)"),
    ("max_gpu_mb", "Max GPU (MB)"),
    ("total_gpu_mb_s", "Total GPU (MB s)"),
    ("process_max_gpu_mb", "Max GPU, own processes (MB)"),
    ("process_total_gpu_mb_s", "Total GPU, own processes (MB s)"),
    ("max_ram_mb", "Max RAM (MB)"),
    ("total_ram_mb_s", "Total RAM (MB s)"),
    ("process_max_ram_mb", "Max RAM, own processes (MB)"),
    ("process_total_ram_mb_s", "Total RAM, own processes (MB s)"),
    ("max_cpu_percent", "Max CPU (%)"),
    ("total_cpu_percent_s", "Total CPU (% s)"),
    ("process_cpu_seconds", "CPU time, own processes (s)"),
)
_CASE_COLUMNS = ("seconds", "work_seconds", "max_gpu_mb", "total_gpu_mb_s")
_NO_GPU_COLUMNS = ("process_max_ram_mb", "process_total_ram_mb_s")


def benchmark(
    inputs: Sequence[Path],
    programs: Sequence[Program],
    out: Path,
    *,
    gpu_index: int = 0,
    timeout_seconds: float | None = None,
    plots: bool = True,
    on_run: OnRun | None = None,
) -> Benchmark:
    """Measure programs on scans and write what was found.

    Args:
        inputs: NIfTI files or folders of them.
        programs: see :func:`cfseg.evaluation.programs.program_of` and ``own_program``.
        out: folder for ``benchmark.md``, ``.csv`` and ``.json``, and for each program FLARE's
            ``NAME/CASE.json``, ``NAME_Efficiency.csv`` and plots.
        gpu_index: the GPU to look at.
        timeout_seconds: after which a run is ended and has failed.
        plots: whether to draw the curves.
        on_run: called after each run.

    Raises:
        UsageError: an input is not there, or two programs have the same name.
        InputError: ``E_NO_CASES``, there are no scans.
        ResourceError: the folder cannot be written.
    """
    out = Path(out)
    make_folder(out)
    gpu, note = find_gpu(gpu_index)
    runs = run_all(inputs, programs, gpu, timeout_seconds, on_run)
    made = Benchmark(tuple(programs), runs, tuple(filter(None, (note,))))
    write_benchmark(out, made)
    if plots:
        from cfseg.evaluation.curves import write_curves

        for run in runs:
            if run.figures is not None:
                write_curves(out / run.program, run)
    return made


def write_benchmark(out: Path, made: Benchmark) -> None:
    """Write all files but the plots; each appears whole or not at all.

    Raises:
        ResourceError: the folder cannot be written.
    """
    for program in made.programs:
        runs = made.of(program)
        for run in runs:
            record = flare_record(run.samples, _figures(run).seconds)
            write_json(out / program.name / f"{run.case}.json", record)
        rows = [flare_row(run.case, run.samples, _figures(run).seconds) for run in runs]
        header = [name for name in FLARE_HEADER if all(name in row for row in rows)]
        text = csv_text(header, ([row[name] for name in header] for row in rows))
        write_text(out / f"{program.name}_Efficiency.csv", text)
    write_text(out / "benchmark.csv", runs_csv(made))
    write_json(out / "benchmark.json", as_json(made))
    write_text(out / "benchmark.md", page(made))


def page(made: Benchmark) -> str:
    """Return the tables as Markdown."""
    failed = [f"{r.program}, {r.case}: failed: {r.message}" for r in made.runs if r.message]
    head = f"One run, programs in turns, {cores()} cores; mean ± SD over cases."
    return markdown("Benchmark", head, tables(made), (*made.notes, *failed))


def tables(made: Benchmark) -> list[Table]:
    """Return the paper's Table 7, and Tables 8 and 9 for each program."""
    return [
        _means_table(made),
        *(_cases_table(made, program) for program in made.programs if made.of(program)),
    ]


def runs_csv(made: Benchmark) -> str:
    """Return one row per run that was measured; columns that no run has are absent."""
    measured = [run for run in made.runs if run.figures is not None]
    columns = _there(measured, [name for name, _ in _ROWS])
    header = ("program", "case", "image_size", *columns)
    rows = (
        (r.program, r.case, _size(r), *(_figures(r).as_dict().get(name, "") for name in columns))
        for r in measured
    )
    return csv_text(header, rows)


def as_json(made: Benchmark) -> dict[str, Any]:
    """Return everything but what the meter saw, which is in the cases' files."""
    return {
        "programs": {program.name: list(program.words) for program in made.programs},
        "runs": [
            {"program": run.program, "case": run.case, "image_size": list(run.image_size)}
            | ({"error": run.message} if run.figures is None else run.figures.as_dict())
            for run in made.runs
        ],
        "cores": cores(),
        "notes": list(made.notes),
        "versions": versions(),
    }


def _means_table(made: Benchmark) -> Table:
    measured = [run for run in made.runs if run.figures is not None]
    titles = dict(_ROWS)
    rows = [
        (titles[name], *(_mean_cell(made.of(program), name) for program in made.programs))
        for name in _there(measured, list(titles))
    ]
    counts = (
        f"{len(made.of(program))} of {sum(run.program == program.name for run in made.runs)}"
        for program in made.programs
    )
    failed = len(measured) < len(made.runs)
    return Table(
        "Efficiency",
        ("Efficiency index", *(program.name for program in made.programs)),
        (*rows, ("cases measured", *counts)),
        "In the shape of the paper's Table 7. Total: area under the curve over time. Without "
        "start-up: from the moment the program first read the scan. Figures that do not say own "
        "processes are of the whole machine, other programs included."
        + (" A run that failed is in no mean, so it does not cost the program." if failed else ""),
    )


def _cases_table(made: Benchmark, program: Program) -> Table:
    runs, titles = made.of(program), dict(_ROWS)
    columns = _there(runs, _CASE_COLUMNS)
    if "max_gpu_mb" not in columns:
        columns += _there(runs, _NO_GPU_COLUMNS)
    rows = tuple((run.case, _size(run), *(_cell(run, name) for name in columns)) for run in runs)
    header = ("Case ID", "Image Size", *(titles[name] for name in columns))
    return Table(program.name, header, rows, "In the shape of the paper's Tables 8 and 9.")


def _there(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Return those of the names that a run has a figure for."""
    return [name for name in names if any(name in _figures(run).as_dict() for run in runs)]


def _figures(run: Run) -> Efficiency:
    if run.figures is None:
        raise ValueError(f"the run of {run.program} on {run.case} was not measured")
    return run.figures


def _mean_cell(runs: Sequence[Run], name: str) -> str:
    return spread_cell([_figures(run).as_dict().get(name, math.nan) for run in runs], scale=1)


def _cell(run: Run, name: str) -> str:
    value = _figures(run).as_dict().get(name)
    return NOTHING if value is None else f"{value:.2f}"


def _size(run: Run) -> str:
    return f"({', '.join(map(str, run.image_size))})" if run.image_size else NOTHING
