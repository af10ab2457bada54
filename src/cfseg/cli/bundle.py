"""``cfseg bundle``: make, import and look at model bundles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfseg.cli.networks import Threads
from cfseg.tables import shown

if TYPE_CHECKING:
    from cfseg.bundle.bundle import Manifest, Network
    from cfseg.cli.console import Table
    from cfseg.plan import Role

bundle_app = typer.Typer(
    no_args_is_help=True,
    help="Make, import and look at model bundles.\n\nExample: cfseg bundle show my-bundle",
)

Out = Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to make.")]
Name = Annotated[str | None, typer.Option(help="Of the model [default: the folder's name].")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a bundle of that name.")]
MODEL = "nnU-Net v2 folder Trainer__Plans__configuration."


@bundle_app.command()
def create(
    out: Out,
    coarse: Annotated[Path | None, typer.Option(metavar="DIR", help=MODEL)] = None,
    tumor: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help=f"{MODEL} Give it once or twice.")
    ] = None,
    organ: Annotated[Path | None, typer.Option(metavar="DIR", help=MODEL)] = None,
    recipe: Annotated[
        str, typer.Option(help="Name or .toml file; its [cascade] is put into the bundle.")
    ] = "paper",
    fold: Annotated[
        str | None, typer.Option(help="Of every folder: a number or all [default: the only one].")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="File name [default: checkpoint_final.pth, or _best].")
    ] = None,
    name: Name = None,
    notice: Annotated[str, typer.Option(help="Said with every output of the model.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Make a bundle of nnU-Net v2 model folders: any of the stages, tumor up to twice.

    The recipe's cascade is narrowed to the stages that are given.

    Exit codes: 0 made, 2 wrong call, 5 a model folder cannot be used, 6 the disk cannot be written.

    Example: cfseg bundle create --coarse C --tumor T1 --tumor T2 --organ O -o my-bundle
    """
    from cfseg.bundle.bundle import write_bundle
    from cfseg.errors import UsageError
    from cfseg.recipes.recipe import load

    folders: list[tuple[Role, Path]] = [("tumor", folder) for folder in tumor or ()]
    folders += [("coarse", coarse)] if coarse else []
    folders += [("organ", organ)] if organ else []
    if not folders:
        raise UsageError("no network is given; give at least one of --coarse, --tumor, --organ")
    chosen = load(recipe)
    networks = [_read(role, folder, fold, checkpoint) for role, folder in folders]
    provenance = {"recipe": chosen.name, "made_by": "cfseg bundle create"}
    _report(
        write_bundle(
            out,
            name or shown(out.name),
            networks,
            chosen.cascade,
            provenance,
            notice,
            overwrite=overwrite,
        )
    )


@bundle_app.command()
def import_v1(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="With the .pth files that the recipe names.")
    ],
    out: Out,
    recipe: Annotated[
        str, typer.Option(help="Name or .toml file with a [v1] table and a [cascade].")
    ] = "authors",
    name: Name = None,
    notice: Annotated[
        str | None, typer.Option(help="Said with every output [default: the recipe's].")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a bundle of the four networks that the paper's authors published (nnU-Net v1).

    Get coarse_model.pth, tumor_model_1.pth, tumor_model_2.pth and organ_model.pth from Zenodo
    record 8372563. They are read without running code from them.

    Exit codes: 0 made, 2 wrong call, 5 a file cannot be used, 6 the disk cannot be written.

    Example: cfseg bundle import-v1 downloads -o authors-model
    """
    from cfseg.bundle.bundle import write_bundle
    from cfseg.bundle.nnunet_v1 import read_v1_folder
    from cfseg.errors import UsageError
    from cfseg.recipes.recipe import load

    chosen = load(recipe)
    if chosen.v1 is None:
        raise UsageError(f"recipe {recipe} has no [v1] table; the recipe authors has one")
    networks = read_v1_folder(folder, chosen.v1)
    provenance = {"recipe": chosen.name, "made_by": "cfseg bundle import-v1"}
    _report(
        write_bundle(
            out,
            name or shown(out.name),
            networks,
            chosen.cascade,
            provenance,
            chosen.v1.notice if notice is None else notice,
            overwrite=overwrite,
        )
    )


@bundle_app.command()
def quantize(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    out: Out,
    calibration: Annotated[
        Path, typer.Option(metavar="DIR", help="Cohort whose scans the ranges are taken from.")
    ],
    check: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Labelled cohort of other scans."),
    ],
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Add int8 networks to a bundle, for cfseg predict --precision int8 on a CPU.

    They are kept only if the mean DSC on the check cohort falls by no more than the bundle's
    int8_dsc_loss (0.005 unless its recipe says otherwise).

    Exit codes: 0 written, 2 wrong call, 5 too much was lost or the bundle is damaged,
    6 the disk cannot be written.

    Example: cfseg bundle quantize my-bundle --calibration train --check held-out -o my-bundle-int8
    """
    from cfseg.cli.console import Console
    from cfseg.quantize import quantize as make

    report = Console(stderr=True).say
    made = make(bundle, calibration, check, out, report, threads, overwrite=overwrite)
    found = made.check
    report(f"{made.bundle}: mean DSC {found.dsc_fp32:.4f} in fp32, {found.dsc_int8:.4f} in int8")


@bundle_app.command()
def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to make.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="nnunetv2", help="What to write.")
    ] = "nnunetv2",
) -> None:
    """Write a bundle's networks as nnU-Net v2 model folders; stock nnU-Net predicts the same.

    Each network becomes DIR/Dataset9xx_STAGE/nnUNetTrainer__nnUNetPlans__3d_fullres, so that DIR
    can serve as nnUNet_results. The cascade stays behind: each folder labels whole scans.

    Exit codes: 0 written, 2 wrong call, 5 a network cannot be run by nnU-Net, 6 the disk cannot be
    written.

    Example: cfseg bundle export my-bundle --format nnunetv2 -o nnunet
    """
    from cfseg.bundle.export_v2 import export_bundle
    from cfseg.cli.console import Console
    from cfseg.errors import UsageError

    if format_ != "nnunetv2":
        raise UsageError(f"--format {format_}: nnunetv2 is what can be written")
    for folder in export_bundle(bundle, out):
        Console(stderr=True).say(str(folder))


