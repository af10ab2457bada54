"""``cfseg ablate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli import networks

if TYPE_CHECKING:
    from cfseg.ablation.ablation import Ablation, CaseRows
    from cfseg.cli.console import Console


def ablate(
    work: Annotated[Path, typer.Argument(help="Workspace of cfseg train, or a bundle.")],
    cases: Annotated[
        Path, typer.Option("--cases", help="Test cases: imagesTr and labelsTr, fully labelled.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder [default: WORK/ablation].")
    ] = None,
    set_: networks.Overrides = None,
    device: networks.Device = "auto",
    threads: networks.Threads = None,
    backend: networks.Backend = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Tell what each model and each tumor weight is worth, as the paper's Tables 3 to 6 do.

    Rows: the coarse model (whole, and cut down as in the authors' code), two-stage, all three;
    tumor weight 1, weight 2, both. Scores are those of cfseg evaluate, with paired tests. Writes
    ablation.md, ablation.csv and ablation.json; finished cases are kept: run it again to go on.

    Exit codes: 0 all cases judged, 2 wrong call, 3 some refused, 4 none judged, 5 the model
    cannot be used, 6 disk or memory ran out.

    Example: cfseg ablate work --cases cohort/test
    """
    from cfseg.ablation.ablation import find_bundle
    from cfseg.dataset.problems import check_folder
    from cfseg.errors import UsageError

    if not work.exists():
        raise UsageError(f"there is no {work}; give a workspace of cfseg train or a bundle")
    if out is not None:
        check_folder(out)
    bundle = find_bundle(work)
    if out is None and bundle == work:
        raise UsageError(f"{work} is not a workspace with a bundle in it; say where to with --out")
    ablation = _ablate(
        bundle, cases, out or work / "ablation", tuple(set_ or ()), device, threads, backend,
        quiet=quiet,
    )  # fmt: skip
    raise typer.Exit(ablation.exit_code)


def _ablate(
    bundle: Path,
    cases: Path,
    out: Path,
    overrides: tuple[str, ...],
    device: str,
    threads: int | None,
    backend: str,
    *,
    quiet: bool,
) -> "Ablation":
    from cfseg.ablation.ablation import ablate as ablate_cases
    from cfseg.ablation.files import write_tables
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console
    from cfseg.dataset.cases import read_cases
    from cfseg.networks.device import find_device

    _use_threads(threads)
    found = read_cases(cases)
    console = Console(stderr=True, quiet=quiet)
    errors = Console(stderr=True)
    with Bars(console, "cases") as bars:
        bars.start(len(found))

        def on_case(case: "CaseRows", done: int, of: int) -> None:  # noqa: ARG001 - bars know
            bars.advance(done)
            if case.message:
                line = f"{case.case}: refused: {case.code}: {case.message}"
                errors.say(line)

        def on_window(case: str, stage: str, done: int, of: int) -> None:
            bars.below(f"{case}: {stage}", done, of)

        ablation = ablate_cases(
            bundle, found, out, find_device(device), overrides, on_case, on_window,
            backend=backend,
        )  # fmt: skip
    write_tables(out, ablation)
    if not quiet:
        _show(Console(), ablation)
        console.say(f"written to {out}")
    return ablation


def _show(console: "Console", ablation: "Ablation") -> None:
    from cfseg.ablation.tables import head, tables
    from cfseg.cli.judging import parts, rich_table

    console.say(head(ablation))
    for table in tables(ablation) if ablation.judged else ():
        console.say()
        for part in parts(table):
            console.show(rich_table(part))
        console.say(table.note)
    for note in ablation.notes:
        console.say(f"note: {note}")


def _use_threads(threads: int | None) -> None:
    import torch

    from cfseg.parallel import cores

    torch.set_num_threads(threads or cores())
