"""Cohorts of phantoms in nnU-Net's raw layout, fully or, as in the paper's 2.1, partly labelled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cfseg.errors import UsageError
from cfseg.foreign import read_object
from cfseg.geometry import Geometry
from cfseg.io import make_folder, replacing, write_json
from cfseg.labels import LABELS, ORGAN_IDS, TUMOR
from cfseg.parallel import in_processes
from cfseg.phantoms.phantom import PhantomSpec, Spacing, generate

Progress = Callable[[int, int], None]
"""Called with the cases done and the cases in all."""

ALL = (*ORGAN_IDS, TUMOR.id)
FIVE = (1, 2, 3, 4, 13)
# Which labels are annotated, and in how many cases of the published FLARE 2023 training set.
PATTERNS: dict[str, tuple[tuple[tuple[int, ...], int], ...]] = {
    "unlabelled": (((), 1800),),
    "full": ((ORGAN_IDS, 219),),
    "partial": (
        (FIVE, 438),
        (tuple(i for i in ORGAN_IDS if i != 9), 21),
        ((1, 3, 4, 13), 9),
        ((1, 2, 3, 4), 6),
        ((1,), 10),
    ),
    "tumor": ((ALL, 888), ((*FIVE, 14), 592), ((1, 3, 4, 13, 14), 10), ((1, 2, 3, 4, 14), 7)),
}
SELECTION_OFFSET, TEST_OFFSET = 100_000, 200_000
"""Case numbers of the selection and test sets, far from those of the training set."""


@dataclass(frozen=True)
class Job:
    """One case to be made.

    Attributes:
        folder: of the data set, holding imagesTr and labelsTr.
        case: its name.
        index: of the phantom.
        tumor: with tumors, without, or (None) as drawn.
        annotated: labels that are kept; None keeps all.
        truth: folder that gets the full reference too.
    """

    folder: Path
    case: str
    index: int
    tumor: bool | None = None
    annotated: tuple[int, ...] | None = None
    truth: Path | None = None


def write_cohort(
    out: Path,
    cases: int,
    seed: int,
    spacing: Spacing = "3mm",
    *,
    groups: bool = False,
    full: int = 0,
    selection: int = 0,
    test: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write a data set of phantoms; finished cases are kept, so it can be run again to go on.

    Args:
        out: folder in nnU-Net's raw layout.
        cases: training cases.
        seed: of the cohort.
        spacing: ``3mm`` or ``row``, see :class:`PhantomSpec`.
        groups: label the cases as in the paper's 2.1: unlabelled, partial, full, tumor.
        full: with ``groups``, at least so many cases of group 6, all organs and no tumor; a small
            cohort has too few of them to train a coarse model.
        selection: fully labelled cases in ``out/selection``.
        test: fully labelled cases in ``out/test``.
        jobs: processes that make cases; each is a function of seed and number alone, so the
            cohort is the same with any.
        progress: see :data:`Progress`.

    Returns:
        ``out``.

    Raises:
        UsageError: the folder holds a cohort made with other values, or ``full`` is too much.
        ResourceError: the disk refuses.
    """
    values = {"cases": cases, "seed": seed, "spacing": spacing, "groups": groups}
    values |= {"selection": selection, "test": test} | ({"full": full} if full else {})
    _claim(out, values)
    planned = plan(out, cases, seed, groups=groups, full=full, selection=selection, test=test)
    write = partial(_write_case, seed=seed, spacing=spacing)
    left = [job for job in planned if not _is_written(job)]
    before = len(planned) - len(left)
    for done, _ in enumerate(in_processes(write, left, jobs), before + 1):
        if progress is not None:
            progress(done, len(planned))
    _describe(out, planned, groups)
    return out


def plan(
    out: Path,
    cases: int,
    seed: int,
    *,
    groups: bool,
    full: int = 0,
    selection: int = 0,
    test: int = 0,
) -> list[Job]:
    """Return the cases of a cohort: which are annotated how."""
    patterns = assign_patterns(cases, seed, full) if groups else [None] * cases
    jobs = []
    for index, pattern in enumerate(patterns):
        tumor = None if pattern is None or not pattern else TUMOR.id in pattern
        truth = out / "truth" if groups else None
        jobs.append(Job(out, f"phantom_{seed}_{index:04d}", index, tumor, pattern, truth))
    for name, count, offset in (
        ("selection", selection, SELECTION_OFFSET),
        ("test", test, TEST_OFFSET),
    ):
        for k in range(count):
            jobs.append(Job(out / name, f"{name}_{seed}_{k:04d}", offset + k))
    return jobs


def assign_patterns(cases: int, seed: int, full: int = 0) -> list[tuple[int, ...]]:
    """Return each case's annotated labels, in the proportions of the paper's groups.

    The four groups get whole cases by largest remainders, every group at least one where there
    are eight cases or more; within a group the same holds for its patterns. The full group gets
    ``full`` cases if that is more, and the others share the rest.

    Raises:
        UsageError: ``full`` leaves nothing for the other groups.
    """
    counts = {group: sum(n for _, n in patterns) for group, patterns in PATTERNS.items()}
    found: list[tuple[int, ...]] = []
    for group, size in _sizes(counts, cases, full).items():
        weights = [n for _, n in PATTERNS[group]]
        for (pattern, _), number in zip(PATTERNS[group], apportion(weights, size), strict=True):
            found += [pattern] * number
    order = np.random.default_rng([seed, 77]).permutation(len(found))
    return [found[i] for i in order]


