"""Published nnU-Net v1 networks: what their files do not say, so that a bundle can be made of them.

A v1 state dict tells the architecture by the shapes of its tensors, but not the grid, the
intensities or the labels. A recipe gives those in its ``[v1]`` table.
"""

from typing import Annotated

from pydantic import Field

from cfseg.labels import LABELS
from cfseg.plan import (
    Frozen,
    Intensity,
    Patch,
    Resampling,
    Role,
    SpacingMm,
)


class V1Network(Frozen):
    """One published network.

    Attributes:
        role: what it is used for.
        file: name of the state dict.
        spacing_mm: the network's grid, (z, y, x).
        patch: size of a window in voxels, (z, y, x).
        labels: FLARE id of each output channel.
        intensity: clip and z-score, HU.
    """

    role: Role
    file: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    spacing_mm: SpacingMm
    patch: Patch
    labels: tuple[Annotated[int, Field(ge=0, le=len(LABELS))], ...]
    intensity: Intensity


class V1Values(Frozen):
    """The ``[v1]`` table of a recipe.

    Attributes:
        source: where the files are published.
        notice: said with every output of a bundle that is made of them.
        resampling: of all networks.
        networks: in the order of the cascade.
    """

    source: str
    notice: str = ""
    resampling: Resampling = Resampling()
    networks: Annotated[tuple[V1Network, ...], Field(min_length=1)]
