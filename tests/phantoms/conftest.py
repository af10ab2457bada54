"""Phantoms that several tests look at; made once."""

import pytest

from cfseg.phantoms.phantom import Phantom, PhantomSpec, generate

SEED = 31


@pytest.fixture(scope="session")
def phantoms() -> list[Phantom]:
    """Return four phantoms, the first two with tumors, the others without."""
    return [generate(SEED, index, PhantomSpec(tumor=index < 2)) for index in range(4)]
