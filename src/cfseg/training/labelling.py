"""The step of a chain in which a network that was just trained labels cases for the next one."""

import torch

from cfseg.labelling.pseudo_labels import label_cases, load_teacher
from cfseg.training.label_sources import PredictedLabels
from cfseg.training.steps import Progress, Report

_REPORT_EVERY = 10


def write_labels(
    labels: PredictedLabels,
    checkpoint: str,
    step: float,
    device: torch.device,
    report: Report,
    progress: Progress | None = None,
) -> None:
    """Write what a network of the chain says about all cases that need it.

    Args:
        labels: the cases, the network and the folder.
        checkpoint: file name of the network's weights.
        step: distance between windows as a fraction of the patch.
        device: where it runs.
        report: gets lines of progress.
        progress: is told after each case.
    """
    total, teacher = len(labels.cases), labels.teacher.folder

    def on_case(number: int) -> None:
        if progress is not None:
            progress(labels.name, number, total)
        if number % _REPORT_EVERY == 0 or number == total:
            report(f"  {number}/{total} cases")

    loaded = load_teacher(teacher.model(1), teacher.role, checkpoint, device)
    label_cases(labels.cases, labels.folder, loaded, step, on_case)
