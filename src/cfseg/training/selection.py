"""Which of the kept weights go into the bundle (paper 2.2: "the best ... on online validation").

At the end of training the kept weights of each network are ranked by the whole cascade on a
separate, fully labelled selection set. It goes greedily, one network after the other in the order
of the cascade, the others held at their current choice. What counts is the final mask: coarse and
organ candidates are judged by the organs, tumor candidates by the tumor.

What a network said about a scan is remembered, so only what follows from a candidate is predicted
anew. Each score is written down at once: a ranking that was stopped goes on where it was.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from cfseg.dataset.cases import Case, read_labels
from cfseg.dataset.digests import facts
from cfseg.errors import InputError, UsageError
from cfseg.evaluation.metrics import dice
from cfseg.foreign import Stored, read_object
from cfseg.inference.cascade import Stages, segment_volume
from cfseg.inference.packed_memory import PackedMemory
from cfseg.inference.predictor import Stage
from cfseg.io import make_folder, read_scan, write_json
from cfseg.labels import ORGAN_IDS, TUMOR
from cfseg.recipes.recipe import Cascade
from cfseg.training.candidates import NETWORKS, Candidate, role_of
from cfseg.volume import LabelMap, Volume

SCORES = "scores.json"
_REPORT_EVERY = 10

Report = Callable[[str], None]
Choice = Mapping[str, Candidate]
"""A candidate for each network."""


@dataclass(frozen=True)
class Row:
    """What a candidate was worth.

    Attributes:
        network: ``coarse``, ``tumor_1``, ``tumor_2`` or ``organ``.
        checkpoint: of the candidate.
        epoch: of the candidate.
        cases: of the selection set.
        organ_dsc: mean over cases and the 13 organs, 0 to 1.
        tumor_dsc: mean over cases, 0 to 1.
        chosen: whether it goes into the bundle.
    """

    network: str
    checkpoint: str
    epoch: int
    cases: int
    organ_dsc: float
    tumor_dsc: float
    chosen: bool


@dataclass(frozen=True)
class Selection:
    """The winners, and the table that made them so; a network with one candidate has no rows."""

    chosen: dict[str, Candidate]
    rows: tuple[Row, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the networks; JSON."""
        winners = {
            network: {"checkpoint": c.checkpoint, "epoch": c.epoch, "digest": c.digest}
            for network, c in self.chosen.items()
        }
        return {"chosen": winners, "table": [dict(vars(row)) for row in self.rows]}

    def lines(self) -> list[str]:
        """Return the table as plain lines, DSC in percent."""
        return [
            f"{row.network}: epoch {row.epoch}: organs {row.organ_dsc:.2%}, "
            f"tumor {row.tumor_dsc:.2%}{' (chosen)' if row.chosen else ''}"
            for row in self.rows
        ]


def select(
    candidates: Mapping[str, Sequence[Candidate]],
    cascade: Cascade,
    cases: Sequence[Case],
    folder: Path,
    report: Report,
) -> Selection:
    """Rank the candidates of each network by the whole cascade; of equals the first wins.

    Args:
        candidates: by network, best by validation first: that one is its first choice.
        cascade: how the networks work together.
        cases: the selection set, fully labelled, of no training set.
        folder: gets ``scores.json``.
        report: gets lines of progress and the table.

    Raises:
        UsageError: a network without candidates; no cases, or one without a label map.
        InputError: a case cannot be read.
        ResourceError: the folder cannot be written.
    """
    for network, rivals in candidates.items():
        role_of(network)
        if not rivals:
            raise UsageError(f"{network} has no weights to choose from; train it first")
    chosen = {name: candidates[name][0] for name in NETWORKS if name in candidates}
    rivalries = [name for name in chosen if len(candidates[name]) > 1]
    if not rivalries:
        return Selection(chosen)
    unlabelled = [case.name for case in cases if case.label is None]
    if unlabelled or not cases:
        what = f"{unlabelled[0]} has no label map" if unlabelled else "there are no cases"
        raise UsageError(f"selection set: {what}; every case needs all labels")
    ranking = _Ranking(cascade, cases, folder, report)
    rows: list[Row] = []
    for network in rivalries:
        chosen[network], found = ranking.rank(network, candidates[network], chosen)
        rows += found
    selection = Selection(chosen, tuple(rows))
    for line in selection.lines():
        report(f"  {line}")
    return selection


