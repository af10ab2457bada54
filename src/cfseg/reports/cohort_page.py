"""The page of all cases: worst first, and how organs are distributed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cfseg.labels import LABELS, TUMOR
from cfseg.reports.boxplots import box_plot
from cfseg.reports.case_page import CaseView
from cfseg.reports.page import render


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Attributes:
        title: what it shows.
        text: how to read it.
        url: the picture itself, a ``data:`` URL.
    """

    title: str
    text: str
    url: str


def cohort_page(title: str, views: Sequence[CaseView]) -> str:
    """Return the page of a cohort as HTML; it links to ``cases/PAGE`` of each case."""
    scored = any(view.output.scores for view in views)
    ordered = sorted(views, key=badness)
    states = Counter(str(view.output.status.get("state", "unknown")) for view in views)
    settings = [view.output.status.get("settings") or {} for view in views]
    return render(
        "cohort.html.j2",
        title=title,
        views=ordered,
        counts=dict(sorted(states.items())),
        scored=scored,
        order=_order(scored),
        models=sorted({str(it["bundle"]) for it in settings if "bundle" in it}),
        notices=sorted({str(n) for view in views if (n := view.output.status.get("notice"))}),
        tiles=_tiles(views) if scored else [],
        plots=_plots(views),
    )


def _tiles(views: Sequence[CaseView]) -> list[tuple[str, float | None]]:
    """Return the means over cases, each with its title; a case without a label map counts as 0."""
    means = {
        "Organs, DSC": [view.mean_score("dsc") for view in views],
        "Organs, NSD": [view.mean_score("nsd") for view in views],
        "Tumor, DSC": [view.score("dsc", TUMOR.name) for view in views],
    }
    absent = sum(TUMOR.name in view.output.absent for view in views if view.output.scores)
    tiles = []
    for title, values in means.items():
        n = len(_known(values))
        told = [f"{absent} absent"] if absent and title.startswith("Tumor") else []
        told += [f"n = {n}"] if n < len(views) else []
        tiles.append((f"{title} ({', '.join(told)})" if told else title, _mean(values)))
    return tiles


def badness(view: CaseView) -> tuple[int, float, str]:
    """Return what cases are sorted by: without a label map first, then by score or agreement."""
    if view.output.status.get("state") not in ("done", "empty"):
        return 0, 0.0, view.output.case
    score = view.mean_score("dsc")
    if score is None:
        score = _mean(list(view.agreement.values()))
    return (2, 0.0, view.output.case) if score is None else (1, score, view.output.case)


def _order(scored: bool) -> str:
    first = "Cases without a label map come first, then by "
    if scored:
        return (
            first + "the mean DSC of the organs; where there is none, by the networks' agreement."
        )
    return first + "the mean agreement of the networks."


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _plots(views: Sequence[CaseView]) -> list[Plot]:
    found = []
    for metric, title in (("dsc", "DSC"), ("nsd", "NSD")):
        values = {it.name: found_scores(views, metric, it.name) for it in LABELS}
        if any(values.values()):
            text = "Where there is nothing to be found and nothing was, there is no dot. " + _READ
            found.append(Plot(title, text, box_plot(values, title)))
    volumes = {it.name: _volumes(views, it.name) for it in LABELS}
    if any(volumes.values()):
        text = "Organs that the scan cuts and absent ones are left out. " + _READ
        found.append(Plot("Volume", text, box_plot(volumes, "volume, ml", log=True)))
    agreement = {it.name: _known([v.agreement.get(it.name) for v in views]) for it in LABELS}
    if any(agreement.values()):
        text = "Dice coefficient of two networks, a measure of how sure the result is. " + _READ
        found.append(Plot("Agreement", text, box_plot(agreement, "agreement of two networks")))
    return found


_READ = "A dot is a case; a box spans the middle half of the cases, its line is the median."


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def found_scores(views: Sequence[CaseView], metric: str, name: str) -> list[float]:
    """Return the scores of a label, but for the 1 of finding nothing where nothing is."""
    scores = [(view, view.score(metric, name)) for view in views]
    return _known([s for view, s in scores if not (s == 1 and name in view.output.absent)])


def _volumes(views: Sequence[CaseView], name: str) -> list[float]:
    whole = [view.record[name]["volume_ml"] for view in views if view.record]
    return [value for value in _known(whole) if value > 0]
