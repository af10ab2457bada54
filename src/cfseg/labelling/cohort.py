"""Pseudo-labels for a cohort from a finished bundle: ``cfseg pseudo-label``.

Each case is accounted for, one failure never stops the others, and work resumes: a case is done,
and skipped next time, when the model, the settings, the case's files and what was written still
match its ``status/CASE.json``.
"""

import json
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cfseg import __version__
from cfseg.batch import stamp
from cfseg.dataset.cases import Case, case_or_problem, each, refuse_empty
from cfseg.dataset.folders import is_file_name
from cfseg.dataset.groups import group
from cfseg.dataset.layouts import list_cohort
from cfseg.dataset.problems import Problem, check_out
from cfseg.dataset.pseudo_labels import (
    GROUND_TRUTH,
    IGNORED,
    PSEUDO,
    merge,
    provenance,
    truth_is_kept,
)
from cfseg.errors import CfsegError, InputError, UsageError, as_cfseg_error
from cfseg.foreign import read_object
from cfseg.inference.merge import organs_of, tumor_over_organs, union_of_tumors
from cfseg.inference.predictor import Stage
from cfseg.io import (
    AS_IS,
    ReadingOptions,
    Scan,
    SourceGrid,
    file_digest,
    label_image,
    make_folder,
    read_scan,
    replacing,
    without_folders,
    write_json,
    write_label_map,
)
from cfseg.labelling.pseudo_labels import label
from cfseg.labelling.summary import FILE, Labelled, LabelSummary, OnCase, State, with_earlier
from cfseg.labelling.targets import truth_of
from cfseg.labels import ORGAN_IDS, TUMOR
from cfseg.plan import ROLES
from cfseg.segmenter import Segmenter
from cfseg.volume import LabelMap

STAGES = (*ROLES, "cascade")


def label_cohort(
    dataset: Path,
    bundle: Path | None,
    out: Path,
    *,
    stage: str = "coarse",
    groups: Collection[int] = (),
    step: float = 0.5,
    tumor: bool = False,
    device: str = "auto",
    threads: int | None = None,
    options: ReadingOptions = AS_IS,
    on_case: OnCase | None = None,
) -> LabelSummary:
    """Label the cases of a cohort with a model and merge that with their ground truth.

    Writes ``labelsTr/CASE.nii.gz``, ``provenance/CASE.nii.gz`` (0 background or unknown, 1 ground
    truth, 2 pseudo-label, 3 to be ignored) on each scan's own grid, ``status/CASE.json`` and
    ``pseudo_labels.json``. Voxels to be ignored have the value 15 in the label maps. A case of
    which it cannot be said what is annotated is refused, whatever group was asked for.

    Args:
        dataset: the cohort, as :func:`cfseg.dataset.layouts.list_cohort` takes it.
        bundle: the model; None takes the one that comes with cfseg.
        out: folder to write to.
        stage: ``coarse``, ``tumor``, ``organ``: that network alone over the body; or ``cascade``.
        groups: of the paper, 1 to 6; none: all cases that are not fully annotated.
        step: distance between windows as a fraction of the patch.
        tumor: take tumors from the model too. The paper does not.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads; None takes all.
        options: how scans and their label maps are read; they count among the settings.
        on_case: see :data:`OnCase`.

    Raises:
        UsageError: not a cohort, no such stage or group, or ``out`` lies in the cohort.
        InputError: there is nothing in the cohort.
        ModelError: the bundle cannot do it.
        ResourceError: the disk refuses.
    """
    cohort = list_cohort(dataset)
    check_out(out, dataset)
    refuse_empty(cohort)
    listed = tuple(each(case_or_problem, cohort.entries))
    chosen = choose([case for case in listed if isinstance(case, Case)], groups, tumor=tumor)
    refused = [*cohort.problems, *(p for p in listed if isinstance(p, Problem))]
    total = len(refused) + len(chosen)
    segmenter = _segmenter(bundle, stage, step, device, threads, options)
    labeller = _Labeller(segmenter, out, stage, step, tumor=tumor)
    make_folder(out / "status")
    done: list[Labelled] = []
    try:
        for found in chain(map(labeller.refused, refused), map(labeller.labelled, chosen)):
            done.append(found)
            if on_case is not None:
                on_case(found, len(done), total)
    finally:
        summary = LabelSummary(tuple(done), labeller.settings)
        write_json(out / FILE, with_earlier(summary, out / FILE).as_dict())
    return summary


def choose(
    cases: Sequence[Case], groups: Collection[int] = (), *, tumor: bool = False
) -> tuple[Case, ...]:
    """Return the cases to be labelled, in order of name.

    Args:
        cases: of the cohort.
        groups: of the paper, 1 to 6; none: all that lack an annotation that the model may give.
        tumor: whether the model may give tumors.

    Raises:
        UsageError: there is no such group.
    """
    if not groups:
        wanted = {*ORGAN_IDS, TUMOR.id} if tumor else {*ORGAN_IDS}
        return tuple(case for case in cases if not case.known.issuperset(wanted))
    numbered = group(cases).numbered()
    unknown = sorted(set(groups) - numbered.keys())
    if unknown:
        raise UsageError(f"there is no group {unknown[0]}; the paper's groups are 1 to 6")
    names = {case.name for number in groups for case in numbered[number]}
    return tuple(case for case in cases if case.name in names)


def _segmenter(
    bundle: Path | None,
    stage: str,
    step: float,
    device: str,
    threads: int | None,
    options: ReadingOptions,
) -> Segmenter:
    if stage not in STAGES:
        raise UsageError(f"there is no stage {stage!r}; give one of {', '.join(STAGES)}")
    if not 0 < step <= 1:
        raise UsageError(f"step {step:g}: give a fraction of the patch, above 0 and at most 1")
    overrides = [f"step.{role}={step}" for role in ROLES]
    if stage != "cascade":
        # The coarse network whole: a cut decoder is for finding the abdomen.
        overrides += [f"stages={json.dumps([stage])}", "decoder_stop=0"]
    return Segmenter(bundle, device, threads, tuple(overrides), options=options)


