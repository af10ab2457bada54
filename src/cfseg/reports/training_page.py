"""The page of a training: curves, chosen weights, cost, cases, and what the networks saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cfseg.io import without_paths, write_text
from cfseg.reports.curves import CurvePoint, best_point
from cfseg.reports.page import data_url, render
from cfseg.reports.stills import Still

_PNG = b"\x89PNG\r\n\x1a\n"
_NOTHING = "–"


@dataclass(frozen=True)
class TrainingPage:
    """What the page shows; names and values may be foreign text.

    Attributes:
        title: of the page.
        recipe: its name.
        notice: what a reader has to know of the models, may be empty.
        groups: cases of each group of the cohort.
        learned: cases that each network learned from.
        curves: the epochs of each network.
        cost: a row for each network, by column; ``network`` is its name.
        environment: machine and software.
        chosen: rows of the chosen weights, by column; ``network`` is the network's name.
        looks: PNGs to embed.
        left_out: why, by case.
    """

    title: str
    recipe: str
    notice: str
    groups: Mapping[str, int]
    learned: Mapping[str, int]
    curves: Mapping[str, Sequence[CurvePoint]]
    cost: Sequence[Mapping[str, str]]
    environment: Mapping[str, str]
    chosen: Sequence[Mapping[str, str]]
    looks: Sequence[Path]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class _Grid:
    """A table; columns of numbers are aligned at the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str]


def write_training_page(file: Path, page: TrainingPage, plot: Path) -> None:
    """Write the page: one HTML file that needs no other.

    Args:
        file: ends in ``.html``; its folder is made if needed.
        page: what it shows. A picture that cannot be read is left out, and the page says so.
        plot: of the curves, see :func:`cfseg.reports.curves.draw_curves`.

    Raises:
        ResourceError: the file cannot be written.
    """
    best = {network: best_point(points) for network, points in page.curves.items()}
    pictures = {look: _picture(look) for look in page.looks}
    reasons = [
        {"case": case, "reason": without_paths(reason)} for case, reason in page.left_out.items()
    ]
    text = render(
        "training.html.j2",
        page=page,
        best=best,
        plot=_plot(plot, best),
        chosen=_grid("network", page.chosen),
        cost=_grid("network", page.cost),
        left_out=_grid("case", reasons),
        looks=[picture for picture in pictures.values() if picture],
        missing=[look.name for look, picture in pictures.items() if not picture],
    )
    write_text(file, text)


def _plot(file: Path, best: Mapping[str, tuple[int, float] | None]) -> Still:
    """Return the curves; their text tells what matters in them."""
    told = [
        f"{network}, best score {at[1]:.3f} in epoch {at[0]}" if at else f"{network}, no score"
        for network, at in best.items()
    ]
    text = "; ".join(["Loss, score of validations and learning rate over epochs", *told])
    return Still("Learning curves", text, data_url(file.read_bytes(), "image/png"))


def _picture(look: Path) -> Still | None:
    """Return a PNG; None if it is not there or none."""
    try:
        content = look.read_bytes()
    except OSError:
        return None
    if not content.startswith(_PNG):
        return None
    title = look.stem.replace("_", " ").replace("-", " ")
    return Still(title, "Slices of CTs in gray, labels in color", data_url(content, "image/png"))


def _grid(first: str, rows: Sequence[Mapping[str, str]]) -> _Grid:
    """Return rows as a table whose column ``first`` comes first; a dash is where a row has none."""
    header = tuple(dict.fromkeys([first, *(name for row in rows for name in row)]))
    cells = tuple(tuple(row.get(name, _NOTHING) for name in header) for row in rows)
    columns = zip(header, zip(*cells, strict=True), strict=False)
    return _Grid(header, cells, frozenset(name for name, it in columns if all(map(_is_number, it))))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip(" %"))
    except ValueError:
        return cell == _NOTHING
    return True
