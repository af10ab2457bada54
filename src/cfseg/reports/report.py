"""The report of a folder that ``cfseg predict`` wrote: a page per case and one for all."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfseg.batch import find_input, inputs_by_case
from cfseg.errors import InputError, exit_code
from cfseg.evaluation.flare import evaluate
from cfseg.findings.measure import find
from cfseg.findings.record import as_record
from cfseg.io import Input, Scan, read_label_map, read_scan, without_paths, write_text
from cfseg.reports.case_page import CaseView, Images, case_page
from cfseg.reports.cohort_page import cohort_page
from cfseg.reports.outputs import CaseOutput, read_outputs
from cfseg.volume import LabelMap

OnCase = Callable[[str, str, int, int], None]
"""Called after each case with its id, what is missing on its page (else empty), done, and all."""


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        index: the page of all cases.
        pages: the page of each case, by case id.
        incomplete: what is missing on pages, by case id.
    """

    index: Path
    pages: Mapping[str, Path]
    incomplete: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """0 if all pages are whole, 3 if some lack their pictures: they are there all the same."""
        return exit_code(len(self.pages), [""] * len(self.incomplete))


def write_report(
    out: Path,
    reference: Path | None = None,
    images: Path | None = None,
    to: Path | None = None,
    title: str = "Segmented cases",
    on_case: OnCase | None = None,
) -> Report:
    """Write a report: ``index.html`` and ``cases/CASE.html``, each one file that needs no other.

    Args:
        out: a folder that ``cfseg predict`` wrote.
        reference: folder of references; the cases are then judged as ``cfseg evaluate`` does, into
            ``scores`` beside the pages.
        images: where the CTs are, if they are not where predict found them.
        to: folder of the report, ``OUT/report`` by default.
        title: of the page of all cases.
        on_case: see :data:`OnCase`.

    Raises:
        UsageError: a folder is not there.
        InputError: ``E_NO_CASES``, predict wrote nothing there, or no reference fits.
        ResourceError: the disk refuses.

    Example:
        >>> write_report(Path("masks"), Path("labelsTs")).index      # doctest: +SKIP
    """
    to = to or out / "report"
    read_outputs(out)  # before any work: is there something to report of?
    known = {} if images is None else inputs_by_case(images)
    outputs = read_outputs(out, reference, _scores(out, reference, to))
    views, pages, incomplete = [], {}, {}
    for number, output in enumerate(outputs, start=1):
        view, seen = _look(out, output, known)
        pages[output.case] = to / "cases" / output.page
        write_text(pages[output.case], case_page(view, seen))
        views.append(view)
        if view.problems:
            incomplete[output.case] = " ".join(view.problems)
        if on_case is not None:
            on_case(output.case, " ".join(view.problems), number, len(outputs))
    index = to / "index.html"
    write_text(index, cohort_page(title, views))
    return Report(index, pages, incomplete)


def _scores(out: Path, reference: Path | None, to: Path) -> dict[str, Any] | None:
    """Judge the label maps and return what ``scores.json`` then holds."""
    if reference is None:
        return None
    evaluate(out, reference, to / "scores")
    found: dict[str, Any] = json.loads((to / "scores" / "scores.json").read_text(encoding="utf-8"))
    return found


def _look(
    out: Path, output: CaseOutput, known: Mapping[str, Input]
) -> tuple[CaseView, Images | None]:
    """Read what there is of a case and measure it; what is not there becomes a problem to show."""
    problems = [output.problem] if output.problem else []
    if output.label_map is None:
        return CaseView(output, None, tuple(problems)), None
    try:
        scan = read_scan(find_input(out, output.case, known))
        prediction, _ = read_label_map(output.label_map)
        found = find(
            output.case, scan.volume, prediction, scan.source, output.status.get("agreement")
        )
    except InputError as error:
        problem = f"No pictures and no measures: {without_paths(error.message)}."
        return CaseView(output, None, (*problems, problem.replace("..", "."))), None
    if not output.problem and scan.sha256 != output.status.get("input_sha256"):
        problems.append("The CT is not the one that was segmented: its content has changed.")
    reference = _reference(output, scan, problems)
    view = CaseView(output, as_record(found), tuple(problems))
    return view, Images(scan.volume, prediction, scan.source.affine, reference)


def _reference(output: CaseOutput, scan: Scan, problems: list[str]) -> LabelMap | None:
    if output.reference is None:
        return None
    try:
        reference, _ = read_label_map(output.reference)
    except InputError as error:
        problems.append(f"The reference is not shown: {without_paths(error.message)}")
        return None
    if not reference.geometry.matches(scan.volume.geometry):
        problems.append("The reference is not shown: it does not lie on the CT's grid.")
        return None
    return reference
