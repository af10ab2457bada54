"""Recipes of others: whatever is in the file or after --set, the answer is one or a UsageError."""

import random
from importlib import resources
from pathlib import Path

import pytest

from cfseg.errors import UsageError
from cfseg.recipes.recipe import Cascade, load, names, with_overrides

VALUES = (
    "nan", "inf", "true", "-1", "1e308", "0x" + "f" * 5000, "9" * 5000, "[]", "{}", "{a.b=1}",
    "[" * 3000, "''", '"x"', '"\\u0000"', "1979-05-27", "[1, 2]", "[[1]]", "10000000000",
)  # fmt: skip
LINES = ("[x]", "[[training]]", "x = " + "[" * 5000, ".".join("a" * 500) + " = 1", "", "=")
KEYS = ("region.margin_mm", "step", "step.coarse", "stages", "a.b", "", "clean.labels", "..")


def mutant(text: str, seed: int) -> bytes:
    rng = random.Random(seed)  # noqa: S311 - not a secret
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines))
        key, equals, _ = lines[place].partition("=")
        value = f"{key}= {rng.choice(VALUES)}"
        lines[place] = value if equals and rng.random() < 0.7 else rng.choice(LINES)
    whole = "\n".join(lines).encode()
    where = rng.randrange(len(whole))
    return {
        0: whole.decode().encode("utf-16"),
        1: whole[:where] + b"\xff" + whole[where + 1 :],
        2: whole[:where],
    }.get(rng.randrange(12), whole)


def test_no_mutant_of_a_recipe_ends_otherwise(tmp_path: Path):
    refusals = []
    folder = resources.files("cfseg.recipes")
    texts = [folder.joinpath(f"{name}.toml").read_text(encoding="utf-8") for name in names()]
    for seed in range(100):
        (tmp_path / "r.toml").write_bytes(mutant(texts[seed % len(texts)], seed))
        rng = random.Random(seed)  # noqa: S311 - not a secret
        override = f"{rng.choice(KEYS)}={rng.choice(VALUES)}"
        for call in (
            lambda: load(tmp_path / "r.toml"),
            lambda o=override: with_overrides(Cascade(), (o,)),
        ):
            try:
                call()
            except UsageError as error:
                refusals.append(error.message)
    assert 50 < len(refusals) < 195
    assert max(map(len, refusals)) < 900


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ('name = "x"'.encode("utf-16"), "not UTF-8"),
        (b'name = "\xe9"', "not UTF-8"),
        (b"x = " + b"[" * 5000, "nested too deep"),
        (b"x = " + b"9" * 5000, "4300"),
        (b"x = 0x" + b"f" * 5000, "x: a number of more than 64 bits"),
        (b".".join([b"a"] * 500) + b" = 1", "nested deeper"),
        (b'name = "x"\n[cascade.region]\nmargin_mm = inf', "margin_mm: inf is no number"),
    ],
)
def test_a_recipe_that_cannot_be_used_says_why(tmp_path: Path, contents: bytes, message: str):
    (tmp_path / "r.toml").write_bytes(contents)
    with pytest.raises(UsageError, match=message) as caught:
        load(tmp_path / "r.toml")
    assert "r.toml" in caught.value.message


def test_a_recipe_that_is_a_folder_is_a_usage_error(tmp_path: Path):
    (tmp_path / "r.toml").mkdir()
    with pytest.raises(UsageError, match=r"r\.toml: Is a directory"):
        load(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("region.margin_mm=inf", "inf is no number"),
        ("region.margin_mm=" + "9" * 5000, "margin_mm"),
        ("region.margin_mm=0x" + "f" * 5000, "more than 64 bits"),
        ("clean.labels=" + "[" * 5000, "clean.labels"),
        ("a" * 5000, "is not KEY=VALUE"),
    ],
)
def test_an_override_that_cannot_be_used_says_why(override: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        with_overrides(Cascade(), (override,))
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.seed", "-1"),
        ("training.coarse.patch", "[8, 8, 100000]"),
        ("training.coarse.features", "[4, 1000000000]"),
        ("training.coarse.n_conv_encoder", "1000"),
        ("training.coarse.spacing_mm", "[1e-9, 1, 1]"),
    ],
)
def test_an_absurd_network_is_refused_before_it_is_built(key: str, value: str):
    with pytest.raises(UsageError, match=rf"{key}.*should be .*found"):
        load("paper-small", (f"{key}={value}",))
