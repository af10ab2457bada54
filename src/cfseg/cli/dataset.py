"""``cfseg dataset check``, ``groups`` and ``atlas``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli.reading import OF_SCANS, reading

if TYPE_CHECKING:
    from cfseg.cli.console import Table
    from cfseg.dataset.check import CheckedCase, CheckSummary
    from cfseg.dataset.groups import Grouping
    from cfseg.dataset.problems import Problem
    from cfseg.io import ReadingOptions
    from cfseg.phantoms.conversion import Converted

dataset_app = typer.Typer(
    help="What a cohort holds: bad cases, and the paper's groups; anatomy from label maps.\n\n"
    "Example: cfseg dataset groups cohort -o groups",
    no_args_is_help=True,
)

Dataset = Annotated[
    Path,
    typer.Argument(
        help="Folder (imagesTr, labelsTr, unlabel*; nnU-Net's; the Decathlon's) or manifest.json."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for the files [default: none written].")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Files read at a time; 0: one per core, at most 4.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]

_MOST_ROWS = 40
_MOST_PATTERNS = 12


@dataset_app.command()
@reading(OF_SCANS)
def check(
    dataset: Dataset,
    out: Out = None,
    write_manifest: Annotated[
        bool, typer.Option("--write-manifest", help="And OUT/manifest.json of the good cases.")
    ] = False,
    workers: Workers = 0,
    quiet: Quiet = False,
    *,
    options: "ReadingOptions",
) -> None:
    """Read every scan and label map of a cohort and list the cases that cannot be used.

    A case is bad if a file is damaged, is not a CT in HU or has no known orientation, if scan and
    label map lie on different grids, if the label map has values that mean nothing, or if it is
    empty although annotated. Warnings leave a case good: annotated_not_present,
    present_not_annotated, empty_label, duplicate_scan (the same voxels under two names) and situs
    (organs on the wrong side of each other). Writes check.json and check.csv. With
    --write-manifest, train on OUT/manifest.json: the cohort without its bad cases. With options of
    reading, a case is good if cfseg pseudo-label can use it with the same ones; cfseg train takes
    none of them.

    Exit codes: 0 all good, 2 wrong call, 3 some bad, 4 all bad or none found, 6 the disk cannot be
    written. Warnings change none of them.

    Example: cfseg dataset check cohort -o checked --write-manifest
    """
    from cfseg.cli.console import Console
    from cfseg.dataset.check import check as check_cohort

    _needs_out(write_manifest, out)
    with _progress(quiet) as advance:

        def on_case(_case: "CheckedCase", done: int, of: int) -> None:
            advance(done, of)

        summary = check_cohort(
            dataset, out, manifest=write_manifest, workers=workers, options=options,
            on_case=on_case,
        )  # fmt: skip
    _print_problems(summary.problems)
    if not summary.cases:
        _print_nothing(dataset)
    elif not quiet:
        _print_problems(summary.warnings)
        Console().show(check_table(summary))
    raise typer.Exit(summary.exit_code)


@dataset_app.command()
def groups(
    dataset: Dataset,
    out: Out = None,
    write_manifest: Annotated[
        bool, typer.Option("--write-manifest", help="And OUT/manifest.json: what is annotated.")
    ] = False,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Sort a cohort into the paper's groups 1 to 6: unlabelled, tumor, some organs, all organs.

    What is annotated stands in manifest.json, {case: [label ids]}, and then no scan need be there;
    without one, the labels that are present count, which takes reading them all: --write-manifest
    keeps what was found. Writes groups.json and groups.png.

    Exit codes: 0 all cases in a group, 2 wrong call, 3 some refused, 4 all refused or none found,
    6 the disk cannot be written.

    Example: cfseg dataset groups cohort -o groups
    """
    from cfseg.cli.console import Console
    from cfseg.dataset.groups import groups as group_cohort

    _needs_out(write_manifest, out)
    with _progress(quiet) as advance:
        grouping = group_cohort(
            dataset, out, manifest=write_manifest, workers=workers, progress=advance
        )
    if out is not None:
        from cfseg.reports.groups import groups_figure

        groups_figure(grouping, out / "groups.png")
    _print_problems(grouping.refused)
    if not grouping.cases and not grouping.refused:
        _print_nothing(dataset)
    elif not quiet:
        Console().show(groups_table(grouping), pattern_table(grouping))
        _print_absent(grouping)
        _print_without_scan(grouping)
    raise typer.Exit(grouping.exit_code)


