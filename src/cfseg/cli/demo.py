"""``cfseg demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfseg.cli import networks

if TYPE_CHECKING:
    from cfseg.batch import CaseStatus
    from cfseg.cli.console import Console
    from cfseg.evaluation.scores import CaseScores

DEMO_SEED = 2025  # no training saw it; it has all organs and a tumor
"""No model of ours was trained on phantoms of this seed."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Another phantom.")] = DEMO_SEED,
    bundle: networks.Bundle = None,
    device: networks.Device = "auto",
    threads: networks.Threads = None,
) -> None:
    """Make a synthetic CT, segment it, judge it, draw it and write a report to look at.

    Exit codes: 0 done, 2 wrong call, 4 the CT could not be segmented, 5 the model cannot be used,
    6 disk or memory ran out.

    Example: cfseg demo -o demo
    """
    from cfseg.batch import predict_many
    from cfseg.cli.console import Console
    from cfseg.cli.evaluate import score_table
    from cfseg.evaluation.flare import evaluate
    from cfseg.io import read_label_map, read_scan
    from cfseg.phantoms.cohort import write_cohort
    from cfseg.reports.figures import montage
    from cfseg.reports.report import write_report
    from cfseg.segmenter import Segmenter

    console = Console()
    console.say(f"Making a synthetic CT (seed {seed}) ...")
    cohort = out / f"phantom_{seed}"
    write_cohort(cohort, cases=1, seed=seed)
    (image,) = sorted((cohort / "imagesTr").glob("*.nii.gz"))
    (reference,) = sorted((cohort / "labelsTr").glob("*.nii.gz"))
    segmenter = Segmenter(bundle, device, threads)
    console.say(f"Segmenting it with {segmenter.manifest.name} ...")
    masks = out / "prediction"
    summary = predict_many([image], masks, segmenter, statistics=True)
    (case,) = summary.cases
    if not case.ok:
        Console(stderr=True).say(f"{case.case}: {case.state}: {case.code}: {case.message}")
        raise typer.Exit(summary.exit_code)
    predicted, picture = masks / reference.name, out / "montage.png"
    label_map, _ = read_label_map(predicted)
    truth, _ = read_label_map(reference)
    montage(read_scan(image).volume, label_map, truth, picture, title=segmenter.notice)
    scores = evaluate(predicted, reference, out / "scores")
    console.show(score_table(scores))
    for line in missed(scores.cases[0], is_bundled=bundle is None):
        console.say(line)
    _print_seconds(console, case)
    for line in (*case.record["notes"], segmenter.notice):
        if line:
            console.say(line)
    console.say("Writing the report ...")
    index = write_report(masks, cohort / "labelsTr", to=out / "report", title="Demo").index
    paths = {"label map": predicted, "picture": picture, "report": index}
    for name, path in paths.items():
        console.say(f"{name + ':':10} {path}")


def missed(case: "CaseScores", *, is_bundled: bool) -> list[str]:
    """Return a sentence for each label that the reference has and the prediction (all but) misses.

    Args:
        case: its scores.
        is_bundled: the model is the one that comes with cfseg, whose tumors are known to be weak.
    """
    from cfseg.labels import NAMES, TUMOR

    lines = []
    for label in case.missed:
        name, ml = NAMES[label].replace("_", " "), case.reference_ml[label]
        line = (
            f"Missed: the reference has {ml:.1f} ml of {name}, and the prediction hardly matches "
            f"any of it (DSC {case.dsc[label]:.2f})."
        )
        if is_bundled and label == TUMOR.id:
            line += (
                " The bundled model was trained on few synthetic tumors and misses most of them; "
                "docs/results.md has the figures."
            )
        lines.append(line)
    return lines


def _print_seconds(console: "Console", case: "CaseStatus") -> None:
    from cfseg.cli.console import Table

    table = Table("step", "seconds")
    for name, seconds in case.record["seconds"].items():
        table.add_row(name, f"{seconds:.2f}")
    console.show(table)
