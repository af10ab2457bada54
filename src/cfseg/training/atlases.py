"""Atlases that networks learn from beside a cohort: which, of what contents, by whom."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cfseg.dataset.digests import Digests
from cfseg.errors import UsageError
from cfseg.phantoms.atlas import Atlas, atlas_files, read_about, read_atlases
from cfseg.recipes.training import Training


@dataclass(frozen=True)
class Atlases:
    """Where atlases are, read only when they are needed.

    Attributes:
        place: a file or a folder.
    """

    place: Path

    @classmethod
    def of(cls, place: Path | None, training: Training) -> Self | None:
        """Return what a recipe takes of its windows from; None for a recipe that takes none.

        Args:
            place: what was given.
            training: the recipe's.

        Raises:
            UsageError: the recipe wants atlases and there are none, or the other way round.
        """
        if training.map_share and place is None:
            raise UsageError(
                f"training.map_share = {training.map_share:g} asks for atlases; give --atlases "
                "FOLDER, or --set training.map_share=0"
            )
        if place is not None and not training.map_share:
            raise UsageError(
                f"--atlases {place}: the recipe takes no windows from atlases; add --set "
                "training.map_share=0.5"
            )
        return None if place is None else cls(place)

    @property
    def files(self) -> tuple[Path, ...]:
        """The maps, in the order of their names."""
        return atlas_files(self.place)

    def inputs(self, digests: Digests) -> list[str]:
        """Return what decides a network: the contents of the maps; JSON."""
        return [digests.of(file) for file in self.files]

    @property
    def sources(self) -> dict[str, str]:
        """Whom to name wherever something made from them is published, by map."""
        return {file.name: read_about(file)["source"] for file in self.files}

    def read(self) -> tuple[Atlas, ...]:
        """Read them.

        Raises:
            UsageError: there are none.
            InputError: one is damaged.
        """
        return read_atlases(self.place)