@dataset_app.command()
def atlas(
    maps: Annotated[list[Path], typer.Argument(help="Label maps, or folders of them.")],
    classes: Annotated[
        Path, typer.Option(help="Class table as JSON: {id: name}; names of tissues decide.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the atlases.")],
    source: Annotated[
        str, typer.Option(help="Where the maps come from and their license; kept in each atlas.")
    ],
    spacing: Annotated[float, typer.Option(min=0.5, help="Of the atlases, mm.")] = 3.0,
    complete: Annotated[
        bool, typer.Option("--complete", help="Give them a body, and the organs they lack.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Turn label maps of any class table into atlases: anatomy to render scans from.

    Writes NAME.nii.gz (tissue classes, for any viewer) and NAME.json (source, volumes, gaps
    between neighbors) for each map. What a map does not name is unknown. With --complete, fat,
    muscle and skin are drawn around its bones, and organs that it lacks are fitted in from another
    map of the call; a map of organs alone gets its whole body so, or a phantom's if no map has
    bones. That takes some ten seconds a map, once: what is there is kept.

    A map is refused if its organs lie on the wrong side of each other (E_SITUS), if it has ids
    without a name (E_LABELS), if air touches its organs (E_BODY) or if nothing can be fitted to it
    (E_ORGANS).

    Exit codes: 0 all done, 2 wrong call, 3 some refused, 4 all refused, 6 the disk cannot be
    written.

    Example: cfseg dataset atlas maps --classes classes.json --source "AMOS, CC BY 4.0" -o atlases
    """
    from cfseg.cli.console import Console
    from cfseg.errors import exit_code
    from cfseg.phantoms.conversion import convert

    console, errors = Console(quiet=quiet), Console(stderr=True)

    def on_map(converted: "Converted", _done: int, _of: int) -> None:
        (errors if converted.error else console).say(converted.line)

    made = convert(
        maps, classes, out, source=source, spacing_mm=spacing, complete=complete, on_map=on_map
    )
    refused = [it.error.code for it in made if it.error is not None]
    raise typer.Exit(exit_code(len(made) - len(refused), refused))


def check_table(summary: "CheckSummary") -> "Table":
    """Return how many cases are good, and how many problems and warnings there are by name."""
    from cfseg.cli.console import Table

    table = Table("", title=f"{len(summary.cases)} cases, {summary.layout}")
    table.add_column("cases", justify="right")
    table.add_row("good", str(len(summary.good)))
    table.add_row("bad", str(summary.bad))
    if summary.warnings:
        table.add_row("with warnings", str(sum(bool(case.warnings) for case in summary.cases)))
    for counts in (summary.codes, summary.warning_codes):
        table.add_section()
        for code, count in counts.items():
            table.add_row(code, str(count))
    return table


def groups_table(grouping: "Grouping") -> "Table":
    """Return the sizes of the groups 1 to 6."""
    from cfseg.cli.console import Table
    from cfseg.dataset.groups import MEANING

    table = Table("group", "what", title=f"{len(grouping.cases)} cases, {grouping.layout}")
    table.add_column("cases", justify="right")
    for number, size in grouping.groups.sizes().items():
        table.add_row(str(number), MEANING[number], str(size))
    return table


def pattern_table(grouping: "Grouping") -> "Table":
    """Return the most frequent sets of annotated labels."""
    from cfseg.cli.console import Table

    table = Table("annotated")
    table.add_column("cases", justify="right")
    for ids, count in grouping.patterns[:_MOST_PATTERNS]:
        table.add_row(_words(ids), str(count))
    rest = grouping.patterns[_MOST_PATTERNS:]
    if rest:
        table.add_row(f"{len(rest)} other sets", str(sum(count for _, count in rest)))
    return table


def _words(ids: tuple[int, ...]) -> str:
    from cfseg.labels import LABELS, NAMES, ORGAN_IDS, TUMOR

    missing = [NAMES[i].replace("_", " ") for i in ORGAN_IDS if i not in ids]
    tumor = " + tumor" if TUMOR.id in ids else ""
    if not ids:
        return "nothing"
    if len(missing) <= 3:
        but = f" but {', '.join(missing)}" if missing else ""
        return f"all organs{but}{tumor}"
    organs = [b.abbreviation for b in LABELS if b.id in ids and b is not TUMOR]
    return ", ".join(organs) + tumor


def _print_absent(grouping: "Grouping") -> None:
    from cfseg.cli.console import Console
    from cfseg.labels import NAMES

    flagged = grouping.perhaps_absent
    if flagged:
        first = list(flagged.items())[:5]
        listed = ", ".join(f"{name} ({NAMES[organ]})" for name, organ in first)
        more = f" and {len(flagged) - 5} more in groups.json" if len(flagged) > 5 else ""
        Console(stderr=True).say(
            f"{len(flagged)} cases lack one organ of an otherwise full set: {listed}{more}. If it "
            'was removed, say so in manifest.json: {case: {"absent": [id]}}'
        )


def _print_without_scan(grouping: "Grouping") -> None:
    from cfseg.cli.console import Console

    if missing := len(grouping.without_scan):
        Console(stderr=True).say(
            f"no scan was found of {missing} of {len(grouping.cases)} cases; groups need none, "
            "cfseg dataset check and cfseg train do"
        )


def _print_problems(problems: "tuple[Problem, ...]") -> None:
    from cfseg.cli.console import Console

    errors = Console(stderr=True)
    lines = [problem.line for problem in problems[:_MOST_ROWS]]
    if len(problems) > _MOST_ROWS:
        lines.append(f"and {len(problems) - _MOST_ROWS} more {problems[0].severity}s")
    for line in lines:
        errors.say(line)


def _print_nothing(dataset: Path) -> None:
    """Say what was looked for where nothing was found."""
    from cfseg.cli.console import Console
    from cfseg.dataset.layouts import EXPECTED

    Console(stderr=True).say(f"{dataset}: no scans and no label maps found; {EXPECTED}")


def _needs_out(write_manifest: bool, out: Path | None) -> None:
    from cfseg.errors import UsageError

    if write_manifest and out is None:
        raise UsageError("--write-manifest needs -o: the folder that gets manifest.json")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    from cfseg.cli.bars import Bars
    from cfseg.cli.console import Console

    with Bars(Console(stderr=True, quiet=quiet), "cases") as bars:
        yield bars.step