@bundle_app.command()
def show(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="[default: the bundled model]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole manifest, as JSON.")] = False,
) -> None:
    """Show what a bundle holds: stages, grids, networks, cascade.

    Exit codes: 0 shown, 5 the bundle cannot be read.

    Example: cfseg bundle show my-bundle
    """
    from cfseg.bundle.manifest import default_bundle, digest, read_manifest
    from cfseg.cli.console import Console

    path = bundle or default_bundle()
    manifest = read_manifest(path)
    if json:
        Console().show_json(manifest.model_dump(mode="json"))
        return
    console = Console()
    console.show(_table(manifest))
    for line in _lines(manifest, digest(path)):
        console.say(line)


def _read(role: "Role", folder: Path, fold: str | None, checkpoint: str | None) -> "Network":
    from cfseg.bundle.nnunet_v2 import checkpoint_file, read_model_folder

    plan, weights = read_model_folder(folder, role, fold, checkpoint)
    file = checkpoint_file(folder, fold, checkpoint)
    model = folder.resolve()
    provenance = {
        "format": "nnU-Net v2 model folder",
        "dataset": model.parent.name,
        "model": model.name,
        "checkpoint": f"{file.parent.name}/{file.name}",
    }
    return role, plan, weights, provenance


def _report(path: Path) -> None:
    from cfseg.bundle.manifest import read_manifest
    from cfseg.cli.console import Console

    manifest = read_manifest(path)
    names = ", ".join(entry.name for entry in manifest.stages)
    Console(stderr=True).say(f"{path}: {names}")


def _table(manifest: "Manifest") -> "Table":
    from cfseg.cli.console import Table

    table = Table(title=manifest.name, title_justify="left")
    for column in ("stage", "spacing mm", "patch", "HU", "labels", "features", "sha256"):
        table.add_column(column, overflow="fold")
    for entry in manifest.stages:
        plan = entry.plan
        table.add_row(
            entry.name,
            " ".join(f"{mm:.3g}" for mm in plan.spacing_mm),
            " ".join(str(n) for n in plan.patch),
            f"{plan.intensity.lower:.0f} to {plan.intensity.upper:.0f}",
            str(len(plan.labels) - 1),
            " ".join(str(n) for n in plan.architecture.features),
            entry.sha256[:12],
        )
    return table


def _lines(manifest: "Manifest", digest: str) -> list[str]:
    values: dict[str, Any] = manifest.cascade.model_dump(mode="json")
    lines = [f"{key}: {_brief(value)}" for key, value in values.items()]
    found = manifest.int8_check
    if found is not None:
        lines.append(
            f"int8: mean DSC {found.dsc_fp32:.4f} in fp32, {found.dsc_int8:.4f} in int8, "
            f"on {found.cases} scans"
        )
    lines.append(f"digest: {digest}")
    return [*lines, f"notice: {manifest.notice}"] if manifest.notice else lines


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_brief(part)}" for key, part in value.items())
    return ",".join(str(part) for part in value) if isinstance(value, list) else str(value)