class _Ranking:
    """The scores so far, the loaded networks and what they said."""

    def __init__(
        self, cascade: Cascade, cases: Sequence[Case], folder: Path, report: Report
    ) -> None:
        self.cascade, self.cases, self.folder, self.report = cascade, cases, folder, report
        self.facts = {case.name: facts([case]) for case in cases}
        self.scores = _read_scores(folder / SCORES)
        self.loaded: dict[str, Stage] = {}
        self.memories = {case.name: PackedMemory() for case in cases}

    def rank(
        self, network: str, rivals: Sequence[Candidate], others: Choice
    ) -> tuple[Candidate, list[Row]]:
        """Score all candidates of one network and return the best, and the table's rows."""
        trials = [dict(others) | {network: rival} for rival in rivals]
        for number, case in enumerate(self.cases, 1):
            missing = [t for t in trials if self.key(t, case) not in self.scores]
            if missing:
                self.score_case(case, missing)
            if number % _REPORT_EVERY == 0 or number == len(self.cases):
                self.report(f"  {network}: {len(rivals)} candidates on {number} cases")
        measure = "tumor_dsc" if role_of(network) == "tumor" else "organ_dsc"
        means = [{m: self.mean(t, m) for m in ("organ_dsc", "tumor_dsc")} for t in trials]
        best = max(range(len(rivals)), key=lambda i: means[i][measure])
        self.forget(network, rivals, rivals[best])
        return rivals[best], [
            Row(
                network, c.checkpoint, c.epoch, len(self.cases), mean["organ_dsc"],
                mean["tumor_dsc"], i == best,
            )
            for i, (c, mean) in enumerate(zip(rivals, means, strict=True))
        ]  # fmt: skip

    def key(self, choice: Choice, case: Case) -> str:
        """Return the digest of all that decides a score."""
        what = {
            "networks": {network: c.digest for network, c in choice.items()},
            "backends": sorted({c.backend for c in choice.values()}),
            "cascade": self.cascade.model_dump(mode="json"),
            "case": self.facts[case.name],
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def mean(self, choice: Choice, measure: str) -> float:
        return float(np.mean([self.scores[self.key(choice, c)][measure] for c in self.cases]))

    def score_case(self, case: Case, choices: Sequence[Choice]) -> None:
        volume, truth = _read(case)
        for choice in choices:
            stages = self.stages(choice)
            memory = self.memories[case.name]
            found = segment_volume(volume, stages, self.cascade, memory=memory).label_map
            organs, tumor = dsc_of(found, truth)
            about = {"case": case.name} | {name: c.checkpoint for name, c in choice.items()}
            score = {"organ_dsc": organs, "tumor_dsc": tumor}
            self.scores[self.key(choice, case)] = about | score
            make_folder(self.folder)
            write_json(self.folder / SCORES, self.scores)

    def stages(self, choice: Choice) -> Stages:
        loaded = {network: self.stage(network, c) for network, c in choice.items()}
        tumor = tuple(stage for stage in loaded.values() if stage.role == "tumor")
        return Stages(loaded.get("coarse"), tumor, loaded.get("organ"))

    def stage(self, network: str, candidate: Candidate) -> Stage:
        name = _name(network, candidate)
        if name not in self.loaded:
            self.loaded[name] = replace(candidate.load(), name=name)
        return self.loaded[name]

    def forget(self, network: str, rivals: Sequence[Candidate], best: Candidate) -> None:
        """Let go of the losers' weights and masks."""
        losers = {_name(network, rival) for rival in rivals if rival.digest != best.digest}
        for name in losers:
            self.loaded.pop(name, None)
        for memory in self.memories.values():
            for names, box in [key for key in memory if losers.intersection(key[0])]:
                del memory[names, box]


def dsc_of(found: LabelMap, truth: LabelMap) -> tuple[float, float]:
    """Return the mean DSC of the 13 organs and the DSC of the tumor, 0 to 1.

    A label in neither map scores 1, in one only 0, as in the official evaluation; its other rules
    and the NSD would take minutes per case and are left for the test set.
    """
    scores = {label: _dsc(found, truth, label) for label in (*ORGAN_IDS, TUMOR.id)}
    return float(np.mean([scores[label] for label in ORGAN_IDS])), scores[TUMOR.id]


def _dsc(found: LabelMap, truth: LabelMap, label: int) -> float:
    dsc = dice(found.ids == label, truth.ids == label)
    return 1.0 if np.isnan(dsc) else dsc


def _read(case: Case) -> tuple[Volume, LabelMap]:
    volume, truth = read_scan(case.image).volume, read_labels(case)
    if not truth.geometry.matches(volume.geometry):
        raise InputError(
            f"{case.name}: scan and label map lie on different grids; repair it, or take it out "
            "of the selection set",
            code="E_GRID",
        )
    return volume, truth


def _name(network: str, candidate: Candidate) -> str:
    return f"{network} {candidate.digest}"


class _Score(Stored):
    organ_dsc: float
    tumor_dsc: float


_KIND = TypeAdapter(dict[str, _Score])


def _read_scores(path: Path) -> dict[str, dict[str, Any]]:
    """Return the scores of an earlier run; they cannot be half written, so others are no loss."""
    try:
        return read_object(path, _KIND)
    except (OSError, ValueError):
        return {}
