"""The cases that a network learns from: stored once, and split (paper 2.1 and 3.2)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter

from cfseg.dataset.cases import Case
from cfseg.dataset.digests import facts
from cfseg.dataset.splits import split
from cfseg.errors import ModelError
from cfseg.feed.chunked import Chunked
from cfseg.feed.planning import plan_stage
from cfseg.feed.store import Origin, Size, Store, StoredCase, plan_bytes, prune, survey
from cfseg.foreign import read_object
from cfseg.io import read_scan, write_json
from cfseg.plan import StagePlan
from cfseg.training.curriculum import Learner
from cfseg.training.steps import Report, json_digest
from cfseg.training.trained import read_plan, write_plan
from cfseg.volume import LabelMap, Volume

CASES = "cases.json"
STORE = "cases"
"""Folder of a workspace that has what is stored of all cases."""
OnCase = Callable[[str, int, int], None]


class Lesson(NamedTuple):
    """What a network learns from.

    Attributes:
        plan: of the network.
        learned: the cases that it learns from.
        held_out: the cases that it is validated with.
    """

    plan: StagePlan
    learned: tuple[StoredCase, ...]
    held_out: tuple[StoredCase, ...]


def prepare(learner: Learner, report: Report, jobs: int = 0, on_case: OnCase | None = None) -> None:
    """Plan a network and store its cases with the labels to be learned; goes on after a stop.

    Args:
        learner: the network.
        report: gets a line if cases are left out.
        jobs: threads, each with a case in memory; 0: as many as cores, up to four.
        on_case: is told what is being done, of how many cases it is, and how many there are.

    Raises:
        InputError: a case cannot be read, or lies on another grid than its labels.
        ResourceError: ``E_DISK``.
    """
    training, cases = learner.training, learner.cases_now()
    if len(cases) < len(learner.cases):
        left_out = len(learner.cases) - len(cases)
        report(f"{left_out} cases left out: their labels changed most between rounds")
    root, origins = learner.work / STORE, [origin_of(learner, case) for case in cases]
    told = [partial(on_case, f"{learner.key}: {what}") if on_case else None for what in _DOING]
    seen = survey(origins, root / "facts", training.z_margin_slices, jobs, told[0])
    plan = plan_stage(learner.role, learner.stage, seen)
    report(
        f"{in_words(plan_bytes(seen, plan), plan)}; Hounsfield units {plan.intensity.lower:.0f} "
        f"to {plan.intensity.upper:.0f}"
    )
    stored = {case.name: case for case in Store(root, plan).write(origins, seen, jobs, told[1])}
    parts = split(list(stored), training.validation_fraction, training.seed)
    listed = [[[name, *_files(stored[name], root)] for name in part] for part in parts]
    write_plan(learner.folder, plan)
    write_json(learner.folder / CASES, {"learned": listed[0], "held_out": listed[1]})


_DOING = ("read cases", "store cases")


def in_words(size: Size, plan: StagePlan) -> str:
    """Return what cases will take on a network's grid."""
    spacing = " x ".join(f"{mm:.2f}" for mm in plan.spacing_mm)
    return (
        f"{size.cases} cases on a grid of {spacing} mm: {_bytes(size.stored)} on disk, "
        f"{_bytes(size.stored / max(1, size.cases))} a case"
    )


def _bytes(number: float) -> str:
    unit, name = (1e9, "GB") if number >= 1e9 else (1e6, "MB")
    return f"{number / unit:.0f} {name}" if number >= 10 * unit else f"{number / unit:.2g} {name}"


def origin_of(learner: Learner, case: Case) -> Origin:
    """Return a case as it is stored for a network, and what decides it."""
    truth = facts([case], learner.digests)[0]
    labels = [truth, learner.labels.digest(case), learner.role == "tumor"]

    def read() -> tuple[Volume, LabelMap]:
        volume = read_scan(case.image, case=case.name).volume
        return volume, LabelMap(learner.target(case, volume.geometry), volume.geometry)

    return Origin(case.name, json_digest(truth[:1] + truth[2:3]), json_digest(labels), read)


def _files(case: StoredCase, root: Path) -> list[str]:
    return [part.file.relative_to(root).as_posix() for part in (case.hu, case.labels)]


_ROW = Annotated[list[str], Field(min_length=3, max_length=3)]
_LISTED = TypeAdapter(dict[str, list[_ROW]])


def read_lesson(learner: Learner) -> Lesson:
    """Return what :func:`prepare` stored for a network.

    Raises:
        ModelError: some of it is gone.
    """
    plan, found = read_plan(learner.folder), _listed(learner.folder / CASES)
    root = learner.work / STORE
    learned, held_out = (
        tuple(_stored(root, *row) for row in found[part]) for part in ("learned", "held_out")
    )
    return Lesson(plan, learned, held_out)


def is_whole(learner: Learner) -> bool:
    """Say whether all that :func:`prepare` stored for a network is still there."""
    try:
        read_lesson(learner)
    except ModelError:
        return False
    return True


def _stored(root: Path, name: str, hu_file: str, labels_file: str) -> StoredCase:
    hu, labels = (Chunked.find(root / file) for file in (hu_file, labels_file))
    if hu is None or labels is None:
        raise ModelError(
            f"{root}: what was stored of {name} is damaged or gone; run cfseg train again, which "
            "stores it anew"
        )
    return StoredCase(name, hu, labels)


def _listed(file: Path) -> dict[str, list[list[str]]]:
    try:
        return read_object(file, _LISTED)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file}: cannot be read; run cfseg train again, which writes it anew"
        ) from error


def remove_unused(work: Path, learners: Sequence[Learner]) -> int:
    """Remove what is stored and no network needs any more; return how many bytes that were.

    Args:
        work: the workspace.
        learners: of the chain; those without data need nothing.

    Raises:
        ModelError: the list of what a network needs is damaged.
        ResourceError: ``E_DISK``.
    """
    root = work / STORE
    lists = [_listed(it.folder / CASES) for it in learners if (it.folder / CASES).is_file()]
    rows = [row for found in lists for part in found.values() for row in part]
    return prune(root, {root / file for _, *files in rows for file in files})
