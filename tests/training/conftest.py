from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_cohort

import nnunet_pictures

pytest.importorskip("nnunetv2", reason="training needs cfseg[train]")


class Trained:
    """A tiny cascade, trained once for all tests of this folder."""

    def __init__(self, folder: Path) -> None:
        from cfseg.training.pipeline import Pipeline

        self.lines: list[str] = []
        self.dataset = tiny_cohort.write(folder / "cohort")
        self.pipeline = Pipeline(
            self.dataset,
            folder / "work",
            tiny_cohort.recipe(),
            device="cpu",
            report=self.lines.append,
            provenance={"command": "test"},
            notice="tiny",
        )
        self.pipeline.run()


@pytest.fixture(scope="session")
def no_pictures() -> Iterator[None]:
    """Trainings of this process draw none."""
    with pytest.MonkeyPatch.context() as patch:
        nnunet_pictures.leave_blank(patch.setattr)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory, no_pictures) -> Trained:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nnU-Net's libraries warn at every turn
        return Trained(tmp_path_factory.mktemp("trained"))
