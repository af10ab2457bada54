"""The options of commands that read scans: what to do with one that would be refused."""

from typing import Annotated

import typer

AssumeOrientation = Annotated[
    str | None,
    typer.Option(
        metavar="LAS",
        help="Where the stored axes point to, for files that do not say so.",
    ),
]
HuOffset = Annotated[
    float | None,
    typer.Option(metavar="HU", help="Add this where values are not in HU, as in -1024."),
]
ForceSpacing = Annotated[
    bool, typer.Option("--force-spacing", help="Take an implausible spacing for right, in mm.")
]
Nonfinite = Annotated[
    str, typer.Option(metavar="refuse|air", help="What NaN and infinite voxels are.")
]
VolumeIndex = Annotated[
    int | None,
    typer.Option(min=0, metavar="K", help="Which volume of a file with several, from 0."),
]
AllowGaps = Annotated[
    bool, typer.Option("--allow-gaps", help="Interpolate missing or uneven DICOM slices.")
]
AllSeries = Annotated[
    bool, typer.Option("--all-series", help="Each series of a DICOM folder is a case.")
]
ForceModality = Annotated[
    bool, typer.Option("--force-modality", help="Read a DICOM series that says it is no CT.")
]
StrictGeometry = Annotated[
    bool, typer.Option("--strict-geometry", help="Refuse sheared scans (tilted gantry).")
]
