"""Good and bad cases beside each other, after the paper's Figs. 3 to 5.

Each row is a slice of a case, each column what a method makes of it, the last one the reference.
Where a method differs from the reference it is outlined, and arrows point to the largest
differences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from cfseg.errors import InputError, UsageError, exit_code
from cfseg.findings.agreement import dice_by_label
from cfseg.geometry import Triple
from cfseg.io import (
    Input,
    case_names,
    files_in,
    list_inputs,
    names_of,
    read_label_map,
    read_scan,
    replacing,
)
from cfseg.labels import ORGANS, TUMOR
from cfseg.reports.figures import BACKGROUND, DPI, draw_legend, draw_panel
from cfseg.reports.places import organ_center, tumor_center
from cfseg.tables import shown
from cfseg.volume import LabelMap, Volume

ARROWS = 2
"""At most so many arrows point into a picture."""
ARROW_MM2 = 60.0
"""Smaller differences get no arrow."""
ARROW_COLOR, OUTLINE_COLOR = "#ff3b30", "#ffffff"
_ROW_INCHES = 2.9

OnCase = Callable[[int, int], None]
"""Called with the cases looked at and all."""
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A case with its reference and what each method made of it.

    Attributes:
        name: its id.
        ct: its CT.
        reference: its reference.
        masks: the label map of each method.
    """

    name: str
    ct: Input
    reference: Path
    masks: Mapping[str, Path]


@dataclass(frozen=True)
class Figures:
    """What was drawn.

    Attributes:
        pictures: their files.
        used: ids of the cases that were looked at and, if so chosen, drawn.
        refused: why each other case is left out, by its id.
    """

    pictures: tuple[Path, ...]
    used: tuple[str, ...]
    refused: Mapping[str, InputError]

    @property
    def exit_code(self) -> int:
        """0 if no case is left out, 3 if some are, 4 if all are."""
        return exit_code(len(self.used), [error.code for error in self.refused.values()])


@dataclass(frozen=True)
class Row:
    """One row of a figure.

    Attributes:
        title: of the row.
        volume: (Z, Y, X) in HU.
        maps: label map of each column, the reference last.
        place: the voxel whose axial slice is shown.
        of: labels whose differences count.
    """

    title: str
    volume: Volume
    maps: Mapping[str, LabelMap]
    place: Triple
    of: tuple[int, ...]


def write_figures(
    images: Path,
    reference: Path,
    masks: Mapping[str, Path],
    out: Path,
    cases: Sequence[str] = (),
    on_case: OnCase | None = None,
) -> Figures:
    """Write ``good-and-bad.png``, ``bad-organs.png`` and, with tumors, ``bad-tumors.png``.

    Cases are ranked by the Dice coefficients of the last method: the two best and the two worst
    by the mean of the organs, three with the worst single organs, three with the worst tumors.

    Args:
        images: folder of CTs.
        reference: folder of references.
        masks: folder of label maps of each method, by name; the last one is what is judged.
        out: folder for the pictures.
        cases: ids of the cases to choose from; all that have all files by default.
        on_case: see :data:`OnCase`.

    Raises:
        UsageError: a folder is not there, or no method is given.
        InputError: ``E_NO_CASES``, no case has all files.
        ResourceError: the disk refuses.
    """
    if not masks:
        raise UsageError("no label maps to show: give --masks NAME=FOLDER at least once")
    found = find_cases(images, reference, masks, cases)
    method = list(masks)[-1]
    scores: dict[str, dict[str, float]] = {}
    refused: dict[str, InputError] = {}
    for number, case in enumerate(found, start=1):
        try:
            scores[case.name] = _scores(case, method)
        except InputError as error:
            refused[case.name] = error
        if on_case is not None:
            on_case(number, len(found))
    written = []
    judged = [case for case in found if case.name in scores]
    for name, methods, chosen in _plan(judged, scores, list(masks)):
        rows = []
        for case, about in chosen:
            try:
                rows.append(_row(case, methods, about, scores[case.name]))
            except InputError as error:
                refused[case.name] = error
        if rows:
            figure = draw_rows(rows)
            written.append(out / f"{name}.png")
            with replacing(written[-1]) as temporary:
                figure.savefig(temporary, format="png", dpi=DPI, facecolor=BACKGROUND)
    return Figures(tuple(written), tuple(sorted(set(scores) - set(refused))), refused)


