"""Phantoms that several tests look at; made once."""

import pytest

from cfseg.phantoms.phantom import Phantom, PhantomSpec, generate

SEED = 31
"""Of the one phantom that all tests share, too."""


@pytest.fixture(scope="session")
def phantoms(phantom: Phantom) -> list[Phantom]:
    """Return four phantoms, the first two with tumors, the others without."""
    others = [generate(SEED, index, PhantomSpec(tumor=index < 2)) for index in range(1, 4)]
    return [phantom, *others]