class _Labeller:
    """A loaded model that labels one case after the other."""

    def __init__(
        self, segmenter: Segmenter, out: Path, stage: str, step: float, *, tumor: bool
    ) -> None:
        self.segmenter, self.out, self.stage, self.step = segmenter, out, stage, step
        self.tumor = tumor
        self.settings = {
            "model": segmenter.manifest.name,
            "model_sha256": segmenter.digest,
            "stage": stage,
            "step": step,
            "tumor": tumor,
            "reading": segmenter.options.given(),
            "cfseg": __version__,
            "notice": segmenter.notice,
        }

    def labelled(self, case: Case) -> Labelled:
        """Label one case, unless that was done before."""
        before = self._finished_before(case)
        if before is not None:
            return Labelled(case.name, "done", True, before)
        state: State = "done"
        try:
            record = {"code": "", "message": ""} | self._label(case)
        except InputError as error:
            state, record = "refused", {"code": error.code, "message": error.message}
        except Exception as error:
            known = as_cfseg_error(error)
            state, record = "failed", {"code": known.code, "message": known.message}
        paths = (case.image, case.label, *self._outputs(case))
        return self._written(case.name, state, record, *paths)

    def refused(self, problem: Problem) -> Labelled:
        """Account for a case of which it cannot be said what is annotated."""
        record = {"code": problem.code, "message": problem.message}
        return self._written(problem.case, "refused", record, problem.file)

    def _written(
        self, name: str, state: State, record: dict[str, Any], *paths: Path | None
    ) -> Labelled:
        told = without_folders(record["message"], *paths)
        record = {"case": name, "state": state} | record | {"message": told}
        if is_file_name(name):  # a manifest may name a case like a path that leads elsewhere
            write_json(self._status(name), record | {"settings": self.settings})
        return Labelled(name, state, False, record)

    def _label(self, case: Case) -> dict[str, Any]:
        options = self.segmenter.options
        scan = read_scan(case.image, case=case.name, options=options)
        geometry = scan.volume.geometry
        truth = truth_of(case, geometry, options, keep_ignored=True)
        merged = merge(truth, self._predict(scan).ids, case.known, tumor=self.tumor)
        if not truth_is_kept(truth, merged, case.annotated):
            raise CfsegError(f"{case.name}: merging changed annotated voxels; this is a bug")
        origin = provenance(truth, merged, case.annotated)
        labels, sources = self._outputs(case)
        write_label_map(labels, LabelMap(merged, geometry), scan.source)
        _write_provenance(sources, LabelMap(origin, geometry), scan.source)
        return {
            "truth_voxels": int(np.count_nonzero(origin == GROUND_TRUTH)),
            "pseudo_voxels": int(np.count_nonzero(origin == PSEUDO)),
            "ignored_voxels": int(np.count_nonzero(origin == IGNORED)),
            "notes": [without_folders(note, case.image) for note in scan.notes],
            **self._files(case),
            "sha256": file_digest(labels),
            "provenance_sha256": file_digest(sources),
        }

    def _predict(self, scan: Scan) -> LabelMap:
        if self.stage == "cascade":
            return self.segmenter.segment(scan).label_map
        maps = [label(stage, scan.volume, self.step) for stage in self._networks()]
        tumor = union_of_tumors([found.ids for found in maps])
        return LabelMap(tumor_over_organs(organs_of(maps[-1].ids), tumor), scan.volume.geometry)

    def _networks(self) -> tuple[Stage, ...]:
        stages = self.segmenter.stages
        found = {"coarse": stages.coarse, "organ": stages.organ}.get(self.stage)
        return stages.tumor if found is None else (found,)

    def _finished_before(self, case: Case) -> dict[str, Any] | None:
        """Return what became of a case if nothing changed since it was done, else None."""
        try:
            record = read_object(self._status(case.name))
        except (OSError, ValueError):
            return None
        labels, sources = self._outputs(case)
        same = (
            record.get("state") == "done"
            and record.pop("settings", None) == self.settings
            and self._files(case).items() <= record.items()
            and labels.is_file()
            and sources.is_file()
            and record.get("sha256") == file_digest(labels)
            and record.get("provenance_sha256") == file_digest(sources)
        )
        return record if same else None

    def _status(self, name: str) -> Path:
        return self.out / "status" / f"{name}.json"

    def _outputs(self, case: Case) -> tuple[Path, Path]:
        name = f"{case.name}.nii.gz"
        return self.out / "labelsTr" / name, self.out / "provenance" / name

    def _files(self, case: Case) -> dict[str, Any]:
        """Return what counts of a case, for the next run to compare."""
        try:
            truth = "" if case.label is None else file_digest(case.label)
        except InputError:
            truth = ""  # reading it will say what is wrong
        known = {
            "annotated": sorted(case.annotated),
            "image_stamp": stamp([case.image]),
            "label_sha256": truth,
        }
        if case.absent:
            known["absent"] = sorted(case.absent)
        if case.label_map is not None:
            known["label_map"] = sorted(map(list, case.label_map.items()))
        if case.ignore is not None:
            known["ignore"] = case.ignore
        return known


def _write_provenance(path: Path, origin: LabelMap, source: SourceGrid) -> None:
    """Write a provenance map like a label map, but without the names of labels: it has none.

    Raises:
        ResourceError: the disk refuses.
    """
    image = label_image(origin, source)
    image.header.extensions.clear()
    with replacing(path) as temporary:
        nib.save(image, temporary)