def _scores(case: Case, method: str) -> dict[str, float]:
    made, truth = read_label_map(case.masks[method])[0], read_label_map(case.reference)[0]
    _check_grid(case.name, made, truth)
    return dice_by_label(made, truth)


def _check_grid(case: str, label_map: LabelMap, other: LabelMap | Volume) -> None:
    if not label_map.geometry.matches(other.geometry):
        raise InputError(
            f"{case}: CT, reference and label maps lie on different grids; resample them to the "
            "CT's",
            code="E_GRID",
        )


def find_cases(
    images: Path, reference: Path, masks: Mapping[str, Path], cases: Sequence[str] = ()
) -> list[Case]:
    """Return the cases that have a CT, a reference and a label map of every method.

    Raises:
        UsageError: a folder is not there.
        InputError: ``E_NO_CASES``, there is none.
    """
    named = case_names(list_inputs([images]).inputs)
    scans = {case: found for found, case in named.items()}
    truths = _label_maps(reference)
    by_method = {name: _label_maps(folder) for name, folder in masks.items()}
    whole = [
        name
        for name in sorted(scans)
        if name in truths and all(name in maps for maps in by_method.values())
    ]
    chosen = [name for name in whole if not cases or name in cases]
    if not chosen:
        raise InputError(
            f"no case has a CT in {images}, a reference in {reference} and label maps in "
            f"{', '.join(map(str, masks.values()))}; files are named by case, CASE.nii.gz",
            code="E_NO_CASES",
        )
    return [
        Case(name, scans[name], truths[name], {key: maps[name] for key, maps in by_method.items()})
        for name in chosen
    ]


