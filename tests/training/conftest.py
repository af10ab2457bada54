from pathlib import Path

import pytest
import torch

import tiny_cohort
from cfseg.training.pipeline import Pipeline


class Trained:
    """A tiny cascade, trained once for all tests of this folder."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.dataset = tiny_cohort.write(folder / "cohort")
        self.pipeline = Pipeline(
            self.dataset,
            folder / "work",
            tiny_cohort.recipe(),
            device=torch.device("cpu"),
            report=self.lines.append,
            provenance={"command": "test"},
            notice="tiny",
        )
        self.pipeline.run()


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))
