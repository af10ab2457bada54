import platform

import pytest
import torch

from cfseg.errors import UsageError
from cfseg.learning import precision
from cfseg.learning.precision import cpu_precision, has_bf16_instructions
from cfseg.recipes.recipe import load


def cpu(monkeypatch, *, can, machine="x86_64", avx512_bf16=False, amx=False):
    """Be another CPU."""
    monkeypatch.setattr(precision, "can_bf16", lambda: can)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    names = {"_is_avx512_bf16_supported": avx512_bf16, "_is_amx_tile_supported": amx}
    for name, has in names.items():
        monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({"can": False}, "fp32"),
        ({"can": True}, "fp32"),  # AVX-512 alone
        ({"can": True, "avx512_bf16": True}, "bf16"),
        ({"can": True, "amx": True}, "bf16"),
        ({"can": False, "amx": True}, "fp32"),  # torch built without what would use it
        ({"can": True, "machine": "aarch64"}, "bf16"),
        ({"can": False, "machine": "arm64"}, "fp32"),
    ],
)
def test_auto_is_bf16_where_there_are_instructions_for_it(monkeypatch, machine, expected):
    cpu(monkeypatch, **machine)
    assert has_bf16_instructions() == (expected == "bf16")
    assert cpu_precision("auto") == expected
    assert cpu_precision("fp32") == "fp32"


def test_bf16_by_name_is_refused_where_it_would_be_imitated(monkeypatch):
    cpu(monkeypatch, can=True)
    assert cpu_precision("bf16") == "bf16"
    cpu(monkeypatch, can=False)
    with pytest.raises(UsageError, match="no instructions for bf16"):
        cpu_precision("bf16")


def test_this_cpu_has_an_answer():
    assert isinstance(has_bf16_instructions(), bool)
    assert cpu_precision("auto") in ("fp32", "bf16")


@pytest.mark.parametrize("name", ["demo", "tiny", "paper-small"])
def test_small_recipes_take_what_the_cpu_has(name):
    assert load(name).training.cpu_precision == "auto"
