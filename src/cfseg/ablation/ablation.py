"""What each part of the method is worth: the scores behind the paper's Tables 3 to 6.

The rows are those of :mod:`cfseg.ablation.rows`, the tables are made by
:mod:`cfseg.ablation.tables`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfseg.ablation.rows import Variant, label_maps, rows_of, variants
from cfseg.bundle.bundle import digest, read_manifest
from cfseg.bundle.manifest import MANIFEST
from cfseg.dataset.cases import Case, present_labels, read_labels
from cfseg.dataset.digests import facts
from cfseg.errors import InputError, UsageError, exit_code
from cfseg.evaluation.flare import score_case
from cfseg.evaluation.scores import CaseScores
from cfseg.foreign import read_object
from cfseg.io import (
    SourceGrid,
    make_folder,
    read_label_map,
    read_scan,
    without_folders,
    write_json,
)
from cfseg.labels import NAMES
from cfseg.networks.backends import Backend, find_backend
from cfseg.recipes.recipe import with_overrides
from cfseg.volume import LabelMap, Volume

CASES = "cases"
_FORMAT = 2
"""Raised when rows or rules change, so that what was kept of older ones is not taken."""

OnCase = Callable[["CaseRows", int, int], None]
"""Called after each case with its scores, how many are done, of how many."""
OnWindow = Callable[[str, str, int, int], None]
"""Called with the case, the stage, windows done and windows in all."""


@dataclass(frozen=True)
class CaseRows:
    """The scores of one case.

    Attributes:
        case: its name.
        rows: scores by row, empty if the case was refused.
        code: of the error, else empty.
        message: of the error, else empty.
        skipped: it was done before and nothing changed.
        absent: labels that the reference does not have; where nothing was found either, flare23
            gives a score of 1.
    """

    case: str
    rows: dict[str, CaseScores]
    code: str = ""
    message: str = ""
    skipped: bool = False
    absent: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """The scores of all cases.

    Attributes:
        model: name of the bundle.
        digest: of the bundle.
        rows: the names of the rows that could be had.
        cases: all of them, refused ones too.
        notes: what a reader of the tables should know.
        backend: that ran the networks.
    """

    model: str
    digest: str
    rows: tuple[str, ...]
    cases: tuple[CaseRows, ...]
    notes: tuple[str, ...] = ()
    backend: Backend = "torch"

    @property
    def judged(self) -> tuple[CaseRows, ...]:
        """The cases that have scores."""
        return tuple(case for case in self.cases if case.rows)

    @property
    def exit_code(self) -> int:
        """See :func:`cfseg.errors.exit_code`."""
        return exit_code(len(self.judged), [case.code for case in self.cases if not case.rows])


def find_bundle(path: Path) -> Path:
    """Return the bundle of a workspace, or the path itself if it is a bundle."""
    inside = path / "bundle"
    return inside if (inside / MANIFEST).is_file() and not (path / MANIFEST).is_file() else path


def ablate(
    bundle: Path,
    cases: Sequence[Case],
    out: Path,
    device: torch.device,
    overrides: tuple[str, ...] = (),
    on_case: OnCase | None = None,
    on_window: OnWindow | None = None,
    *,
    backend: str = "auto",
) -> Ablation:
    """Score all rows on all cases; what was scored before with the same bundle is kept.

    Args:
        bundle: folder of a bundle.
        cases: fully labelled, of no training or selection set.
        out: gets ``cases/CASE.json``; the tables are written elsewhere.
        device: where networks run.
        overrides: ``KEY=VALUE`` for the cascade, for example ``region.margin_mm=30``.
        on_case: see :data:`OnCase`.
        on_window: see :data:`OnWindow`.
        backend: ``auto``, ``torch`` or ``openvino``, see :mod:`cfseg.networks.backends`.

    Returns:
        The scores. A case that is refused is recorded there and does not stop the others.

    Raises:
        UsageError: there are no cases, one has no label map, an override is unknown, or a backend
            is not there.
        ModelError: the bundle is damaged or has none of the rows.
        ResourceError: the folder cannot be written.
    """
    unlabelled = [case.name for case in cases if case.label is None]
    if unlabelled or not cases:
        what = f"{unlabelled[0]} has no label map" if unlabelled else "there are no cases"
        raise UsageError(f"{what}; give a folder with imagesTr and labelsTr, all cases labelled")
    manifest, model = read_manifest(bundle), digest(bundle)
    cascade = with_overrides(manifest.cascade, overrides)
    names, notes = rows_of(manifest)
    found_backend = find_backend(backend, device)
    settings = [_FORMAT, model, cascade.model_dump(mode="json"), names, found_backend]
    run = _Run(partial(variants, bundle, manifest, cascade, names, device, found_backend))
    make_folder(out / CASES)
    done: list[CaseRows] = []
    for case in cases:
        file, key = out / CASES / f"{case.name}.json", _sha256([*settings, facts([case])])
        found = _kept(file, key)
        if found is None:
            found = run.case(case, on_window)
            if found.rows:
                write_json(file, {"digest": key} | as_record(found))
        done.append(found)
        if on_case is not None:
            on_case(found, len(done), len(cases))
    return Ablation(manifest.name, model, names, tuple(done), notes, found_backend)


class _Run:
    """The rows of a bundle; networks are loaded when the first case needs them."""

    def __init__(self, load: Callable[[], tuple[Variant, ...]]) -> None:
        self.load = load
        self.rows: tuple[Variant, ...] = ()

    def case(self, case: Case, on_window: OnWindow | None) -> CaseRows:
        self.rows = self.rows or self.load()

        def on_progress(stage: str, done: int, of: int) -> None:
            if on_window is not None:
                on_window(case.name, stage, done, of)

        try:
            volume, truth, source = _read(case)
        except InputError as error:
            told = without_folders(error.message, case.image, case.label)
            return CaseRows(case.name, {}, error.code, told)
        made = label_maps(volume, self.rows, on_progress)
        there = present_labels(truth)
        return CaseRows(
            case.name,
            {row.name: _scores(made[row.name], truth, source, row, case) for row in self.rows},
            absent=tuple(label for label in NAMES if label not in there),
        )


def _read(case: Case) -> tuple[Volume, LabelMap, SourceGrid]:
    if case.label is None:
        raise InputError(f"{case.name} has no label map; take it out of the cases")
    volume, truth = read_scan(case.image).volume, read_labels(case)
    if not truth.geometry.matches(volume.geometry):
        raise InputError(
            f"{case.name}: scan and label map lie on different grids; resample the label map to "
            "the scan's grid",
            code="E_GRID",
        )
    return volume, truth, read_label_map(case.label)[1]


def _scores(
    found: LabelMap, truth: LabelMap, source: SourceGrid, row: Variant, case: Case
) -> CaseScores:
    """Score on the axes of the reference's file, as ``cfseg evaluate`` does."""
    i, j, k = (float(zoom) for zoom in source.header.get_zooms()[:3])
    pred, ref = (np.asfortranarray(source.to_stored(m.ids)) for m in (found, truth))
    return score_case(pred, ref, (i, j, k), row.labels, case=case.name)