def _sizes(counts: dict[str, int], cases: int, full: int) -> dict[str, int]:
    if full and full > cases - (len(counts) - 1):
        raise UsageError(f"{full} full cases of {cases} leave none for the other groups")
    at_least = 1 if cases >= 8 else 0
    sizes = dict(zip(counts, apportion(list(counts.values()), cases, at_least), strict=True))
    if sizes["full"] >= full:
        return sizes
    others = {group: n for group, n in counts.items() if group != "full"}
    shared = apportion(list(others.values()), cases - full, at_least)
    return sizes | {"full": full} | dict(zip(others, shared, strict=True))


def apportion(weights: list[int], total: int, at_least: int = 0) -> list[int]:
    """Split ``total`` in proportion to ``weights`` by largest remainders."""
    share = np.asarray(weights, dtype=float) / sum(weights) * total
    whole = np.maximum(np.floor(share), at_least).astype(int)
    while whole.sum() > total:
        whole[int(np.argmax(whole - share))] -= 1
    for i in np.argsort(-(share - whole), kind="stable")[: total - int(whole.sum())]:
        whole[i] += 1
    return [int(n) for n in whole]


def _claim(out: Path, values: dict[str, Any]) -> None:
    """Write down how the cohort is made; refuse to mix it with another."""
    make_folder(out)
    note = out / "cohort.json"
    try:
        same = not note.exists() or read_object(note) == values
    except (OSError, ValueError):
        same = False  # it was damaged, so nobody knows what is there
    if not same:
        raise UsageError(f"{out} holds a cohort made with other values; choose another folder")
    write_json(note, values)


def _meta(job: Job) -> Path:
    return job.folder / "meta" / f"{job.case}.json"


def _is_written(job: Job) -> bool:
    return _meta(job).exists()


def _write_case(job: Job, seed: int, spacing: Spacing) -> None:
    """Make one case; its description comes last and says that it is whole."""
    phantom = generate(seed, job.index, PhantomSpec(spacing, job.tumor))
    image = job.folder / "imagesTr" / f"{job.case}_0000.nii.gz"
    axes = _axes(seed, job.index) if spacing == "row" else "LPS"
    _save(image, phantom.volume.hu, phantom.volume.geometry, axes)
    full, grid = phantom.label_map.ids, phantom.label_map.geometry
    if job.annotated is None:
        _save(job.folder / "labelsTr" / f"{job.case}.nii.gz", full, grid, axes)
    elif job.annotated:
        kept = np.where(np.isin(full, job.annotated), full, np.uint8(0))
        _save(job.folder / "labelsTr" / f"{job.case}.nii.gz", kept, grid, axes)
    if job.truth is not None:
        _save(job.truth / "labelsTr" / f"{job.case}.nii.gz", full, grid, axes)
    write_json(_meta(job), phantom.meta)


def _axes(seed: int, index: int) -> str:
    """Most files are stored as LPS; one in ten has other axes, so that readers are put to work."""
    rng = np.random.default_rng([seed, index, 48])
    if rng.random() > 0.1:
        return "LPS"
    pairs = ("LR", "PA", "SI")
    return "".join(pairs[i][rng.integers(2)] for i in rng.permutation(3))


def _save(path: Path, array: np.ndarray, geometry: Geometry, axes: str) -> None:
    """Write a (z, y, x) array as NIfTI with the given axis codes, under a temporary name first."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # left, back, up to NIfTI's right, front, up
    order = [2, 1, 0, 3]
    affine = flip @ geometry.affine[np.ix_(order, order)]
    nifti: Any = nib  # it has no types
    image = nifti.Nifti1Image(array.transpose(2, 1, 0), affine)
    start = nifti.orientations.io_orientation(affine)
    turn = nifti.orientations.ornt_transform(start, nifti.orientations.axcodes2ornt(tuple(axes)))
    image = image.as_reoriented(turn)
    image.header.set_data_dtype(array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _describe(out: Path, jobs: list[Job], groups: bool) -> None:
    for folder in sorted({job.folder for job in jobs}):
        here = [job for job in jobs if job.folder == folder]
        names = {"background": 0} | {label.name: label.id for label in LABELS}
        description = {
            "channel_names": {"0": "CT"},
            "labels": names,
            "numTraining": len(here),
            "file_ending": ".nii.gz",
            "description": "synthetic abdominal CT made by cfseg phantom",
        }
        write_json(folder / "dataset.json", description)
        if groups and folder == out:
            write_json(folder / "manifest.json", {job.case: _known(job) for job in here})


def _known(job: Job) -> list[int] | dict[str, list[int]]:
    """Return what the manifest says of a case; of an unlabelled one nobody knows tumors."""
    annotated = list(job.annotated or ())
    return {"annotated": annotated, "absent": [TUMOR.id]} if job.tumor is False else annotated