def good_and_bad(scores: Mapping[str, float], each: int = 2) -> tuple[list[str], list[str]]:
    """Return the best and the worst names, best first in both; none is in both.

    Args:
        scores: by name, higher is better.
        each: how many of both; of fewer names than ``2 * each`` the good ones are half.
    """
    ordered = sorted(scores, key=lambda name: (-scores[name], name))
    good = ordered[: min(each, (len(ordered) + 1) // 2)]
    rest = ordered[len(good) :]
    return good, rest[-each:]


def _plan(
    cases: Sequence[Case], scores: Mapping[str, Mapping[str, float]], methods: list[str]
) -> list[tuple[str, list[str], list[tuple[Case, str]]]]:
    """Return for each picture its name, its methods, and cases with what they are shown for."""
    by_name = {case.name: case for case in cases}
    organs = {name: _of_organs(values) for name, values in scores.items()}
    means = {name: sum(it.values()) / len(it) for name, it in organs.items() if it}
    good, bad = good_and_bad(means)
    worst = sorted(means, key=lambda name: min(organs[name].values()))[:3]
    tumors = {name: values[TUMOR.name] for name, values in scores.items() if TUMOR.name in values}
    missed = sorted(tumors, key=lambda name: tumors[name])[:3]
    last = methods[-1:]
    shown_for = {
        "good-and-bad": [*((name, "good") for name in good), *((name, "bad") for name in bad)],
        "bad-organs": [(name, min(organs[name], key=organs[name].__getitem__)) for name in worst],
        "bad-tumors": [(name, TUMOR.name) for name in missed],
    }
    return [
        (
            picture,
            methods if picture == "good-and-bad" else last,
            [(by_name[name], about) for name, about in pairs],
        )
        for picture, pairs in shown_for.items()
    ]


def _of_organs(scores: Mapping[str, float]) -> dict[str, float]:
    return {organ.name: scores[organ.name] for organ in ORGANS if organ.name in scores}


def _row(case: Case, methods: Sequence[str], about: str, scores: Mapping[str, float]) -> Row:
    """Read a case and choose the slice that shows what it is shown for."""
    volume = read_scan(case.ct).volume
    maps = {name: read_label_map(case.masks[name])[0] for name in methods}
    reference = read_label_map(case.reference)[0]
    for label_map in (reference, *maps.values()):
        _check_grid(case.name, label_map, volume)
    judged = maps[methods[-1]]
    ids = {organ.name: (organ.id,) for organ in (*ORGANS, TUMOR)}
    labels = ids.get(about, tuple(organ.id for organ in ORGANS))
    wrong = _differences(judged.ids, reference.ids, labels)
    place = None
    if about == "good":
        place = organ_center(reference.ids)
    elif about == TUMOR.name:
        place = tumor_center(reference.ids)
    if place is None and wrong.any():
        place = (int(wrong.sum(axis=(1, 2)).argmax()), 0, 0)
    place = place or organ_center(reference.ids) or (0, 0, 0)
    organs = _of_organs(scores)
    mean = sum(organs.values()) / max(1, len(organs))
    score = f"DSC {scores[about]:.2f}" if about in scores else f"mean DSC {mean:.2f}"
    title = f"{shown(case.name)}\n{about.replace('_', ' ')}, {score}"
    return Row(title, volume, {**maps, "reference": reference}, place, labels)


def draw_rows(rows: Sequence[Row]) -> Figure:
    """Return a figure of several cases; axes carry row number and column as their label."""
    columns = max((list(row.maps) for row in rows), key=len)
    figure = Figure(
        figsize=(0.8 + 3.3 * len(columns), _ROW_INCHES * len(rows) + 1.5), facecolor=BACKGROUND
    )
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    grid = figure.add_gridspec(
        len(rows), len(columns), left=0.7 / width, right=0.99, wspace=0.02, hspace=0.16,
        bottom=1.05 / height, top=1 - 0.45 / height,
    )  # fmt: skip
    for number, row in enumerate(rows):
        for column, (name, label_map) in enumerate(row.maps.items()):
            axes = figure.add_subplot(grid[number, column], label=f"{number} {name}")
            draw_panel(axes, row.volume, label_map, "axial", row.place, (0, 0, 0))
            axes.set_title(
                shown(f"{name}, z = {row.place[0]}"), color="#d5dbe1", fontsize=10,
                parse_math=False,
            )  # fmt: skip
            if name != "reference":
                _mark(axes, row, label_map)
        figure.axes[-len(row.maps)].set_ylabel(
            row.title, color="white", fontsize=9, parse_math=False
        )
    draw_legend(figure, [label_map for row in rows for label_map in row.maps.values()])
    return figure


def _mark(axes: Axes, row: Row, label_map: LabelMap) -> None:
    """Outline what differs from the reference and point to the largest differences."""
    z = row.place[0]
    wrong = _differences(label_map.ids[z], row.maps["reference"].ids[z], row.of)
    if not wrong.any():
        return
    axes.contour(wrong.astype(float), levels=[0.5], colors=OUTLINE_COLOR, linewidths=0.8)
    _, dy, dx = row.volume.geometry.spacing_mm
    height, width = wrong.shape
    for y, x in largest_differences(wrong, dy * dx):
        outwards = np.array([x - width / 2, y - height / 2])
        outwards = outwards / max(1.0, float(np.linalg.norm(outwards)))
        tail = np.array([x, y]) + outwards * 0.2 * min(height, width)
        axes.annotate(
            "", xy=(x, y), xytext=(float(tail[0]), float(tail[1])),
            arrowprops={"color": ARROW_COLOR, "width": 1.6, "headwidth": 7, "headlength": 7},
        )  # fmt: skip


def largest_differences(wrong: _Mask, pixel_mm2: float) -> list[tuple[float, float]]:
    """Return a pixel (y, x) in each of the largest connected parts of a slice's differences."""
    parts, count = ndimage.label(wrong, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * pixel_mm2
    found = []
    for part in np.argsort(-sizes, kind="stable")[:ARROWS]:
        if sizes[part] >= ARROW_MM2:
            rows, columns = np.nonzero(parts == part + 1)
            nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            found.append((float(rows[nearest]), float(columns[nearest])))
    return found


def _differences(
    ids: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], labels: Sequence[int]
) -> _Mask:
    """Return where one of the labels is in one map and not in the other."""
    counted = np.isin(ids, labels) | np.isin(reference, labels)
    return np.asarray(counted & (ids != reference))


def _label_maps(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files_in(folder):
        for name in names_of(path):
            found.setdefault(name, path)
    return found
