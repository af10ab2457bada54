"""A bundle in the place of the coarse model, for cohorts without a fully labelled case."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfseg.bundle.bundle import Network, load_stages, read_weights
from cfseg.bundle.manifest import digest, read_manifest
from cfseg.errors import UsageError
from cfseg.inference.cascade import segment_volume
from cfseg.inference.predictor import Stage
from cfseg.labelling.pseudo_labels import Teacher
from cfseg.labels import TUMOR
from cfseg.networks.backends import find_backend
from cfseg.networks.backends import load as load_network
from cfseg.training.candidates import Candidate
from cfseg.volume import LabelMap, Volume


class GivenCoarse:
    """Its cascade labels the cases, and its coarse network goes into the new bundle.

    Args:
        bundle: its folder.

    Raises:
        ModelError: it is no bundle.
        UsageError: it has no coarse network.
    """

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.manifest = bundle, read_manifest(bundle)
        entries = [entry for entry in self.manifest.stages if entry.role == "coarse"]
        if not entries:
            raise UsageError(
                f"--coarse {bundle}: the bundle has no coarse network; give one that has"
            )
        self.entry, self._weights = entries[0], bundle / entries[0].weights

    @property
    def about(self) -> str:
        """In words."""
        return f"the bundle {self.manifest.name}"

    @cached_property
    def digest(self) -> str:
        """sha256 of the bundle's manifest, which names those of its networks."""
        return digest(self.bundle)

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """What decides its ``network``; JSON."""
        return {"network": {"coarse": self.digest}}

    def open(self, checkpoint: str, step: float, device: torch.device) -> Teacher:  # noqa: ARG002
        """Load its cascade to label cases.

        Args:
            checkpoint: does not matter; a bundle has one of each network.
            step: distance between windows as a fraction of the patch.
            device: where it runs.

        Raises:
            ModelError: a file of it is missing or damaged.
        """
        cascade = self.manifest.cascade
        steps = cascade.step.model_copy(update=dict.fromkeys(cascade.stages, step))
        cascade = cascade.model_copy(update={"step": steps})
        backend = find_backend("auto", device)
        stages = load_stages(
            self.bundle, self.manifest, cascade.stages, device, cascade.decoder_stop, backend
        )

        def label(volume: Volume) -> LabelMap:
            found = segment_volume(volume, stages, cascade).label_map
            ids = np.where(found.ids == TUMOR.id, np.uint8(0), found.ids)
            return LabelMap(ids, found.geometry)

        return Teacher(label, self.digest)

    def candidate(self, device: torch.device, decoder_stop: int) -> Candidate:
        """Return its coarse network, the only candidate for that part.

        Args:
            device: where it runs.
            decoder_stop: see :class:`cfseg.recipes.recipe.Cascade`.
        """
        backend = find_backend("auto", device)

        def load() -> Stage:
            entry, weights = self.entry, read_weights(self._weights, self.entry.sha256)
            runner = load_network(entry.plan, weights, device, decoder_stop, backend)
            return Stage("coarse", "coarse", entry.plan, runner, device, backend)

        return Candidate("bundle", 0, self.entry.sha256, load, backend)

    def network(self) -> Network:
        """Return its coarse network, with where it comes from, for another bundle."""
        weights = read_weights(self._weights, self.entry.sha256)
        about = {"bundle": self.manifest.name, "sha256": self.digest}
        return "coarse", self.entry.plan, weights, dict(self.entry.provenance) | {"from": about}
