"""One process of the test of groups: trains the tiny organ model on a given list of batches.

Started as ``python two_ranks.py WORK PREPARED DEVICES_FOLDER``: each rank has a results folder of
its own, so that one sees who wrote.
"""

import contextlib
import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

ITERATIONS, BATCH, EDGE, CLASSES = 20, 2, 16, 14


def batches(rank: int, world: int) -> list[dict[str, object]]:
    """Return this rank's share of the seeded batches: windows and labels at two resolutions."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(ITERATIONS):
        images = rng.normal(size=(BATCH, 1, EDGE, EDGE, EDGE)).astype(np.float32)
        labels = rng.integers(0, CLASSES, (BATCH, 1, EDGE, EDGE, EDGE)).astype(np.int16)
        own = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        target = [torch.from_numpy(labels[own]), torch.from_numpy(labels[own, :, ::2, ::2, ::2])]
        found.append({"data": torch.from_numpy(images[own]), "target": target})
    return found


def main(work: Path, results: Path) -> None:
    from torch import distributed

    from cfseg.recipes.training import Training
    from cfseg.training.distributed import group_of
    from cfseg.training.trainer import StageTrainer
    from cfseg.training.workspace import CONFIGURATION, PLANS, StageFolder, enter

    rank, world = (int(os.environ.get(n, d)) for n, d in (("RANK", "0"), ("WORLD_SIZE", "1")))
    training = Training.model_validate_json((results / "training.json").read_text())
    folder = StageFolder(work, "organ")
    enter(work)
    os.environ["nnUNet_results"] = str(results / f"world_{world}" / f"rank_{rank}")  # noqa: SIM112
    plans = json.loads((folder.preprocessed / f"{PLANS}.json").read_text())
    plans["continue_training"] = False
    dataset = json.loads((folder.raw / "dataset.json").read_text())

    class Fed(StageTrainer):
        def get_dataloaders(self):
            feed = batches(rank, world)
            return iter(feed), iter(feed)

        def on_train_epoch_end(self, train_outputs):
            losses = [output["loss"] for output in train_outputs]
            if world > 1:
                shares = [None] * world
                distributed.all_gather_object(shares, losses)
                losses = np.mean(shares, axis=0).tolist()
            (results / f"losses_{world}_{rank}.json").write_text(json.dumps(losses))
            super().on_train_epoch_end(train_outputs)

    with group_of("cpu") if world > 1 else contextlib.nullcontext(torch.device("cpu")) as device:
        trainer = Fed(plans, CONFIGURATION, 0, dataset, device)
        trainer.configure(training, "organ", training.organ, 3, print)
        trainer.run_training()


if __name__ == "__main__":
    from cfseg.training.distributed import run_and_end

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    run_and_end(partial(main, Path(sys.argv[1]), Path(sys.argv[2])))