def as_record(case: CaseRows) -> dict[str, Any]:
    """Return a case as JSON, with null where a score is not defined."""
    record: dict[str, Any] = {"case": case.case}
    if case.message:
        return record | {"code": case.code, "message": case.message}
    rows = {
        name: {"dsc": _by_name(scores.dsc), "nsd": _by_name(scores.nsd)}
        for name, scores in case.rows.items()
    }
    return record | {"absent": [NAMES[label] for label in case.absent], "rows": rows}


def _by_name(scores: dict[int, float]) -> dict[str, float | None]:
    return {NAMES[label]: None if np.isnan(s) else s for label, s in scores.items()}


def _by_id(scores: dict[str, float | None]) -> dict[int, float]:
    ids = {name: label for label, name in NAMES.items()}
    return {ids[name]: float("nan") if s is None else float(s) for name, s in scores.items()}


def _kept(file: Path, key: str) -> CaseRows | None:
    """Return a case's scores if they were made with the same bundle, settings and files."""
    try:
        record = read_object(file)
        if record["digest"] != key:
            return None
        name = str(record["case"])
        rows = {
            row: CaseScores(name, _by_id(scores["dsc"]), _by_id(scores["nsd"]))
            for row, scores in record["rows"].items()
        }
        absent = tuple(_by_id(dict.fromkeys(record["absent"], 1.0)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return CaseRows(name, rows, skipped=True, absent=absent)


def _sha256(what: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
