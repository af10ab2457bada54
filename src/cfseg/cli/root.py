"""The root command and its verbs."""

from dataclasses import dataclass
from typing import Annotated

import typer

from cfseg import __version__
from cfseg.cli.ablate import ablate
from cfseg.cli.benchmark import benchmark
from cfseg.cli.bundle import bundle_app
from cfseg.cli.compare import compare
from cfseg.cli.dataset import dataset_app
from cfseg.cli.demo import demo
from cfseg.cli.doctor import doctor
from cfseg.cli.evaluate import evaluate
from cfseg.cli.figure import figure
from cfseg.cli.findings import findings
from cfseg.cli.phantom import phantom
from cfseg.cli.predict import predict
from cfseg.cli.pseudo_label import pseudo_label
from cfseg.cli.report import report
from cfseg.cli.train import train

app = typer.Typer(
    name="cfseg",
    help="Coarse-to-fine segmentation of 13 abdominal organs and tumors in CT.\n\n"
    "Example: cfseg predict scans/ -o masks/",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would swallow what stands in square brackets
)


@dataclass
class Root:
    """What is asked of all commands.

    Attributes:
        debug: print the traceback of whatever ends a command.
    """

    debug: bool = False


def _version(wanted: bool) -> None:
    if wanted:
        from cfseg.cli.console import Console

        Console().say(f"cfseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback has printed it
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error too.")
    ] = False,
) -> None:
    if isinstance(context.obj, Root):
        context.obj.debug = debug


app.command()(predict)
app.command()(doctor)
app.command()(evaluate)
app.command()(compare)
app.command()(benchmark)
app.command()(findings)
app.command()(report)
app.command()(figure)
app.command()(demo)
app.command()(phantom)
app.command()(train)
app.command("pseudo-label")(pseudo_label)
app.command()(ablate)
app.add_typer(bundle_app, name="bundle")
app.add_typer(dataset_app, name="dataset")
