import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfseg.dataset.splits import split

NAMES = st.lists(st.text("abcde0123", min_size=1), min_size=2, max_size=40, unique=True)


@given(NAMES, st.integers(0, 99))
def test_every_case_is_in_one_part(names, seed):
    train, validation = split(names, 0.2, seed)
    assert sorted([*train, *validation]) == sorted(names)
    assert train
    assert validation


@given(NAMES, st.integers(0, 99), st.randoms())
def test_the_seed_decides_and_the_order_does_not(names, seed, random):
    shuffled = random.sample(names, len(names))
    assert split(names, 0.2, seed) == split(shuffled, 0.2, seed)


@pytest.mark.parametrize(("cases", "validation"), [(219, 44), (1497, 299), (4000, 800), (5, 1)])
def test_four_to_one(cases, validation):
    names = [f"case_{i}" for i in range(cases)]
    assert len(split(names, 0.2, 1)[1]) == validation


def test_another_seed_is_another_split():
    names = [f"case_{i}" for i in range(40)]
    assert split(names, 0.2, 1) != split(names, 0.2, 2)


def test_a_single_case_is_both():
    assert split(["only"], 0.2, 0) == (["only"], ["only"])
