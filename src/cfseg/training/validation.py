"""How good a network is so far: on whole cases, by the predictor that users run (paper 2.2)."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cfseg.evaluation.metrics import dice
from cfseg.feed.store import StoredCase
from cfseg.geometry import Geometry
from cfseg.inference.predictor import Stage, Windows, predict_labels
from cfseg.labels import IGNORE, ORGAN_IDS, TUMOR
from cfseg.learning.group import of_all, processes, rank
from cfseg.learning.stopping import Stop, leave
from cfseg.networks.backends import find_backend, load
from cfseg.plan import Role, StagePlan
from cfseg.training.looks import Looks
from cfseg.volume import Volume

Ids = npt.NDArray[np.uint8]


class Validation:
    """Scores a network on the cases that were held out, by the stage's own measure.

    That is the mean DSC of the organs; for the tumor model that of the tumor. Judged are the labels
    that are annotated in a case; pseudo-labels only if nothing else is there.

    Args:
        role: of the stage.
        plan: of the network.
        cases: that were held out; the first so many of them.
        annotated: FLARE ids by case.
        windows: of the sliding window.
        at_most: cases, evenly spread.
        stop: whether a signal came; looked at after each case.
        looks: draws the first cases.
    """

    def __init__(
        self,
        role: Role,
        plan: StagePlan,
        cases: Sequence[StoredCase],
        annotated: Mapping[str, frozenset[int]],
        windows: Windows,
        at_most: int,
        stop: Stop,
        looks: Looks | None = None,
    ) -> None:
        self.role, self.plan, self.windows, self.stop = role, plan, windows, stop
        measured = frozenset({TUMOR.id} if role == "tumor" else ORGAN_IDS)
        judged = {case.name: annotated.get(case.name, frozenset()) & measured for case in cases}
        known = [case for case in cases if judged[case.name]]
        self.judged = judged if known else dict.fromkeys(judged, measured)
        self.cases, self.looks = _spread(known or cases, at_most), looks

    def __call__(self, network: nn.Module, epoch: int) -> float | None:  # noqa: ARG002
        """Return the score of a network, 0 to 1; None if no case has what is judged.

        In a group each process looks at its share of the cases; all get the same score.

        Raises:
            SystemExit: with 143, SIGTERM came.
            KeyboardInterrupt: the same for SIGINT.
        """
        device = next(network.parameters()).device
        backend = find_backend("auto", device)
        weights = dict(network.named_parameters())
        runner = load(self.plan, weights, device, backend=backend)
        stage = Stage(self.role, self.role, self.plan, runner, device, backend)
        found: dict[int, list[float]] = {}
        for case in self.cases[rank() :: processes()]:
            for label, score in self._scores(stage, case).items():
                found.setdefault(label, []).append(score)
            if self.stop.signal and processes() == 1:
                leave(self.stop.signal)  # a group leaves together, after its next step
        if self.looks is not None:
            self.looks.draw_cases()
        return mean_of_means(of_all(found))

    def _scores(self, stage: Stage, case: StoredCase) -> dict[int, float]:
        hu, truth = _read(case)
        spacing = self.plan.original_spacing_mm
        volume = Volume(hu, Geometry.from_spacing(case.shape, spacing))
        ids = predict_labels(stage, volume, self.windows).ids
        scores = label_scores(ids, truth, self.judged[case.name])
        if self.looks is not None:
            mean = float(np.mean(list(scores.values()))) if scores else None
            self.looks.case(case.name, hu, truth, ids, mean)
        return scores


def _spread(cases: Sequence[StoredCase], at_most: int) -> Sequence[StoredCase]:
    count = min(len(cases), at_most)
    return [cases[number * len(cases) // count] for number in range(count)]


def _read(case: StoredCase) -> tuple[npt.NDArray[np.float32], Ids]:
    hu = torch.empty(case.shape, dtype=torch.int16)
    labels = torch.empty(case.shape, dtype=torch.uint8)
    case.read((0, 0, 0), hu, labels)
    return hu.to(torch.float32).numpy(), labels.numpy()


def label_scores(found: Ids, truth: Ids, judged: frozenset[int]) -> dict[int, float]:
    """Return the DSC of each label that is in the truth or was found, ignored voxels left out.

    Args:
        found: (Z, Y, X) ids.
        truth: the same, with :data:`cfseg.labels.IGNORE` where nobody knows.
        judged: labels that count.
    """
    seen = np.where(truth == IGNORE, np.uint8(0), found)
    scores = {label: dice(seen == label, truth == label) for label in sorted(judged)}
    return {label: score for label, score in scores.items() if not np.isnan(score)}


def mean_of_means(parts: Sequence[Mapping[int, Sequence[float]]]) -> float | None:
    """Return the mean over the labels of the mean over the cases; None for no scores.

    Args:
        parts: scores by label, of each process.
    """
    labels = {label for part in parts for label in part}
    # In the order of the cases' labels, so that the number of processes leaves the sums alone.
    means = [
        float(np.mean(sorted(score for part in parts for score in part.get(label, ()))))
        for label in sorted(labels)
    ]
    return float(np.mean(means)) if means else None
