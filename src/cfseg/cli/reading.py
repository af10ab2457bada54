"""The options of commands that read scans: what to do with one that would be refused."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

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
    bool, typer.Option("--all-series", help="Each CT series of a DICOM study is a case.")
]
Series = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Which series of each study: its number, or 'description~TEXT'."
    ),
]
ForceModality = Annotated[
    bool, typer.Option("--force-modality", help="Read a DICOM series that says it is no CT.")
]
StrictGeometry = Annotated[
    bool, typer.Option("--strict-geometry", help="Refuse sheared scans (tilted gantry).")
]
OF_SCANS: dict[str, tuple[Any, Any]] = {
    "assume_orientation": (AssumeOrientation, None),
    "hu_offset": (HuOffset, None),
    "force_spacing": (ForceSpacing, False),
    "nonfinite": (Nonfinite, "refuse"),
    "volume_index": (VolumeIndex, None),
    "strict_geometry": (StrictGeometry, False),
}
"""Flag and default of what counts for every scan."""
OF_SERIES: dict[str, tuple[Any, Any]] = {
    "allow_gaps": (AllowGaps, False),
    "force_modality": (ForceModality, False),
}
"""Of what counts for a DICOM series too."""
OF_FOLDERS: dict[str, tuple[Any, Any]] = {
    "all_series": (AllSeries, False),
    "series": (Series, None),
}
"""Of what counts where a folder may hold several cases."""


def reading(*flags: dict[str, tuple[Any, Any]]) -> Callable[[Callable[..., None]], Any]:
    """Give a command some of the options above; it gets them as one, ``options``.

    Args:
        flags: of :data:`OF_SCANS`, :data:`OF_SERIES` and :data:`OF_FOLDERS`.
    """
    known = {name: flag for group in flags for name, flag in group.items()}

    def changed(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def called(**given: Any) -> None:  # noqa: ANN401 - typer's
            from cfseg.io import ReadingOptions

            options = ReadingOptions(**{name: given.pop(name) for name in known})
            command(**given, options=options)

        own = inspect.signature(command).parameters
        kept = [it for name, it in own.items() if name != "options"]
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [
            inspect.Parameter(name, kind, default=default, annotation=flag)
            for name, (flag, default) in known.items()
        ]
        called.__signature__ = inspect.Signature([*kept, *more])  # type: ignore[attr-defined]
        called.__annotations__ = {it.name: it.annotation for it in (*kept, *more)}
        return called

    return changed
