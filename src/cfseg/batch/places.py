"""Where the inputs of a folder of results lie, and which case each of them is.

Paths may name patients, so no status, summary or report holds one. They are kept apart, in hidden
files that only their owner can read: ``OUT/.inputs/CASE``. Leave them out when you pass OUT on.
"""

import json
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cfseg.batch.claims import claimed
from cfseg.errors import InputError, UsageError
from cfseg.io import (
    AS_IS,
    Input,
    ReadingOptions,
    case_names,
    list_inputs,
    make_folder,
    name_at,
    replacing,
)

FOLDER = ".inputs"
Naming = Literal["folder", "number"]
Identity = tuple[str, str, int]
_NUMBERED = re.compile(r"case_(\d+)")


def naming(name: str) -> Naming:
    """Return a way of naming cases.

    Raises:
        UsageError: there is no such one.
    """
    if name not in ("folder", "number"):
        raise UsageError(f"--names {name}: give folder or number")
    return "folder" if name == "folder" else "number"


def name_inputs(out: Path, inputs: Sequence[Input], naming: Naming = "folder") -> dict[Input, str]:
    """Return the name of each input's case.

    A name once given stays: what is written down goes before what the inputs' own names say.

    Args:
        out: folder of results.
        inputs: all of a run.
        naming: ``folder`` names a case after its file or folder, ``number`` counts.

    Raises:
        UsageError: two inputs would have the same name.
    """
    known = _remembered(out)
    names = _numbers(inputs, known) if naming == "number" else case_names(inputs)
    present = {found.identity for found in inputs}
    held = {place: case.lower() for place, case in known.items() if _root(place) is not None}
    for found in inputs:
        before = known.get(found.identity)
        # A folder refused as a whole once may now give a series: that takes over its name.
        others = {
            case for place, case in held.items()
            if place in present or place[0] != found.identity[0]
        }  # fmt: skip
        names[found] = _free(names[found], found, others) if before is None else before
    _check_twins(names)
    return names


def remember_inputs(
    out: Path, inputs: Sequence[Input], naming: Naming = "folder"
) -> dict[Input, str]:
    """Return what :func:`name_inputs` does, and write down where each case lies.

    Raises:
        UsageError: as there.
        ResourceError: the disk refuses.
    """
    make_folder(out / FOLDER)
    with claimed(out / FOLDER / ".lock", wait=True):
        known = _remembered(out)
        names = name_inputs(out, inputs, naming)
        for found in inputs:
            if known.get(found.identity) != names[found]:
                _remember(out, names[found], found)
    return names


def _free(name: str, found: Input, held: Container[str]) -> str:
    """Return a name that no other input has had, with parent folders in front where needed."""
    for depth in range(1, len(found.shown.absolute().parts)):
        if name.lower() not in held:
            break
        name = name_at(found, depth)
    number = 2
    while name.lower() in held:
        name, number = f"{name_at(found, 0)}_{number}", number + 1
    return name


def _numbers(inputs: Sequence[Input], known: Mapping[Identity, str]) -> dict[Input, str]:
    numbers = [int(it[1]) for case in known.values() if (it := _NUMBERED.fullmatch(case))]
    new = [found for found in inputs if found.identity not in known]
    first = max(numbers, default=0) + 1
    names = {found: f"case_{number:04d}" for number, found in enumerate(new, start=first)}
    return {found: names.get(found, "") for found in inputs}


def _check_twins(names: Mapping[Input, str]) -> None:
    seen: dict[str, Input] = {}
    for found, name in names.items():
        twin = seen.setdefault(name.lower(), found)
        if twin is not found:
            raise UsageError(
                f"{twin.shown} and {found.shown} would both become {name}; rename one or run them "
                "apart"
            )


def _remembered(out: Path) -> dict[Identity, str]:
    """Return the case of each input that was ever written down."""
    folder = out / FOLDER
    if not folder.is_dir():
        return {}
    places = {path.name: _place(path) for path in folder.iterdir() if path.name[0] != "."}
    return {place: case for case, place in places.items() if place is not None}


def _place(path: Path) -> Identity | None:
    """Return where the input of a case lies, as written down; None if that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        found: dict[str, Any] = json.loads(text) if text.startswith("{") else {"path": text}
    except (OSError, ValueError, RecursionError):
        return None
    place, series = found.get("path"), found.get("series", "")
    acquisition = found.get("acquisition", 0)
    if not (isinstance(place, str) and isinstance(series, str) and isinstance(acquisition, int)):
        return None
    return None if "\0" in place else (place, series, acquisition)


def _remember(out: Path, case: str, found: Input) -> None:
    path, series, acquisition = found.identity
    place = {"path": path, "series": series, "acquisition": acquisition}
    with replacing(out / FOLDER / case) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(place), encoding="utf-8")


def inputs_by_case(images: Path, options: ReadingOptions = AS_IS) -> dict[str, Input]:
    """Return the scans of a folder, or one scan, by what their cases are called.

    Raises:
        UsageError: there is no ``images``.
    """
    listing = list_inputs([images], replace(options, all_series=options.series is None))
    return {name: found for found, name in case_names(listing.inputs).items()}


def find_input(
    out: Path,
    case: str,
    images: Mapping[str, Input] | None = None,
    options: ReadingOptions = AS_IS,
) -> Input:
    """Return the input of a case.

    Args:
        out: folder of results.
        case: its id.
        images: of :func:`inputs_by_case`, which go before what is written down.
        options: with which its scan is read.

    Raises:
        InputError: ``E_MISSING``, it is not there.
    """
    if images and case in images:
        return images[case]
    place = _place(out / FOLDER / case)
    there = None if place is None else _there(place, options)
    if there is None:
        raise InputError(
            f"{case}: its CT is not where it was, or was never written down; say where the CTs are "
            "with --images",
            code="E_MISSING",
        )
    return there


def _root(place: Identity) -> Path | None:
    """Return the file or folder of an input, or the archive that it is in; None if it is gone."""
    path = Path(place[0])
    # Unlike Path.exists and is_file, these take what may not be looked at.
    if os.path.exists(path):  # noqa: PTH110
        return path
    return next((it for it in path.parents if os.path.isfile(it)), None)  # noqa: PTH113


def _there(place: Identity, options: ReadingOptions) -> Input | None:
    """Return the input that lies where it was written down."""
    root = _root(place)
    if root is None:
        return None
    every = list_inputs([root], replace(options, all_series=True, series=None)).inputs
    same = next((found for found in every if found.identity == place), None)
    if same is not None or place[1] or str(root) != place[0]:
        return same
    return next(iter(every), None)  # an earlier cfseg wrote down the folder of a series alone
