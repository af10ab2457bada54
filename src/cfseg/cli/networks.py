"""The options of commands that run networks: which ones, and what runs them."""

from pathlib import Path
from typing import Annotated

import typer

Bundle = Annotated[
    Path | None, typer.Option("--bundle", "-m", help="Model bundle [default: the bundled one].")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override, as in region.margin_mm=30."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")]
Backend = Annotated[
    str, typer.Option(help="auto, torch or openvino; auto: OpenVINO on a CPU if installed.")
]
